"""The order in which images are annotated: useful, repeatable, and recorded."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.annotation.coverage import ImageSignals
from engine.annotation.ordering import (
    OrderingConfig,
    Strategy,
    arranged,
    order_images,
    ranks,
    spread_out,
)
from engine.annotation.records import CampaignImage
from engine.dataset.scenes.drawing import draw_scene
from engine.errors import BadInputError
from engine.images import ImageLimits, content_id, encode_png
from model import Sam, build_sam

LIMITS = ImageLimits()


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled", device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[CampaignImage, ...]:
    folder = tmp_path_factory.mktemp("photos")
    listed = []
    for seed, (height, width) in enumerate([(48, 64), (64, 48), (56, 56), (48, 72)]):
        scene = draw_scene(np.random.default_rng(seed), height, width)
        data = encode_png(scene.image_HWC3)
        path = folder / f"{seed}.png"
        path.write_bytes(data)
        listed.append(
            CampaignImage(image_id=content_id(data)[0], width=width, height=height, uri=str(path))
        )
    return tuple(listed)


def config(strategy: Strategy, **settings: object) -> OrderingConfig:
    return OrderingConfig(strategy=strategy, points_per_side=3, **settings)  # type: ignore[arg-type]


def signals(values: Sequence[float]) -> list[ImageSignals]:
    return [ImageSignals(uncertainty=value) for value in values]


def test_the_least_sure_image_comes_first() -> None:
    order_I, scores_I = arranged(signals([0.2, 0.9, 0.5]), config("uncertain"))
    assert order_I.tolist() == [1, 2, 0]
    assert scores_I.tolist() == [0.2, 0.9, 0.5]


def test_the_seed_decides_between_equals() -> None:
    equals = signals([0.5] * 20)
    orders = {tuple(arranged(equals, config("uncertain", seed=s))[0].tolist()) for s in (0, 0, 1)}
    assert len(orders) == 2


def test_ranks_share_the_middle_of_equals() -> None:
    assert ranks(np.array([3.0, 1.0, 1.0, 9.0, 1.0])).tolist() == [0.75, 0.25, 0.25, 1.0, 0.25]
    assert ranks(np.array([4.0])).tolist() == [0.0]


def test_diverse_shows_every_cluster_before_it_repeats_one() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(6, dtype=np.float32) * 10
    cluster_I = np.repeat(np.arange(6), 30)
    vectors_ID = centres[cluster_I] + random.normal(0, 0.1, (180, 6)).astype(np.float32)
    order_I, scores_I = spread_out(vectors_ID, np.zeros(180), 1.0, 50)
    assert set(cluster_I[order_I[:6]]) == set(range(6))
    assert sorted(order_I.tolist()) == list(range(180))
    assert (np.diff(scores_I[order_I][:50]) <= 1e-6).all()


def test_k_centre_greedy_takes_the_farthest_each_time() -> None:
    vectors_ID = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    order_I, _ = spread_out(vectors_ID, np.zeros(40), 1.0, 40)
    scaled = (vectors_ID - vectors_ID.mean(0)) / vectors_ID.std(0)
    for k in range(2, 15):
        chosen, left = order_I[:k], order_I[k:]
        to_before = np.linalg.norm(scaled[order_I[k - 1 :], None] - scaled[chosen[:-1]], axis=2)
        to_mean = np.linalg.norm(scaled[order_I[k - 1 :]], axis=1)
        nearest = np.minimum(to_before.min(axis=1), to_mean)
        assert nearest[0] >= nearest.max() - 1e-4, f"place {k}"
        assert len(left) == 40 - k


def test_mix_prefers_the_unsure_and_still_leaves_no_cluster_out() -> None:
    vectors = np.repeat(np.array([[0, 0], [10, 0]], dtype=np.float32), 10, axis=0)
    unsure = [0.9 - 0.01 * i for i in range(10)] + [0.1 + 0.01 * i for i in range(10)]
    given = [ImageSignals(uncertainty=u, vector_D=v) for u, v in zip(unsure, vectors, strict=True)]
    both = config("mix", weights=(("uncertain", 1.0), ("diverse", 1.0)))
    order_I, _ = arranged(given, both)
    assert order_I[0] == 0
    assert order_I[1] == 19  # the least sure of the other cluster
    alone = config("mix", weights=(("uncertain", 1.0),))
    assert arranged(given, alone)[0][:10].tolist() == list(range(10))


@pytest.mark.parametrize("strategy", ["uncovered", "disagreement", "mix"])
def test_the_order_does_not_depend_on_how_images_were_listed(
    strategy: Strategy, images: tuple[CampaignImage, ...], sam: Sam
) -> None:
    first = order_images(images, sam, config(strategy), limits=LIMITS)
    second = order_images(images[::-1], sam, config(strategy), limits=LIMITS)
    assert first == second
    assert first.to_json() == second.to_json()
    scores = [one.score for one in first.images if one.score is not None]
    assert len(scores) == len(images)
    if strategy != "mix":
        assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1
    assert [one.position for one in first.images] == list(range(len(images)))
    assert {one.strategy for one in first.images} == {strategy}


def test_random_is_seeded_and_reads_no_image(images: tuple[CampaignImage, ...]) -> None:
    away = tuple(replace(image, uri="/nowhere.png") for image in images)
    orders = [
        [
            one.image_id
            for one in order_images(away, None, config("random", seed=s), limits=LIMITS).images
        ]
        for s in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(image.image_id for image in images)


def test_strategies_that_ask_a_model_need_one(images: tuple[CampaignImage, ...]) -> None:
    with pytest.raises(BadInputError, match="needs a model"):
        order_images(images, None, config("uncertain"), limits=LIMITS)


def test_an_image_that_cannot_be_read_goes_last_with_the_reason(
    images: tuple[CampaignImage, ...], sam: Sam
) -> None:
    broken = replace(images[0], uri="/nowhere.png")
    ordering = order_images((broken, *images[1:]), sam, config("uncertain"), limits=LIMITS)
    last = ordering.images[-1]
    assert (last.image_id, last.score) == (broken.image_id, None)
    assert last.reason is not None
    assert last.reason.startswith("not-found")
    assert json.loads(ordering.to_json())["failed"] == {str(broken.image_id): last.reason}


def test_the_record_says_how_the_order_came_about(
    images: tuple[CampaignImage, ...], sam: Sam
) -> None:
    ordering = order_images(images, sam, config("uncovered", seed=5), limits=LIMITS)
    said = json.loads(ordering.to_json())
    assert said["config"]["strategy"] == "uncovered"
    assert said["config"]["seed"] == 5
    assert said["model_id"] == sam.model_id()
    assert set(said["scores"]) == {str(image.image_id) for image in images}
    again = json.dumps(said, sort_keys=True, separators=(",", ":"))
    assert ordering.to_json() == again


def test_the_campaigns_images_are_put_in_order_with_their_scores(
    images: tuple[CampaignImage, ...], sam: Sam
) -> None:
    ordering = order_images(images, sam, config("uncertain"), limits=LIMITS)
    put = ordering.arrange(images)
    assert [(i.image_id, i.score) for i in put] == [(o.image_id, o.score) for o in ordering.images]
    assert {image.uri for image in put} == {image.uri for image in images}
    with pytest.raises(BadInputError, match="other images"):
        ordering.arrange(images[1:])


def test_two_models_disagree_and_a_model_agrees_with_itself(
    images: tuple[CampaignImage, ...], sam: Sam
) -> None:
    asked = config("disagreement")
    same = order_images(images, sam, asked, limits=LIMITS, other=sam)
    assert {one.score for one in same.images} == {0.0}
    changed = copy.deepcopy(sam)
    with torch.no_grad():
        changed.mask_decoder.mask_tokens.weight.neg_()
    unlike = order_images(images, sam, asked, limits=LIMITS, other=changed)
    assert [one.score is not None and one.score > 0 for one in unlike.images] == [True] * 4
    assert unlike.other_model_id != unlike.model_id


def test_nothing_to_order_is_no_error(sam: Sam) -> None:
    assert order_images((), sam, config("mix"), limits=LIMITS).images == ()


def test_one_image_twice_is_refused(images: tuple[CampaignImage, ...], sam: Sam) -> None:
    with pytest.raises(BadInputError, match="twice"):
        order_images((*images, images[0]), sam, config("random"), limits=LIMITS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "newest"},
        {"points_per_side": 0},
        {"spread_first": 0},
        {"weights": (("newest", 1.0),)},
        {"weights": (("uncertain", -1.0),)},
        {"weights": (("uncertain", 0.0),)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match=r"got|newest"):
        OrderingConfig(**wrong)  # type: ignore[arg-type]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import SIZES, ImageEmbedding, PromptError, Prompts, Sam, SamConfig, ScoredPrompts
from model.preprocess import to_input_frame
from model.types import ImageFeatures
from tests.model.small_models import (
    SMALL_COMPACT,
    SMALL_VIT,
    random_image,
    relative_error,
    small_sam,
)

EXACT = 1e-4
SIZE = (90, 120)


@pytest.fixture(scope="module", params=[SMALL_VIT, SMALL_COMPACT], ids=["vit", "compact"])
def sam(request: pytest.FixtureRequest) -> Sam:
    config: SamConfig = request.param
    return small_sam(config)


@pytest.fixture(scope="module")
def embedding(sam: Sam) -> ImageEmbedding:
    return sam.encode(random_image(*SIZE))


def prompts_of_kind(kind: str, embedding: ImageEmbedding, count: int = 5) -> Prompts:
    """Draw prompts of the kinds named, the mask prompt as large as the model wants it."""
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 90, (count, 3, 2))
    labels = rng.permuted(np.tile([1, 0, -1], (count, 1)), axis=1)
    corners = np.sort(rng.uniform(0, 90, (count, 2, 2)), axis=1)
    shape = [side // 4 for side in embedding.frame.padded_size]
    logits = torch.from_numpy(rng.normal(0, 4, (count, 1, *shape))).float()
    return Prompts(
        points_xy=points if "points" in kind else None,
        point_labels=labels if "points" in kind else None,
        boxes_xyxy=corners.reshape(count, 4) if "boxes" in kind else None,
        mask_logits=logits if "masks" in kind else None,
    )


def only(prompts: Prompts, index: int) -> Prompts:
    """Keep one prompt."""

    def row(value: Any) -> Any:
        return None if value is None else value[index : index + 1]

    return Prompts(
        points_xy=row(prompts.points_xy),
        point_labels=row(prompts.point_labels),
        boxes_xyxy=row(prompts.boxes_xyxy),
        mask_logits=row(prompts.mask_logits),
    )


KINDS = ("points", "boxes", "masks", "points+boxes", "points+masks", "points+boxes+masks")


def levels(features: ImageFeatures) -> list[Tensor]:
    return [features.coarse_BCHW, *features.fine_BCHW]


def test_a_batch_encodes_each_image_as_alone_and_in_order(sam: Sam) -> None:
    sizes = [(90, 120), (60, 80), (120, 90), (33, 47), (128, 128)]
    images = [random_image(*size, seed=i) for i, size in enumerate(sizes)]
    together = sam.encode_batch(images)
    assert [e.frame.original_size for e in together] == sizes
    for image, embedding in zip(images, together, strict=True):
        alone = sam.encode(image)
        assert alone.frame == embedding.frame
        for got, wanted in zip(levels(embedding.features), levels(alone.features), strict=True):
            assert got.shape == wanted.shape
            assert len(got) == 1
            assert relative_error(got, wanted) < EXACT


def test_no_images_give_no_embeddings(sam: Sam) -> None:
    assert sam.encode_batch([]) == []


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_have_the_images_size_and_follow_the_logits(
    sam: Sam, embedding: ImageEmbedding, kind: str, multimask: bool
) -> None:
    prediction = sam.predict(embedding, prompts_of_kind(kind, embedding), multimask=multimask)
    masks = 3 if multimask else 1
    low = tuple(side // 4 for side in embedding.frame.padded_size)
    assert prediction.masks_NMHW.shape == (5, masks, *SIZE)
    assert prediction.masks_NMHW.dtype == torch.bool
    assert prediction.iou_NM.shape == (5, masks)
    assert prediction.iou_NM.dtype == prediction.low_res_logits_NMhw.dtype == torch.float32
    assert prediction.low_res_logits_NMhw.shape == (5, masks, *low)
    assert torch.isfinite(prediction.low_res_logits_NMhw).all()
    share_above = (prediction.low_res_logits_NMhw > 0).float().mean()
    assert prediction.masks_NMHW.float().mean() == pytest.approx(float(share_above), abs=0.25)


def test_single_and_multimask_come_from_different_tokens(
    sam: Sam, embedding: ImageEmbedding
) -> None:
    prompts = prompts_of_kind("points", embedding)
    scored = sam.score(embedding, prompts)
    drawn = sam.draw(scored)
    single = sam.predict(embedding, prompts, multimask=False)
    several = sam.predict(embedding, prompts, multimask=True)
    assert torch.equal(single.low_res_logits_NMhw, drawn[:, :1])
    assert torch.equal(several.low_res_logits_NMhw, drawn[:, 1:])
    assert torch.equal(single.iou_NM, scored.iou_N4[:, :1])
    assert torch.equal(several.iou_NM, scored.iou_N4[:, 1:])


@pytest.mark.parametrize("kind", ["points", "points+boxes+masks"])
@pytest.mark.parametrize(
    "chosen",
    [
        torch.tensor([3, 0]),
        torch.tensor([False, True, False, True, True]),
        slice(1, 3),
        torch.tensor([], dtype=torch.long),
    ],
    ids=["indices", "mask", "slice", "none"],
)
def test_drawing_the_chosen_prompts_equals_drawing_all_and_choosing(
    sam: Sam, embedding: ImageEmbedding, kind: str, chosen: Tensor | slice
) -> None:
    scored: ScoredPrompts = sam.score(embedding, prompts_of_kind(kind, embedding))
    got, wanted = sam.draw(scored, chosen), sam.draw(scored)[chosen]
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_together_are_answered_as_each_alone(
    sam: Sam, embedding: ImageEmbedding, kind: str
) -> None:
    prompts = prompts_of_kind(kind, embedding)
    together = sam.predict(embedding, prompts)
    for i in range(len(prompts)):
        alone = sam.predict(embedding, only(prompts, i))
        got = together.low_res_logits_NMhw[i : i + 1]
        assert relative_error(got, alone.low_res_logits_NMhw) < EXACT
        assert relative_error(together.iou_NM[i : i + 1], alone.iou_NM) < EXACT


def test_more_prompts_than_are_drawn_at_once_are_all_answered(
    sam: Sam, embedding: ImageEmbedding
) -> None:
    prompts = prompts_of_kind("points", embedding, count=70)
    prediction = sam.predict(embedding, prompts)
    assert prediction.masks_NMHW.shape == (70, 3, *SIZE)
    last = sam.predict(embedding, only(prompts, 69))
    assert relative_error(prediction.low_res_logits_NMhw[69:], last.low_res_logits_NMhw) < EXACT


def test_no_prompts_give_no_masks(sam: Sam, embedding: ImageEmbedding) -> None:
    nothing = Prompts(points_xy=np.zeros((0, 1, 2)), point_labels=np.zeros((0, 1), np.int64))
    prediction = sam.predict(embedding, nothing)
    assert prediction.masks_NMHW.shape == (0, 3, *SIZE)
    assert prediction.iou_NM.shape == (0, 3)


@pytest.mark.parametrize("kind", ["points", "boxes", "masks"])
def test_every_kind_of_prompt_changes_the_answer(
    sam: Sam, embedding: ImageEmbedding, kind: str
) -> None:
    low_res = sam.predict(embedding, prompts_of_kind(kind, embedding)).low_res_logits_NMhw
    assert relative_error(low_res[0], low_res[1]) > 0.01


def test_padding_points_say_nothing_wherever_they_are(sam: Sam, embedding: ImageEmbedding) -> None:
    labels = np.array([[1, -1]])
    here = Prompts(points_xy=np.array([[[20, 30], [0, 0]]]), point_labels=labels)
    there = Prompts(points_xy=np.array([[[20, 30], [100, 77]]]), point_labels=labels)
    answers = [sam.predict(embedding, p).low_res_logits_NMhw for p in (here, there)]
    assert relative_error(*answers) < EXACT


def test_an_answer_can_be_fed_back_as_a_mask_prompt(sam: Sam, embedding: ImageEmbedding) -> None:
    first = sam.predict(embedding, prompts_of_kind("points", embedding), multimask=False)
    again = sam.predict(embedding, Prompts(mask_logits=first.low_res_logits_NMhw))
    assert again.masks_NMHW.shape == (5, 3, *SIZE)


def test_a_mask_prompt_of_another_size_is_refused(sam: Sam, embedding: ImageEmbedding) -> None:
    with pytest.raises(PromptError, match="mask_logits must be"):
        sam.predict(embedding, Prompts(mask_logits=torch.zeros(1, 1, 8, 8)))


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32), np.zeros((0, 5, 3), "u1")],
)
def test_what_is_no_image_is_refused(sam: Sam, image: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected an RGB image|at least one pixel"):
        sam.encode(image)


def test_answers_do_not_depend_on_what_was_asked_before(
    sam: Sam, embedding: ImageEmbedding
) -> None:
    prompts = prompts_of_kind("points", embedding)
    before = sam.predict(embedding, prompts).low_res_logits_NMhw
    other = sam.encode(random_image(70, 50, seed=9))
    sam.predict(other, prompts_of_kind("boxes", other))
    assert torch.equal(sam.predict(embedding, prompts).low_res_logits_NMhw, before)


@pytest.fixture(scope="module")
def bundled() -> Sam:
    return small_sam(SIZES["bundled"])


@pytest.mark.parametrize("size", [(37, 53), (333, 501), (1, 1), (3, 1500), (1500, 3), (512, 511)])
def test_the_bundled_size_takes_odd_images(bundled: Sam, size: tuple[int, int]) -> None:
    height, width = size
    embedding = bundled.encode(random_image(height, width))
    prompts = Prompts(
        points_xy=np.array([[[width / 2, height / 2]]]),
        point_labels=np.array([[1]]),
        boxes_xyxy=np.array([[0, 0, width - 1, height - 1]]),
    )
    prediction = bundled.predict(embedding, prompts)
    assert prediction.masks_NMHW.shape == (1, 3, height, width)
    assert torch.isfinite(prediction.low_res_logits_NMhw).all()
    assert torch.isfinite(prediction.iou_NM).all()


def test_the_model_id_is_stable_and_changes_with_any_weight() -> None:
    sam = small_sam(SMALL_COMPACT)
    original = sam.model_id()
    assert original.startswith("small_compact-")
    assert len(original) == len("small_compact-") + 12
    assert small_sam(SMALL_COMPACT).model_id() == original
    seen = {original}
    for tensor in sam.state_dict().values():
        flat = tensor.view(-1)
        before = flat[-1].clone()
        flat[-1] += 1
        seen.add(sam.model_id())
        flat[-1] = before
    assert len(seen) == 1 + len(sam.state_dict())
    assert sam.model_id() == original


def test_the_model_id_names_the_precision() -> None:
    full = small_sam(SMALL_COMPACT)
    ids = {full.model_id(), full.bfloat16().model_id(), full.half().model_id()}
    assert len(ids) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_click_finds_what_the_first_one_prepared_and_answers_alike(
    sam: Sam, kind: str
) -> None:
    embedding = sam.encode(random_image(*SIZE))
    prompts = prompts_of_kind(kind, embedding)
    first = sam.predict(embedding, prompts)
    prepared = embedding.features.ground.positions_1CHW
    second = sam.predict(embedding, prompts)
    assert prepared is not None
    assert embedding.features.ground.positions_1CHW is prepared
    assert torch.equal(first.low_res_logits_NMhw, second.low_res_logits_NMhw)
    assert torch.equal(first.masks_NMHW, second.masks_NMHW)


def test_learning_never_takes_what_was_prepared_without_gradients() -> None:
    sam = small_sam(SMALL_COMPACT)
    features = sam.image_encoder(torch.randn(1, 3, 64, 64))
    prepared = to_input_frame(
        Prompts(points_xy=np.array([[[20.0, 30.0]]]), point_labels=np.array([[1]])),
        sam.frame((64, 64)),
        sam.device,
    )
    with torch.no_grad():
        sam.score_input(features, prepared, (64, 64))
    assert features.ground.terrain is not None
    iou_N4 = sam.score_input(features, prepared, (64, 64)).iou_N4
    barriers = sam.image_encoder.get_parameter("heads.barriers.weight")
    (gradient,) = torch.autograd.grad(iou_N4.sum(), [barriers])
    assert bool((gradient != 0).any())

"""Which masks are asked for, and that the answer does not depend on what else is in the set."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BadInputError
from engine.evaluation.labelled import (
    Selection,
    ask,
    chosen_images,
    decode_masks,
    levels_of_agreement,
)
from engine.evaluation.robustness import SceneSet
from tests.evaluation.segmenters import disc, disc_set, image_of


def drawn(labelled_set: SceneSet, selection: Selection) -> dict[str, set[str]]:
    return {
        asked.image.uri: {mask.rle.counts for mask in asked.masks}
        for asked in ask(labelled_set, selection)
    }


def test_a_few_masks_of_each_image_are_drawn_and_zero_means_all() -> None:
    data = disc_set(images=3, per_image=6)
    assert {len(a.masks) for a in ask(data, Selection(masks_per_image=2))} == {2}
    assert {len(a.masks) for a in ask(data, Selection(masks_per_image=0))} == {6}


def test_the_seed_decides_the_draw() -> None:
    data = disc_set(images=4, per_image=8)
    first = drawn(data, Selection(masks_per_image=3))
    assert drawn(data, Selection(masks_per_image=3)) == first
    assert drawn(data, Selection(masks_per_image=3, seed=1)) != first


def test_the_draw_of_an_image_does_not_depend_on_the_others() -> None:
    data = disc_set(images=6, per_image=8)
    whole = drawn(data, Selection(masks_per_image=3))
    part = drawn(SceneSet("part", data.images[3:]), Selection(masks_per_image=3))
    assert all(whole[uri] == masks for uri, masks in part.items())


def test_every_level_of_agreement_gets_its_masks() -> None:
    data = disc_set(images=3, per_image=8)
    both = drawn(data, Selection(masks_per_image=3, votes=(1, 2)))
    one = drawn(data, Selection(masks_per_image=3))
    two = drawn(data, Selection(masks_per_image=3, votes=(2,)))
    assert both == {uri: one[uri] | two[uri] for uri in one}


def test_images_without_fitting_masks_are_left_out() -> None:
    empty = disc(10, 10, 4) & False
    data = SceneSet(
        "few",
        (image_of([disc(10, 10, 4)], "a.jpg"), image_of([empty, disc(30, 30, 9)], "b.jpg", (1, 2))),
    )
    assert [a.index for a in ask(data, Selection(votes=(2,)))] == [1]
    assert [len(a.masks) for a in ask(data, Selection())] == [1, 1]


def test_images_are_chosen_evenly() -> None:
    data = disc_set(images=10, per_image=1)
    assert chosen_images(data, 3) == [0, 3, 6]
    assert chosen_images(data, 99) == chosen_images(data, None) == list(range(10))


def test_levels_are_two_where_people_disagree() -> None:
    assert levels_of_agreement(disc_set(), None) == (1, 2)
    assert levels_of_agreement(SceneSet("one", (image_of([disc(9, 9, 3)]),)), None) == (1,)


def test_masks_decode_to_what_was_drawn() -> None:
    masks = [disc(20, 20, 5), disc(40, 30, 9)]
    assert (decode_masks(image_of(masks).masks) == np.stack(masks)).all()


@pytest.mark.parametrize(
    "wrong", [{"masks_per_image": -1}, {"max_images": 0}, {"votes": ()}, {"votes": (0, 1)}]
)
def test_selections_that_select_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInputError, match="got"):
        Selection(**wrong)  # type: ignore[arg-type]

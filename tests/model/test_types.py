from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model import PromptError, Prompts
from model.types import ImageFeatures, InputPrompts


def test_prompts_take_lists_arrays_and_tensors_and_hold_arrays() -> None:
    from_lists = Prompts(points_xy=[[[1, 2]]], point_labels=[[1]])  # type: ignore[arg-type]
    from_tensors = Prompts(
        points_xy=torch.tensor([[[1, 2]]]),  # type: ignore[arg-type]
        point_labels=torch.tensor([[1]]),  # type: ignore[arg-type]
    )
    for prompts in (from_lists, from_tensors):
        assert prompts.points_xy is not None
        assert prompts.point_labels is not None
        assert prompts.points_xy.dtype == np.float64
        assert prompts.point_labels.dtype == np.int64
        assert prompts.points_xy.tolist() == [[[1.0, 2.0]]]
        assert len(prompts) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "got none"),
        ({"points_xy": np.zeros((1, 1, 2))}, "go together"),
        ({"point_labels": np.ones((1, 1))}, "got none"),
        ({"point_labels": np.ones((1, 1)), "boxes_xyxy": np.zeros((1, 4))}, "go together"),
        ({"points_xy": np.zeros((1, 2)), "point_labels": np.ones(1)}, r"\(N, K, 2\)"),
        ({"points_xy": np.zeros((1, 1, 3)), "point_labels": np.ones((1, 1))}, r"\(N, K, 2\)"),
        ({"points_xy": np.zeros((2, 1, 2)), "point_labels": np.ones((1, 2))}, "point_labels must"),
        ({"points_xy": np.zeros((1, 0, 2)), "point_labels": np.ones((1, 0))}, "at least one point"),
        ({"points_xy": np.zeros((1, 1, 2)), "point_labels": [[2]]}, "1, 0 or -1"),
        ({"points_xy": np.zeros((1, 1, 2)), "point_labels": [[0.7]]}, "1, 0 or -1"),
        ({"points_xy": np.zeros((1, 1, 2)), "point_labels": [[np.nan]]}, "1, 0 or -1"),
        ({"points_xy": [[[1, np.nan]]], "point_labels": [[1]]}, "finite"),
        ({"points_xy": [[[1, 2]], [[1, 2], [3, 4]]], "point_labels": [[1], [1, 1]]}, "points_xy"),
        ({"points_xy": [[["a", "b"]]], "point_labels": [[1]]}, "points_xy must be numbers"),
        ({"boxes_xyxy": [1, 2, 3, 4]}, r"\(N, 4\)"),
        ({"boxes_xyxy": [[1, 2, 3]]}, r"\(N, 4\)"),
        ({"boxes_xyxy": [[1, 2, 3, np.inf]]}, "finite"),
        ({"mask_logits": np.zeros((1, 3, 8, 8))}, r"\(N, 1, h, w\)"),
        ({"mask_logits": np.zeros((8, 8))}, r"\(N, 1, h, w\)"),
        ({"boxes_xyxy": np.zeros((2, 4)), "mask_logits": np.zeros((3, 1, 8, 8))}, "agree on N"),
    ],
)
def test_prompts_that_do_not_fit_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompts(**given)


def test_the_number_of_prompts_comes_from_whatever_is_given() -> None:
    boxes = np.zeros((3, 4))
    logits = torch.zeros(2, 1, 8, 8)
    assert len(Prompts(boxes_xyxy=boxes)) == 3
    assert len(Prompts(mask_logits=logits)) == 2
    assert len(InputPrompts(None, None, torch.from_numpy(boxes), None)) == 3
    assert len(InputPrompts(None, None, None, logits)) == 2


def test_features_of_one_image_keep_all_levels_and_lose_the_owners() -> None:
    features = ImageFeatures(torch.rand(2, 4, 3, 3), (torch.rand(2, 2, 6, 6),))
    second = features.owned_by(torch.tensor([1, 1])).of_image(1)
    assert torch.equal(second.coarse_BCHW, features.coarse_BCHW[1:])
    assert torch.equal(second.fine_BCHW[0], features.fine_BCHW[0][1:])
    assert second.owner_N is None


def test_maps_are_spread_over_prompts_by_their_owner() -> None:
    features = ImageFeatures(torch.rand(2, 4, 3, 3))
    maps = torch.rand(2, 1, 1, 1)
    assert features.per_prompt(maps) is maps
    owner = torch.tensor([1, 0, 1])
    assert torch.equal(features.owned_by(owner).per_prompt(maps), maps[[1, 0, 1]])

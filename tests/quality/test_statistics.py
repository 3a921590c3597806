from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest
from engine.dataset.runs import Recipe
from engine.images import ImageLimits
from engine.quality.statistics import CENTRE_CELLS, Distribution, release_statistics
from engine.records import SkippedImage
from tests.dataset.dataset_builders import NOW
from tests.quality.release_builders import (
    Results,
    random_rectangles,
    rectangle,
    release_of,
    write_photos,
)


def test_statistics_are_what_numpy_finds_in_the_masks(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(6)]
    masks = {name: random_rectangles(i, 5 * i) for i, name in enumerate(names)}
    write_photos(tmp_path / "photos", names)
    with Workspace.open(tmp_path / "data") as workspace:
        found = release_statistics(workspace, release_of(workspace, tmp_path / "photos", masks))

    everything = [mask for each in masks.values() for mask in each]
    areas = np.array([mask.area for mask in everything])
    ious = np.array([mask.predicted_iou for mask in everything])
    sizes = np.sqrt(areas / (60 * 80))
    per_image = [len(each) for each in masks.values()]
    assert (found.images, found.masks) == (6, len(everything))
    assert (found.images_masked, found.images_without_masks) == (5, 1)
    assert found.masks_small == (areas < 32**2).sum()
    assert found.masks_medium == ((areas >= 32**2) & (areas < 96**2)).sum()
    assert found.masks_large == (areas >= 96**2).sum()
    assert found.masks_per_image.mean == np.mean(per_image)
    assert found.masks_per_image.median == np.median(per_image)
    assert found.masks_per_image.maximum == 25
    for distribution, values in ((found.relative_size, sizes), (found.predicted_iou, ious)):
        assert distribution.counts == tuple(np.histogram(values, distribution.edges)[0])
        assert distribution.mean == pytest.approx(values.mean())
        assert distribution.median == pytest.approx(
            np.sort(values)[(values.size - 1) // 2], abs=0.0006
        )
        assert (distribution.minimum, distribution.maximum) == (values.min(), values.max())


def test_a_mask_counts_to_the_cell_that_holds_the_middle_of_its_box(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    # The middles, in shares of the sides: (10, 6) / (80, 60) and (79.5, 59.5) / (80, 60).
    masks = [rectangle(0, 0, 20, 12), rectangle(79, 59, 1, 1)]
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", {"a.png": masks})
        centres = np.array(release_statistics(workspace, release).centres)
    assert centres.sum() == 2
    assert centres[int(0.1 * CENTRE_CELLS), int(0.125 * CENTRE_CELLS)] == 1
    assert centres[-1, -1] == 1


def test_every_image_is_masked_or_empty_or_skipped_or_waiting(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png", "b.png", "c.png", "d.png"])
    results: Results = {
        "a.png": [rectangle(0, 0, 9, 9)],
        "c.png": SkippedImage("c", "truncated", "cut off"),
        "d.png": SkippedImage("d", "truncated", "cut off, too"),
    }
    with Workspace.open(tmp_path / "data") as workspace:
        first = release_of(workspace, tmp_path / "photos", results)
        # Another model can use d, and finds other masks on a.
        again: Results = {
            **results,
            "a.png": random_rectangles(1, 4),
            "d.png": random_rectangles(2, 3),
        }
        second = release_of(workspace, tmp_path / "photos", again, Recipe.of("other", {}))
        before, after = (release_statistics(workspace, r) for r in (first, second))
    assert (before.images_masked, before.images_without_masks, before.images_skipped) == (1, 1, 2)
    assert [(r.reason, r.images) for r in before.skipped] == [("truncated", 2)]
    assert {example.message for example in before.skipped[0].examples} == {
        "cut off",
        "cut off, too",
    }
    assert (after.images_masked, after.images_without_masks, after.images_skipped) == (2, 1, 1)
    assert after.images_waiting == before.images_waiting == 0
    assert [Path(e.uri).name for r in after.skipped for e in r.examples] == ["c.png"]
    assert (after.images_masked_again, after.masks) == (1, 1 + 4 + 3)
    assert after.masks_per_image.maximum == 5


def test_images_that_no_run_has_seen_are_waiting(tmp_path: Path) -> None:
    write_photos(tmp_path / "one", ["a.png"])
    write_photos(tmp_path / "all", ["a.png", "b.png", "c.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        ingest(workspace, expand_inputs([str(tmp_path / "all")]), ImageLimits(), NOW)
        release = release_of(workspace, tmp_path / "one", {"a.png": [rectangle(0, 0, 9, 9)]})
        found = release_statistics(workspace, release)
    assert (found.images, found.images_masked, found.images_waiting) == (3, 1, 2)
    assert found.masks_per_image.total == 1


def test_a_release_without_a_single_mask_has_statistics(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        found = release_statistics(workspace, release_of(workspace, tmp_path / "photos", {}))
    assert (found.masks, found.images_without_masks) == (0, 1)
    assert found.predicted_iou.total == 0
    assert found.masks_per_image.counts == (1,)


def test_scores_that_are_not_numbers_are_left_out(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    masks = [rectangle(0, 0, 9, 9, iou=value) for value in (float("nan"), 0.93, 1.7)]
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", {"a.png": masks})
        found = release_statistics(workspace, release).predicted_iou
    assert found.total == 2
    assert found.counts[930] == 1, "0.93 is not below 0.93"
    assert (found.counts[-1], found.maximum) == (1, 1.7)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=1300).filter(any),
    st.integers(1, 60),
    st.booleans(),
)
def test_merging_bins_loses_no_value_and_keeps_to_the_limit(
    counts: list[int], max_bins: int, from_zero: bool
) -> None:
    edges = tuple(i / 1000 for i in range(len(counts) + 1))
    merged = Distribution(edges, tuple(counts)).rebinned(max_bins, from_zero=from_zero)
    assert merged.total == sum(counts)
    assert len(merged.counts) <= max_bins
    assert len(merged.edges) == len(merged.counts) + 1
    assert np.ptp(np.diff(merged.edges)) < 1e-6
    fine_values = np.repeat(np.array(edges[:-1]) + 0.0005, counts)
    assert merged.counts == tuple(np.histogram(fine_values, merged.edges)[0])

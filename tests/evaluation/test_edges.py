"""Edges against human boundaries: the benchmark's figures, its ground truth and the detectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.morphology import thin
from torch import Tensor

from engine.dataset.labelled_sets import CocoMasks, LabelledImage, LabelledMask
from engine.errors import BadInputError
from engine.evaluation.edge_maps import SamEdgeConfig, sam_edges, sobel_edges, thin_edges
from engine.evaluation.edge_scores import EdgeScores
from engine.evaluation.edges import (
    EdgeConfig,
    EdgeDetector,
    edge_counts,
    evaluate_edges,
    sam_detector,
    score_detectors,
    sobel_detector,
)
from engine.evaluation.human_boundaries import EdgeImage, annotator_boundaries, edge_images
from engine.masks import encode_mask
from model import ImageEmbedding, Prompts, SamConfig, ScoredPrompts
from model.preprocess import input_frame
from model.types import ImageFeatures
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam

HEIGHT, WIDTH = 60, 80
GREY = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)


def frame_of_lines() -> NDArray[np.bool_]:
    lines = np.zeros((HEIGHT, WIDTH), dtype=bool)
    lines[10, 16:60] = lines[50, 16:60] = lines[11:50, 15] = lines[11:50, 60] = True  # no corners
    return lines


def scored(edges: NDArray[np.floating], *boundaries: NDArray[np.bool_], t: int = 9) -> EdgeScores:
    images = [EdgeImage("drawn", GREY, boundaries)]
    detector = EdgeDetector("given", lambda _: edges.astype(np.float64))
    return score_detectors((detector,), images, EdgeConfig(thresholds=t)).scores[0]


def from_counts(*counts: list[list[int]]) -> EdgeScores:
    found, edges, recalled, boundaries = (np.array(c, dtype=np.int64) for c in counts)
    thresholds = np.arange(1, found.shape[1] + 1) / (found.shape[1] + 1)
    return EdgeScores(
        method="counted",
        thresholds_T=thresholds,
        found_IT=found,
        edges_IT=edges,
        recalled_IT=recalled,
        boundaries_IT=boundaries,
    )


def test_a_perfect_edge_map_has_ods_and_ois_1() -> None:
    scores = scored(frame_of_lines().astype(float), frame_of_lines())
    assert scores.ods.f == scores.ois.f == 1
    assert scores.recall_at_half_precision == 1


def test_edges_moved_within_the_tolerance_are_right_and_beyond_it_wrong() -> None:
    lines = np.zeros((HEIGHT, WIDTH), dtype=bool)
    lines[5:55, 30] = True
    assert EdgeConfig().max_distance_ratio * np.hypot(HEIGHT, WIDTH) == pytest.approx(0.75)
    config = EdgeConfig(thresholds=1, max_distance_ratio=0.0201)  # 2.01 px
    for shift, right in ((2, 50), (3, 0)):
        moved = np.roll(lines, shift, axis=1).astype(float)
        found, edges, recalled, boundaries = edge_counts(moved, (lines,), config)[:, 0]
        assert (found, edges, recalled, boundaries) == (right, 50, right, 50)


def test_precision_accepts_any_annotator_and_recall_asks_all() -> None:
    left, right = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    left[5:55, 20] = right[5:45, 60] = True
    scores = scored((left | right).astype(float), left, right)
    assert scores.precision_T.tolist() == [1] * 9
    assert scores.recall_T.tolist() == [1] * 9
    only_left = scored(left.astype(float), left, right)
    assert only_left.precision_T.tolist() == [1] * 9
    assert only_left.recall_T.tolist() == pytest.approx([50 / 90] * 9)


def test_the_best_threshold_drops_the_weak_edges_that_nobody_drew() -> None:
    edges = 0.9 * frame_of_lines()
    edges[30, 20:50] = 0.3
    ods = scored(edges, frame_of_lines()).ods
    assert (ods.f, ods.precision, ods.recall) == (1, 1, 1)
    assert ods.threshold is not None
    assert 0.3 < ods.threshold <= 0.9
    assert scored(edges, frame_of_lines()).precision_T[0] < 0.9


def test_thick_edges_are_thinned_before_they_are_counted() -> None:
    thick = np.zeros((HEIGHT, WIDTH))
    thick[20:23, 10:70] = 1
    counts = edge_counts(thick, (thick > 0,), EdgeConfig(thresholds=1))
    assert counts[1, 0] <= 60


def test_ois_lets_every_image_choose() -> None:
    scores = from_counts([[8, 4], [8, 4]], [[8, 4], [80, 4]], [[8, 4], [8, 4]], [[8, 8], [8, 8]])
    # image 0 is best at the first threshold (F 1), image 1 at the second (F 2/3)
    assert scores.ois.precision == 1
    assert scores.ois.recall == pytest.approx(12 / 16)
    assert scores.ois.f > scores.ods.f


def test_ap_is_the_area_below_the_curve_between_the_measured_recalls() -> None:
    scores = from_counts([[50, 20]], [[100, 20]], [[60, 20]], [[100, 100]])
    # precision falls linearly from 1 at recall .2 to .5 at recall .6
    assert scores.ap == pytest.approx(sum(1 - 0.0125 * i for i in range(41)) / 100)
    assert scored(frame_of_lines().astype(float), frame_of_lines()).ap == 0


def test_r50_reads_the_recall_where_half_is_right() -> None:
    assert from_counts(
        [[40, 20]], [[100, 25]], [[60, 20]], [[100, 100]]
    ).recall_at_half_precision == pytest.approx(0.5)
    silent = from_counts([[40, 0]], [[50, 0]], [[60, 0]], [[100, 100]])
    assert silent.recall_at_half_precision == pytest.approx(0.6)
    hopeless = from_counts([[1, 1]], [[50, 40]], [[1, 1]], [[100, 100]])
    assert hopeless.recall_at_half_precision == 0


# Pixels counted by `edge_counts` on the five images of the BSDS benchmark's own test (boundary maps
# as PNG, five thresholds); the figures below are those that the benchmark's authors recorded.
BENCHMARK_COUNTS = (
    [
        [2492, 1669, 1608, 1608, 946],
        [2104, 1143, 1120, 955, 906],
        [1961, 1644, 1065, 1065, 553],
        [1976, 741, 724, 724, 324],
        [2138, 1393, 1102, 1102, 1102],
    ],
    [
        [2808, 1724, 1663, 1663, 946],
        [3048, 1290, 1234, 955, 906],
        [1971, 1649, 1065, 1065, 553],
        [2104, 749, 732, 732, 324],
        [2642, 1697, 1118, 1118, 1118],
    ],
    [
        [9251, 7685, 7472, 7472, 4568],
        [7017, 5760, 5714, 5517, 5433],
        [9113, 7551, 4888, 4888, 2335],
        [8140, 3502, 3423, 3423, 1573],
        [8369, 6330, 5165, 5165, 5165],
    ],
    [[14318] * 5, [9238] * 5, [19298] * 5, [17035] * 5, [9616] * 5],
)


def test_figures_agree_with_the_benchmarks_recorded_ones() -> None:
    scores = from_counts(*BENCHMARK_COUNTS)
    recorded = {"ODS": 0.704628, "OIS": 0.708698, "AP": 0.307627}
    figures = dict(scores.rows())
    assert {name: figures[name] for name in recorded} == pytest.approx(recorded, abs=5e-4)
    assert scores.ods.threshold == pytest.approx(1 / 6)
    assert scores.recall_T == pytest.approx(
        [0.60236, 0.443249, 0.383339, 0.380404, 0.274124], abs=5e-4
    )
    assert scores.precision_T == pytest.approx(
        [0.848723, 0.926853, 0.967137, 0.986264, 0.996101], abs=1e-3
    )


def test_resampling_counts_images_as_often_as_they_are_drawn() -> None:
    scores = from_counts(*BENCHMARK_COUNTS)
    assert scores.resampled(np.arange(5)).rows() == scores.rows()
    assert scores.resampled(np.array([2, 2, 2])).ods == scores.resampled(np.array([2])).ods


counts_2x4 = arrays(np.int64, (2, 4), elements=st.integers(0, 9))


@given(counts_2x4, counts_2x4, counts_2x4, counts_2x4)
@settings(max_examples=60)
def test_figures_of_any_counts_lie_between_0_and_1(
    found: NDArray[np.int64],
    wrong: NDArray[np.int64],
    recalled: NDArray[np.int64],
    missed: NDArray[np.int64],
) -> None:
    boundaries = np.broadcast_to((recalled + missed).max(axis=1, keepdims=True), (2, 4))
    lists = [a.tolist() for a in (found, found + wrong, recalled, boundaries)]
    for name, value in from_counts(*lists).rows():
        assert 0 <= value <= (1.01 if name == "AP" else 1), name  # 101 recalls, 100 steps


def labelled_halves(voters: list[tuple[int, ...]], splits: list[int]) -> LabelledImage:
    """Cut an image at columns; mask i of each cut has the voters given."""
    masks = []
    for who, split in zip(voters, splits, strict=True):
        for columns in (slice(0, split), slice(split, None)):
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[:, columns] = True
            box = (0.0, 0.0, 1.0, 1.0)
            masks.append(
                LabelledMask(encode_mask(mask), box, float(mask.sum()), len(who) or 1, voters=who)
            )
    return LabelledImage("halves.jpg", HEIGHT, WIDTH, tuple(masks))


def test_every_voter_gets_the_boundaries_of_the_masks_that_they_drew() -> None:
    image = labelled_halves([(0, 2), (1,)], [30, 50])
    boundaries = annotator_boundaries(image)
    assert len(boundaries) == 3
    for lines, column in zip(boundaries, (29, 49, 29), strict=True):
        expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
        expected[:, column] = True
        assert (lines & ~expected).sum() == 0
        assert lines.sum() >= HEIGHT - 2  # thinning may take the ends


def test_masks_without_voters_are_taken_for_one_persons() -> None:
    (lines,) = annotator_boundaries(labelled_halves([()], [30]))
    assert lines[5:-5, 29].all()


def test_a_narrow_gap_between_regions_is_one_boundary_not_two() -> None:
    masks = []
    for columns in (slice(0, 30), slice(33, None)):
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[:, columns] = True
        masks.append(LabelledMask(encode_mask(mask), (0.0, 0.0, 1.0, 1.0), float(mask.sum())))
    (lines,) = annotator_boundaries(LabelledImage("gap.jpg", HEIGHT, WIDTH, tuple(masks)))
    assert (lines[20:40].sum(axis=1) == 1).all()


@dataclass(frozen=True, eq=False)
class DiscScores(ScoredPrompts):
    """Scored prompts of `DiscSegmenter`."""


@dataclass(frozen=True)
class DiscSegmenter:
    """Answers every prompt with a disc, a small one inside it and an empty mask."""

    radius_cells: float = 12.0
    centre_cells: tuple[float, float] = (22.0, 28.0)
    sharpness: float = 2.0
    side: int = 256

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        frame = input_frame(image_HWC3.shape[:2], self.side, self.side)
        return ImageEmbedding(ImageFeatures(torch.empty(0)), frame)

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        nothing = torch.empty(0)
        return DiscScores(
            iou_N4=torch.tensor([[0.0, 0.9, 0.8, 0.7]]).repeat(len(prompts), 1),
            mask_tokens_N4C=nothing,
            image_NCHW=nothing,
            features=embedding.features,
        )

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        cells = torch.arange(self.side // 4) + 0.5
        y, x = cells[:, None] - self.centre_cells[0], cells[None] - self.centre_cells[1]
        distance = torch.hypot(y, x)
        disc = (self.radius_cells - distance) * self.sharpness
        inner = (self.radius_cells / 2 - distance) * self.sharpness
        empty = torch.full_like(disc, -10.0)
        return torch.stack([empty, disc, inner, empty]).repeat(len(chosen), 1, 1, 1)


def ring(radius_px: float) -> NDArray[np.bool_]:
    # One cell of the low-resolution map is 4/256 of the long side.
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    px_per_cell = WIDTH / 64
    distance = np.hypot(y - 22 * px_per_cell, x - 28 * px_per_cell)
    return np.asarray(np.abs(distance - radius_px) < 0.75)


def test_a_promptable_models_edges_are_the_outlines_of_its_masks() -> None:
    px_per_cell = WIDTH / 64
    edges = sam_edges(DiscSegmenter(), GREY, SamEdgeConfig(points_per_side=2))
    wanted = thin(ring(12 * px_per_cell) | ring(6 * px_per_cell))
    config = EdgeConfig(thresholds=1, max_distance_ratio=0.02)
    found, lines, recalled, boundaries = edge_counts(edges, (wanted,), config)[:, 0]
    assert found > 0.95 * lines > 95
    assert recalled > 0.95 * boundaries
    assert edges.max() == 1
    assert edges.min() == 0


def test_a_blurred_mask_makes_weaker_edges_than_a_sharp_one() -> None:
    @dataclass(frozen=True)
    class TwoSharpnesses(DiscSegmenter):
        def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
            drawn = super().draw(scored, chosen)
            drawn[:, 2] *= 0.1
            return drawn

    edges = sam_edges(TwoSharpnesses(), GREY, SamEdgeConfig(points_per_side=2))
    px_per_cell = WIDTH / 64
    sharp = edges[ring(12 * px_per_cell)].max()
    blurred = edges[ring(6 * px_per_cell)].max()
    assert 0 < blurred < 0.5 * sharp


def test_a_model_that_finds_nothing_has_an_empty_edge_map() -> None:
    edges = sam_edges(DiscSegmenter(radius_cells=-100), GREY, SamEdgeConfig(points_per_side=1))
    assert not edges.any()


def test_sobel_edges_lie_on_the_step_of_an_image() -> None:
    image = GREY.copy()
    image[:, 40:] = 200
    edges = sobel_edges(image)
    # strongest on both sides of the step, and nowhere else
    assert set(np.nonzero(edges > 0.5)[1]) <= {39, 40}
    assert (edges[:, 39:41].max(axis=1) > 0.9).all()


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4, 1.2, np.pi / 2, 2.5])
def test_thinning_keeps_the_crest_of_a_ridge_in_any_direction(angle: float) -> None:
    y, x = np.mgrid[-30:31, -30:31].astype(float)
    across = x * np.cos(angle) + y * np.sin(angle)
    thinned = thin_edges(np.exp(-(across**2) / 18))
    assert np.abs(across[thinned > 0.05]).max() <= 1
    inside = np.hypot(y, x) < 25
    crest = inside & (np.abs(across) < 0.5)
    assert (thinned[crest] > 0).mean() > 0.7


def test_thinning_leaves_thin_lines_as_they_are() -> None:
    lines = frame_of_lines().astype(float)
    assert ((thin_edges(lines) > 0) == frame_of_lines()).mean() > 0.995


def test_rows_name_detector_figure_and_value() -> None:
    images = [EdgeImage("drawn", GREY, (frame_of_lines(),))]
    perfect = EdgeDetector("perfect", lambda _: frame_of_lines().astype(float))
    seen: list[tuple[str, int]] = []
    result = score_detectors(
        (perfect, sobel_detector()),
        images,
        EdgeConfig(thresholds=3),
        lambda name, n: seen.append((name, n)),
    )
    assert result.images == 1
    assert result.rows()[0] == ("perfect", "ODS", 1.0)
    assert {row[0] for row in result.rows()} == {"perfect", "Sobel"}
    assert ("Sobel", "ODS", 0.0) in result.rows()  # the image is grey
    assert seen == [("drawn", 1)]


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        (np.full((HEIGHT, WIDTH), 1.5), "0..1"),
        (np.full((HEIGHT, WIDTH), np.nan), "0..1"),
        (np.full((HEIGHT, WIDTH - 1), 0.5), "cannot be compared"),
    ],
)
def test_edge_maps_of_another_range_or_size_are_refused(
    edges: NDArray[np.float64], words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        scored(edges, frame_of_lines(), t=1)


def test_a_set_without_boundaries_is_said_not_scored() -> None:
    blank = EdgeImage("blank", GREY, (np.zeros((HEIGHT, WIDTH), dtype=bool),))
    with pytest.raises(BadInputError, match="no image with boundaries"):
        score_detectors((sobel_detector(),), [blank], EdgeConfig())


@pytest.mark.parametrize("arguments", [{"thresholds": 0}, {"max_distance_ratio": -1.0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="or more"):
        EdgeConfig(**arguments)  # type: ignore[arg-type]


def test_the_sobel_baseline_scores_plausibly_on_bsds(data_pack: Path) -> None:
    data = CocoMasks.load(data_pack / "bsds500_trainval" / "annotations.json", split="val")
    result = score_detectors((sobel_detector(),), edge_images(data, 1), EdgeConfig(thresholds=4))
    # published for the test split: ODS .54 to .60; one image and four thresholds vary around it
    assert 0.45 < result.scores[0].ods.f < 0.75


def test_a_model_is_scored_beside_the_gradient_of_the_image() -> None:
    px_per_cell = WIDTH / 64
    wanted = thin(ring(12 * px_per_cell) | ring(6 * px_per_cell))
    images = [EdgeImage("discs", GREY, (wanted,))]
    config = EdgeConfig(thresholds=3, max_distance_ratio=0.02, sam=SamEdgeConfig(points_per_side=1))
    model, sobel = evaluate_edges(DiscSegmenter(), images, config, name="discs").scores
    assert (model.method, sobel.method) == ("discs", "Sobel")
    assert model.ods.f > 0.9 > sobel.ods.f == 0
    (alone,) = evaluate_edges(DiscSegmenter(), images, replace(config, sobel_sigma_px=None)).scores
    assert alone.rows() == model.rows()


@pytest.mark.parametrize("size", [SMALL_VIT, SMALL_COMPACT], ids=lambda size: size.name)
def test_real_models_make_edge_maps(size: SamConfig) -> None:
    image = random_image(HEIGHT, WIDTH)
    edges = sam_edges(small_sam(size), image, SamEdgeConfig(points_per_side=3))
    assert edges.shape == (HEIGHT, WIDTH)
    assert 0 <= edges.min() <= edges.max() <= 1


def test_a_detector_keeps_its_name_and_settings() -> None:
    detector = sam_detector(DiscSegmenter(), SamEdgeConfig(points_per_side=1), "discs")
    assert detector.name == "discs"
    assert detector.find(GREY).shape == (HEIGHT, WIDTH)

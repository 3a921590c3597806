"""Edges against the boundaries that people drew: ODS, OIS and AP of the BSDS benchmark.

    result = evaluate_edges(sam, edge_images(labelled_set), EdgeConfig())
    result.scores[0].ods.f, result.rows()

At every threshold the thinned edge map is paired with the boundaries of each annotator in turn
(`edge_matching`). Precision is the share of its pixels that found a partner with anyone; recall the
share of all annotators' pixels that found one. Sources: Martin, Fowlkes and Malik (TPAMI 2004);
Arbelaez et al. (TPAMI 2011); Segment Anything, appendix D.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import thin

from engine.automatic.generator import Segmenter
from engine.errors import BadInputError
from engine.evaluation.edge_maps import SamEdgeConfig, sam_edges, sobel_edges
from engine.evaluation.edge_matching import match_edges
from engine.evaluation.edge_scores import EdgeResult, EdgeScores
from engine.evaluation.human_boundaries import EdgeImage

EdgeMap = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""From (H, W, 3) uint8 RGB to edge strengths (H, W) in 0..1, thin lines."""
Listener = Callable[[str, int], None]
"""Called with an image's name and its number of annotators when it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """The benchmark's settings, and those of the detectors.

    Attributes:
        thresholds: evenly spaced strengths from which a pixel counts as an edge; the benchmark
            has 99, which changes the third digit.
        max_distance_ratio: how far partners may be apart, as a share of the image's diagonal.
        sam: how the model's masks become edges.
        sobel_sigma_px: smoothing of the baseline, the gradient of the image; None leaves it out.
    """

    thresholds: int = 30
    max_distance_ratio: float = 0.0075
    sam: SamEdgeConfig = field(default_factory=SamEdgeConfig)
    sobel_sigma_px: float | None = 2.0

    def __post_init__(self) -> None:
        if self.thresholds < 1 or not self.max_distance_ratio >= 0:
            raise BadInputError(
                "thresholds must be 1 or more and max_distance_ratio 0 or more; got "
                f"{self.thresholds} and {self.max_distance_ratio}"
            )

    @property
    def thresholds_T(self) -> NDArray[np.float64]:  # noqa: N802 - a shape suffix
        """The thresholds, ascending, 0 and 1 excluded: float64 (T,)."""
        return np.arange(1, self.thresholds + 1) / (self.thresholds + 1)


@dataclass(frozen=True, slots=True)
class EdgeDetector:
    """Something that finds edges, under the name that tables show."""

    name: str
    find: EdgeMap


def sam_detector(
    sam: Segmenter, config: SamEdgeConfig | None = None, name: str = "model"
) -> EdgeDetector:
    """Let a promptable model find edges; see `sam_edges`."""
    return EdgeDetector(name, partial(sam_edges, sam, config=config))


def sobel_detector(sigma_px: float = 2.0) -> EdgeDetector:
    """Take the gradient of the image for edges; see `sobel_edges`."""
    return EdgeDetector("Sobel", partial(sobel_edges, sigma_px=sigma_px))


def evaluate_edges(
    sam: Segmenter,
    images: Iterable[EdgeImage],
    config: EdgeConfig,
    on_image: Listener | None = None,
    name: str = "model",
) -> EdgeResult:
    """Score the edges of a model's masks and those of the image's gradient.

    Args:
        sam: the model.
        images: with boundaries, for example of `edge_images`; read one at a time.
        config: thresholds, tolerance and detectors.
        on_image: for progress.
        name: of the model in tables.

    Raises:
        BadInputError: no image with boundaries, or boundaries of another size than their image.
    """
    detectors = [sam_detector(sam, config.sam, name)]
    if config.sobel_sigma_px is not None:
        detectors.append(sobel_detector(config.sobel_sigma_px))
    return score_detectors(detectors, images, config, on_image)


def score_detectors(
    detectors: Sequence[EdgeDetector],
    images: Iterable[EdgeImage],
    config: EdgeConfig,
    on_image: Listener | None = None,
) -> EdgeResult:
    """Score any edge detectors on the same images; see `evaluate_edges`.

    Raises:
        BadInputError: also for an edge map of another size or range.
    """
    counts: list[list[NDArray[np.int64]]] = [[] for _ in detectors]
    for image in images:
        if not any(boundary.any() for boundary in image.boundaries):
            continue
        for detector, found in zip(detectors, counts, strict=True):
            edges_HW = detector.find(image.image_HWC3)
            found.append(edge_counts(edges_HW, image.boundaries, config))
        if on_image is not None:
            on_image(image.name, len(image.boundaries))
    if not detectors or not counts[0]:
        raise BadInputError(
            f"got {len(detectors)} edge detectors and no image with boundaries; expected at least "
            "one of each (a mask that fills its image has no boundary)"
        )
    return EdgeResult(
        images=len(counts[0]),
        scores=tuple(
            _scores(detector.name, np.stack(found), config)
            for detector, found in zip(detectors, counts, strict=True)
        ),
    )


def _scores(method: str, counts_I4T: NDArray[np.int64], config: EdgeConfig) -> EdgeScores:
    return EdgeScores(
        method=method,
        thresholds_T=config.thresholds_T,
        found_IT=counts_I4T[:, 0],
        edges_IT=counts_I4T[:, 1],
        recalled_IT=counts_I4T[:, 2],
        boundaries_IT=counts_I4T[:, 3],
    )


def edge_counts(
    edges_HW: NDArray[np.float64],
    boundaries: Sequence[NDArray[np.bool_]],
    config: EdgeConfig,
) -> NDArray[np.int64]:
    """Compare one edge map with every annotator's boundaries at every threshold.

    Args:
        edges_HW: strengths in 0..1.
        boundaries: bool (H, W) each.
        config: thresholds and tolerance.

    Returns:
        int64 (4, T): edge pixels explained, edge pixels, boundary pixels explained, boundary
        pixels; see `EdgeScores`.

    Raises:
        BadInputError: strengths outside 0..1, or boundaries of another size.
    """
    if edges_HW.size and not (edges_HW.min() >= 0 and edges_HW.max() <= 1):
        raise BadInputError(
            f"edge strengths must lie in 0..1; got {edges_HW.min()} to {edges_HW.max()}"
        )
    max_distance_px = config.max_distance_ratio * float(np.hypot(*edges_HW.shape))
    counts_4T = np.zeros((4, config.thresholds), dtype=np.int64)
    for place, threshold in enumerate(config.thresholds_T):
        lines_HW = thin(edges_HW >= threshold)
        matches = [match_edges(lines_HW, boundary, max_distance_px) for boundary in boundaries]
        counts_4T[:, place] = (
            np.any([match.predicted_HW for match in matches], axis=0).sum(),
            lines_HW.sum(),
            sum(match.human_HW.sum() for match in matches),
            sum(boundary.sum() for boundary in boundaries),
        )
    return counts_4T

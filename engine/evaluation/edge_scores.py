"""What edge detectors scored: ODS, OIS, AP and R50 from counted pixels.

    scores.ods.f, scores.ois.f, scores.ap, scores.rows()

Figures are computed as the BSDS benchmark computes them (Arbelaez et al., TPAMI 2011), its corner
cases included. Shape suffixes: I images, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeF:
    """Precision and recall at one place of a curve, or of one threshold for each image.

    Attributes:
        f: their harmonic mean.
        threshold: None where it differs from image to image.
    """

    precision: float
    recall: float
    threshold: float | None = None

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(_f_measure(np.array(self.precision), np.array(self.recall)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeScores:
    """What a detector scored: counts of pixels for I images and T thresholds.

    Attributes:
        method: the detector.
        thresholds_T: float64, ascending.
        found_IT: int64, edge pixels that some annotator's boundary explains.
        edges_IT: int64, edge pixels.
        recalled_IT: int64, boundary pixels of all annotators that an edge explains.
        boundaries_IT: int64, boundary pixels of all annotators.
    """

    method: str
    thresholds_T: NDArray[np.float64]
    found_IT: NDArray[np.int64]
    edges_IT: NDArray[np.int64]
    recalled_IT: NDArray[np.int64]
    boundaries_IT: NDArray[np.int64]

    @property
    def precision_T(self) -> NDArray[np.float64]:  # noqa: N802 - a shape suffix
        """Over all images; 0 where there are no edges."""
        return _ratio(self.found_IT.sum(0), self.edges_IT.sum(0))

    @property
    def recall_T(self) -> NDArray[np.float64]:  # noqa: N802 - a shape suffix
        """Over all images."""
        return _ratio(self.recalled_IT.sum(0), self.boundaries_IT.sum(0))

    @property
    def ods(self) -> EdgeF:
        """Optimal data-set scale: the best F of one threshold for all images.

        As in the benchmark, the curve is interpolated between thresholds.
        """
        fine = np.linspace(0, len(self.thresholds_T) - 1, 99 * (len(self.thresholds_T) - 1) + 1)
        places = np.arange(len(self.thresholds_T))
        threshold, precision, recall = (
            np.interp(fine, places, values)
            for values in (self.thresholds_T, self.precision_T, self.recall_T)
        )
        best = int(_f_measure(precision, recall).argmax())
        return EdgeF(
            precision=float(precision[best]),
            recall=float(recall[best]),
            threshold=float(threshold[best]),
        )

    @property
    def ois(self) -> EdgeF:
        """Optimal image scale: every image at its own best threshold, pixels counted together."""
        precision_IT = _ratio(self.found_IT, self.edges_IT)
        recall_IT = _ratio(self.recalled_IT, self.boundaries_IT)
        best_I1 = _f_measure(precision_IT, recall_IT).argmax(axis=1)[:, None]
        found, edges, recalled, boundaries = (
            np.take_along_axis(counts_IT, best_I1, axis=1).sum()
            for counts_IT in (
                self.found_IT,
                self.edges_IT,
                self.recalled_IT,
                self.boundaries_IT,
            )
        )
        return EdgeF(
            precision=float(_ratio(found, edges)), recall=float(_ratio(recalled, boundaries))
        )

    @property
    def ap(self) -> float:
        """Area below the precision-recall curve, at 101 recalls.

        As in the benchmark, recalls below the smallest or above the largest that was measured add
        nothing: a map of one strength scores next to 0 however good it is.
        """
        recall, first = np.unique(self.recall_T, return_index=True)
        if len(recall) < 2:
            return 0.0
        precision = self.precision_T[first]
        return float(
            np.interp(np.arange(101) / 100, recall, precision, left=0, right=0).sum() / 100
        )

    @property
    def recall_at_half_precision(self) -> float:
        """R50: the recall where every second edge pixel is right, 0 if precision is never as high.

        Where it never falls so low this is the recall at the lowest precision that was measured.
        """
        measured_T = self.edges_IT.sum(0) > 0
        if not measured_T.any():
            return 0.0
        precision, first = np.unique(self.precision_T[measured_T], return_index=True)
        return float(np.interp(0.5, precision, self.recall_T[measured_T][first], right=0))

    def resampled(self, images_I: NDArray[np.int64]) -> EdgeScores:
        """Return the scores on some of the images, with repetition: for bootstrap intervals."""
        return EdgeScores(
            method=self.method,
            thresholds_T=self.thresholds_T,
            found_IT=self.found_IT[images_I],
            edges_IT=self.edges_IT[images_I],
            recalled_IT=self.recalled_IT[images_I],
            boundaries_IT=self.boundaries_IT[images_I],
        )

    def rows(self) -> tuple[tuple[str, float], ...]:
        """Return the figures by name, for tables."""
        ods = self.ods
        return (
            ("ODS", ods.f),
            ("OIS", self.ois.f),
            ("AP", self.ap),
            ("R50", self.recall_at_half_precision),
            ("precision at ODS", ods.precision),
            ("recall at ODS", ods.recall),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeResult:
    """What several detectors scored on the same images.

    Attributes:
        images: how many.
        scores: in the order of the detectors.
    """

    images: int
    scores: tuple[EdgeScores, ...]

    def rows(self) -> tuple[tuple[str, str, float], ...]:
        """Return (detector, figure, value), for tables."""
        return tuple((s.method, name, value) for s in self.scores for name, value in s.rows())


def _f_measure(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    return _ratio(2 * precision * recall, precision + recall)


def _ratio(
    part: NDArray[np.float64] | NDArray[np.int64], whole: NDArray[np.float64] | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Divide; 0 / 0 is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)

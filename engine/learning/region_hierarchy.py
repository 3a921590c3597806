"""A photo cut into regions of all sizes, without labels: superpixels, merged one pair at a time.

    hierarchy = merge_regions(image_HWC3, superpixels_HW, MergeWeights())
    largest_first = hierarchy.separation_M.argsort()[::-1]
    mask_HW = hierarchy.mask(largest_first[1])         # [0] is the whole image

The pair of neighbours that is most alike merges first: alike in colour and texture, with little
contrast along their common border, and small before large. It is the greedy merging of selective
search (Uijlings et al. 2013); how long a region stays alone tells how distinct it is, as in an
ultrametric contour map (Arbelaez et al. 2011).

Shapes: H, W rows and columns; N superpixels; M = 2 * N - 1 regions, first the superpixels, then
each merged region after its halves, last the whole image; D features.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.learning.region_features import COLOUR_FEATURES, SuperpixelFeatures, measure

__all__ = ["MergeWeights", "RegionHierarchy", "merge_regions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeWeights:
    """What makes two neighbours unlike: weights of differences that lie between 0 and 1.

    Attributes:
        colour: of the chi-square distance of colour histograms.
        texture: of the chi-square distance of histograms of gradients.
        border: of the contrast along the common border.
        size: exponent of the harmonic mean of the areas, as parts of the image; at 0 the size does
            not matter, at more small regions merge before large ones.
    """

    colour: float = 1.5
    texture: float = 0.5
    border: float = 3.0
    size: float = 0.3


@dataclass(frozen=True, slots=True)
class RegionHierarchy:
    """A binary tree of regions.

    Attributes:
        rank_HW: intp, the superpixel of each pixel, numbered so that a region holds a range.
        first_M: the first superpixel that a region holds.
        last_M: the one after its last.
        area_M: in pixels.
        separation_M: how unlike the region is to what it was merged with, and never less than for
            its parts; infinite for the whole image.
        contrast_M: mean contrast along the border with neighbours, 0 to 1; 0 for the whole image.
        frame_share_M: the part of the region's outline that is the image's frame.
        width_M: mean width in pixels, as of a band: twice the area by the outline's length.
    """

    rank_HW: NDArray[np.intp]
    first_M: NDArray[np.intp]
    last_M: NDArray[np.intp]
    area_M: NDArray[np.int64]
    separation_M: NDArray[np.float64]
    contrast_M: NDArray[np.float64]
    frame_share_M: NDArray[np.float64]
    width_M: NDArray[np.float64]

    def mask(self, region: int) -> NDArray[np.bool_]:
        """The pixels of a region: bool (H, W)."""
        first, last = self.first_M[region], self.last_M[region]
        return np.asarray((self.rank_HW >= first) & (self.rank_HW < last), dtype=np.bool_)

    def nested_iou(self, region: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        """IoU of a region with others of the same tree: of areas when nested, else 0."""
        first, last = self.first_M[others], self.last_M[others]
        holds = (self.first_M[region] <= first) & (last <= self.last_M[region])
        held = (first <= self.first_M[region]) & (self.last_M[region] <= last)
        areas, area = self.area_M[others], self.area_M[region]
        return np.where(holds | held, np.minimum(areas, area) / np.maximum(areas, area), 0.0)


def merge_regions(
    image_HWC3: NDArray[np.uint8], superpixels_HW: NDArray[np.intp], weights: MergeWeights
) -> RegionHierarchy:
    """Merge neighbouring regions until one is left.

    Args:
        image_HWC3: uint8 RGB.
        superpixels_HW: a number for each pixel, 0 to N-1, all of them used; each superpixel
            4-connected.
        weights: what makes neighbours unlike.
    """
    merging = _Merging.start(measure(image_HWC3, superpixels_HW), weights)
    merging.run()
    return merging.hierarchy(superpixels_HW)


@dataclass(slots=True)
class _Merging:
    """The state of a merging; arrays have a row for each region, made or yet to be made.

    Attributes:
        features: of the superpixels.
        weights: what makes neighbours unlike.
        borders: for each living region its neighbours, with length and summed contrast of the
            common border.
        sums_MD: features summed over the pixels of a region.
        areas_M: in pixels.
        frames_M: pixels on the image's frame, corners twice.
        heights_M: how unlike the halves of a region are, 0 for superpixels.
        separations_M, contrasts_M: as in `RegionHierarchy`.
        outlines_M: pixels on the border with neighbours and on the frame.
        halves: of each region that was made by a merge.
        queue: pairs of neighbours, the most alike first; regions that are gone stay in it.
    """

    features: SuperpixelFeatures
    weights: MergeWeights
    borders: dict[int, dict[int, tuple[float, float]]]
    sums_MD: NDArray[np.float64]
    areas_M: NDArray[np.float64]
    frames_M: NDArray[np.float64]
    heights_M: NDArray[np.float64]
    separations_M: NDArray[np.float64]
    contrasts_M: NDArray[np.float64]
    outlines_M: NDArray[np.float64]
    halves: list[tuple[int, int]] = field(default_factory=list)
    queue: list[tuple[float, int, int]] = field(default_factory=list)

    @classmethod
    def start(cls, features: SuperpixelFeatures, weights: MergeWeights) -> _Merging:
        merges = features.count - 1

        def with_room(rows: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.concatenate([rows, np.zeros((merges, *rows.shape[1:]))])

        zeros = np.zeros(features.count + merges)
        return cls(
            features,
            weights,
            {region: dict(features.borders[region]) for region in range(features.count)},
            with_room(features.sums_ND),
            with_room(features.areas_N),
            with_room(features.frames_N),
            zeros.copy(),
            np.full_like(zeros, np.inf),
            zeros.copy(),
            zeros.copy(),
        )

    def run(self) -> None:
        """Merge until one region is left."""
        count = self.features.count
        for region in range(count):
            self._measure_outline(region)
            self._offer(region, [other for other in self.borders[region] if other > region])
        for made in range(count, 2 * count - 1):
            unlike, a, b = heapq.heappop(self.queue)
            while a not in self.borders or b not in self.borders:
                unlike, a, b = heapq.heappop(self.queue)
            self._merge(a, b, made, unlike)

    def _merge(self, a: int, b: int, made: int, unlike: float) -> None:
        around = self.borders.pop(a)
        for other, (length, contrast) in self.borders.pop(b).items():
            before = around.get(other, (0.0, 0.0))
            around[other] = (before[0] + length, before[1] + contrast)
        del around[a], around[b]
        for other, border in around.items():
            theirs = self.borders[other]
            theirs.pop(a, None)
            theirs.pop(b, None)
            theirs[made] = border
        self.borders[made] = around
        for sums in (self.sums_MD, self.areas_M, self.frames_M):
            sums[made] = sums[a] + sums[b]
        # A merged region can be more alike to a neighbour than its halves were to each other.
        self.heights_M[made] = max(unlike, self.heights_M[a], self.heights_M[b])
        self.separations_M[[a, b]] = self.heights_M[made]
        self.halves.append((a, b))
        self._measure_outline(made)
        self._offer(made, list(around))

    def _measure_outline(self, region: int) -> None:
        length, contrast = (
            sum(column) for column in zip((0.0, 0.0), *self.borders[region].values(), strict=True)
        )
        self.contrasts_M[region] = contrast / length if length else 0.0
        self.outlines_M[region] = length + self.frames_M[region]

    def _offer(self, region: int, others: list[int]) -> None:
        """Queue the pairs of a region and its neighbours."""
        if others:
            for other, unlike in zip(others, self._unlike(region, others), strict=True):
                heapq.heappush(self.queue, (float(unlike), region, other))

    def _unlike(self, region: int, others: list[int]) -> NDArray[np.float64]:
        """How unlike a region and each of its neighbours are: float64 (len(others),)."""
        here = self.sums_MD[region] / self.areas_M[region]
        there = self.sums_MD[others] / self.areas_M[others][:, None]
        chi_square = (here - there) ** 2 / (here + there + 1e-9)
        # Three histograms of each kind, of sum 1: the distance of each is at most 2.
        colour = chi_square[:, :COLOUR_FEATURES].sum(1) / 6
        texture = chi_square[:, COLOUR_FEATURES:].sum(1) / 6
        borders = np.array([self.borders[region][other] for other in others])
        weights = self.weights
        unlike = (
            weights.colour * colour
            + weights.texture * texture
            + weights.border * borders[:, 1] / borders[:, 0]
        )
        area, areas = self.areas_M[region], self.areas_M[others]
        share = area * areas / (area + areas) / self.features.areas_N.sum()
        return np.asarray(unlike * share**weights.size, dtype=np.float64)

    def hierarchy(self, superpixels_HW: NDArray[np.intp]) -> RegionHierarchy:
        """Number the superpixels so that every region holds a range of them."""
        count = self.features.count
        held = [1] * count
        for a, b in self.halves:
            held.append(held[a] + held[b])
        first = np.zeros(len(held), dtype=np.intp)
        for made in range(len(held) - 1, count - 1, -1):
            a, b = self.halves[made - count]
            first[a], first[b] = first[made], first[made] + held[a]
        return RegionHierarchy(
            first[superpixels_HW],
            first,
            first + np.array(held, dtype=np.intp),
            self.areas_M.astype(np.int64),
            self.separations_M,
            self.contrasts_M,
            self.frames_M / self.outlines_M,
            2 * self.areas_M / self.outlines_M,
        )

"""The bundled model's guidance maps as ONNX graph code, for one prompt: see `model.guidance`.

Differences to the torch code are of form only: ONNX has no running minimum, so paths are swept by
minima over doubling distances; and what only boxes, background clicks or masks need is skipped
without them.

Shapes: Q probes, K kinds of boundary, G guidance maps, h w pixels at stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.folded_prompts import CORNERS, GraphPrompt, labelled
from model.guidance import (
    BOX_PROBES,
    CLICK_SIGMA_PX,
    GUIDANCE_STRIDE,
    LOGIT_SOFTNESS,
    WIDER,
)
from model.onnx_graph import Graph, Value
from model.reachability import FAR, GROUND_COST, ROUNDS
from model.types import BACKGROUND, FOREGROUND

_BEYOND_ALL = 1e30


@dataclass(frozen=True, slots=True, eq=False)
class GuidedImage:
    """What guidance reads of the image, as `prepare` made it.

    Attributes:
        affinity8: unit vectors (1, A, h / 2, w / 2).
        affinity4: the same (1, A, h, w).
        rows_Kwh: cost travelled from each row's start.
        columns_Khw: cost travelled from each column's top.
        size_xy: (width, height) of the padded input, float32 (2,).
        longest: the most pixels that a row or column may have.
    """

    affinity8: Value
    affinity4: Value
    rows_Kwh: Value
    columns_Khw: Value
    size_xy: Value
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Places that say what is wanted: the points, then nine inside the box if there is one.

    Attributes:
        places_Q2: pixels of the padded input.
        foreground_Q1: 1 or 0.
        background_Q1: 1 or 0.
        top_left_2: corner of the box.
        bottom_right_2: the other one.
        has_box: 1 or 0, float32 (1,).
    """

    places_Q2: Value
    foreground_Q1: Value
    background_Q1: Value
    top_left_2: Value
    bottom_right_2: Value
    has_box: Value


def probes(graph: Graph, prompt: GraphPrompt) -> Probes:
    """Find the probes of a prompt."""
    is_first, is_second = (labelled(graph, prompt, corner) for corner in CORNERS)
    top_left, bottom_right = (
        graph.op("ReduceSum", prompt.points_K2 * chosen, graph.integers(0), keepdims=0)
        for chosen in (is_first, is_second)
    )
    has_box = graph.op("ReduceMax", is_first, graph.integers(0), keepdims=0)
    shares = np.array([(u, v) for v in BOX_PROBES for u in BOX_PROBES], dtype=np.float32)
    inside_92 = top_left + (bottom_right - top_left) * graph.constant(shares)
    count = has_box.cast(np.int64) * graph.integers(len(shares))
    nine = graph.constant(np.ones((len(shares), 1), dtype=np.float32))
    foreground, background = (labelled(graph, prompt, x) for x in (FOREGROUND, BACKGROUND))
    return Probes(
        places_Q2=graph.concat([prompt.points_K2, inside_92.slice(0, 0, count)], axis=0),
        foreground_Q1=graph.concat([foreground, nine.slice(0, 0, count)], axis=0),
        background_Q1=graph.concat([background, (nine * 0.0).slice(0, 0, count)], axis=0),
        top_left_2=top_left,
        bottom_right_2=bottom_right,
        has_box=has_box,
    )


def guidance(graph: Graph, prompt: GraphPrompt, found: Probes, image: GuidedImage) -> Value:
    """Draw all guidance maps: (1, G, h, w)."""
    height, width = image.columns_Khw.size(1), image.columns_Khw.size(2)
    size = graph.concat([height, width], axis=0)
    y, x = (_pixel_centres(graph, count) for count in (height, width))
    box_11hw = _box_map(graph, found, y, x)
    maps = [
        _affinity(graph, image.affinity8, found, image, size),
        _affinity(graph, image.affinity4, found, image, size),
        _click_bumps(graph, prompt, y, x),
        _reach(graph, found, image, box_11hw, size),
        box_11hw,
        _earlier_mask(graph, prompt, size),
    ]
    return graph.concat(maps, axis=1)


def sample(graph: Graph, maps_1CHW: Value, places_Q2: Value, size_xy: Value) -> Value:
    """Read maps at points by bilinear interpolation: (Q, C)."""
    grid = ((places_Q2 + 0.5) / size_xy * 2.0 - 1.0).reshape(1, 1, -1, 2)
    read = graph.op(
        "GridSample", maps_1CHW, grid, mode="linear", padding_mode="border", align_corners=0
    )
    return read.reshape(maps_1CHW.size(1), -1).transpose(1, 0)


def terrain(graph: Graph, barriers_1Khw: Value) -> tuple[Value, Value]:
    """Sum the costs of boundary logits along rows (K, w, h) and columns (K, h, w)."""
    logits = barriers_1Khw.reshape(barriers_1Khw.size(1), barriers_1Khw.size(2), -1)
    cost = graph.op("Softplus", logits) + GROUND_COST
    half = cost * 0.5
    rows, columns = (
        graph.op("CumSum", cost, graph.constant(np.array(axis))) - half for axis in (2, 1)
    )
    return rows.transpose(0, 2, 1), columns


def foreground_mean(graph: Graph, values_QC: Value, found: Probes) -> Value:
    """Average over the foreground probes, 0 without any: (1, C)."""
    total = graph.op("ReduceSum", values_QC * found.foreground_Q1, graph.integers(0), keepdims=1)
    count = graph.op("ReduceSum", found.foreground_Q1, graph.integers(0), keepdims=1)
    return total / graph.op("Max", count, 1.0)


def _affinity(
    graph: Graph, maps_1AHW: Value, found: Probes, image: GuidedImage, size: Value
) -> Value:
    """Cosine of every pixel with the most similar probe of either side: (1, 2, h, w)."""
    keys_QA = sample(graph, maps_1AHW, found.places_Q2, image.size_xy)
    cosine_QP = keys_QA @ maps_1AHW.reshape(maps_1AHW.size(1), -1)
    sides = []
    for weights_Q1 in (found.foreground_Q1, found.background_Q1):
        on = graph.op("Greater", weights_Q1, 0.0)
        best = graph.op(
            "ReduceMax", graph.op("Where", on, cosine_QP, -1.0), graph.integers(0), keepdims=1
        )
        sides.append(best * _any(graph, weights_Q1))
    both = graph.concat(sides, axis=0).reshape(1, 2, maps_1AHW.size(2), maps_1AHW.size(3))
    shape = graph.concat([graph.integers(1, 2), size], axis=0)
    nothing = graph.constant(np.zeros(0, dtype=np.float32))
    return graph.op(
        "Resize",
        both,
        nothing,
        nothing,
        shape,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def _any(graph: Graph, weights_Q1: Value) -> Value:
    """Return 1 if any probe counts, else 0: (1, 1)."""
    return graph.op("ReduceMax", weights_Q1, graph.integers(0), keepdims=1)


def _pixel_centres(graph: Graph, count: Value) -> Value:
    steps = graph.op(
        "Range", graph.constant(np.array(0)), count.reshape(), graph.constant(np.array(1))
    )
    return steps.cast(np.float32) * float(GUIDANCE_STRIDE) + (GUIDANCE_STRIDE - 1) / 2


def _click_bumps(graph: Graph, prompt: GraphPrompt, y: Value, x: Value) -> Value:
    """Gaussian bumps at the points of either side: (1, 2, h, w), at most 1."""

    def along(axis: int, centres: Value) -> Value:
        distance_KL = prompt.points_K2.slice(1, axis, axis + 1) - centres
        return graph.op("Exp", distance_KL * distance_KL * (-1 / (2 * CLICK_SIGMA_PX**2)))

    along_x_Kw, along_y_Kh = along(0, x), along(1, y)
    sides = [
        ((along_y_Kh * labelled(graph, prompt, label)).transpose(1, 0) @ along_x_Kw)
        for label in (FOREGROUND, BACKGROUND)
    ]
    stacked = graph.concat([side.reshape(1, 1, y.size(0), x.size(0)) for side in sides], axis=1)
    return graph.op("Min", stacked, 1.0)


def _box_map(graph: Graph, found: Probes, y: Value, x: Value) -> Value:
    """1 inside the box, -1 outside, 0 everywhere without a box: (1, 1, h, w)."""

    def within(axis: int, centres: Value) -> Value:
        first, last = (
            corner.slice(0, axis, axis + 1) for corner in (found.top_left_2, found.bottom_right_2)
        )
        above = graph.op("GreaterOrEqual", centres, first)
        return graph.op("And", above, graph.op("LessOrEqual", centres, last)).cast(np.float32)

    inside = within(1, y).reshape(1, 1, -1, 1) * within(0, x).reshape(1, 1, 1, -1)
    return (inside * 2.0 - 1.0) * found.has_box


def _earlier_mask(graph: Graph, prompt: GraphPrompt, size: Value) -> Value:
    """The mask prompt squashed to (-1, 1), 0 everywhere without one: (1, 1, h, w)."""
    shape = graph.concat([graph.integers(1, 1), size], axis=0)
    (earlier,) = graph.either(
        prompt.has_mask,
        lambda: [graph.op("Tanh", prompt.mask_11hw / LOGIT_SOFTNESS).reshape(shape)],
        lambda: [graph.op("Expand", graph.constant(0.0), shape)],
    )
    return earlier


def _reach(graph: Graph, found: Probes, image: GuidedImage, box_11hw: Value, size: Value) -> Value:
    """Draw what the probes reach without crossing a boundary: (1, 3 K, h, w) in [0, 1]."""
    foreground = _seeds(graph, found, found.foreground_Q1, image, size)
    has_background = graph.op("Max", _any(graph, found.background_Q1), found.has_box)

    def both() -> Sequence[Value]:
        background = _seeds(graph, found, found.background_Q1, image, size)
        outside = graph.op("Less", box_11hw, 0.0)
        seeds = graph.concat([foreground, graph.op("Where", outside, 0.0, background)], axis=0)
        distances = _distances(graph, image, seeds)
        inside, beyond = (distances.slice(0, i, i + 1) for i in (0, 1))
        return [_nearness(graph, [inside, inside / WIDER, beyond])]

    def foreground_only() -> Sequence[Value]:
        inside = _distances(graph, image, foreground)
        beyond = graph.op("Expand", graph.constant(FAR), graph.op("Shape", inside))
        return [_nearness(graph, [inside, inside / WIDER, beyond])]

    (reach,) = graph.either(graph.op("Greater", has_background, 0.0), both, foreground_only)
    return reach


def _nearness(graph: Graph, distances: list[Value]) -> Value:
    return graph.op("Exp", graph.op("Neg", graph.concat(distances, axis=1)))


def _seeds(
    graph: Graph, found: Probes, weights_Q1: Value, image: GuidedImage, size: Value
) -> Value:
    """Draw 0 at the weighted probes, `FAR` elsewhere: (1, 1, h, w)."""
    last = (image.size_xy / float(GUIDANCE_STRIDE)) - 1.0
    cells = graph.op("Floor", found.places_Q2 / float(GUIDANCE_STRIDE))
    cells_Q2 = graph.op("Max", graph.op("Min", cells, last), 0.0).cast(np.int64)
    width = image.columns_Khw.size(2)
    index = cells_Q2.slice(1, 1, 2) * width + cells_Q2.slice(1, 0, 1)
    value = graph.op("Where", graph.op("Greater", weights_Q1, 0.0), 0.0, FAR)
    empty = graph.op("Expand", graph.constant(FAR), image.columns_Khw.size(1) * width)
    seeds = graph.op(
        "ScatterElements", empty, index.reshape(-1), value.reshape(-1), axis=0, reduction="min"
    )
    return seeds.reshape(1, 1, size.slice(0, 0, 1), size.slice(0, 1, 2))


def _distances(graph: Graph, image: GuidedImage, seeds_N1hw: Value) -> Value:
    """Sweep along rows and columns: each pixel's distance to its cheapest seed, (N, K, h, w)."""
    distance = seeds_N1hw
    for _ in range(ROUNDS):
        along_rows = _sweep(graph, distance.transpose(0, 1, 3, 2), image.rows_Kwh, image.longest)
        distance = along_rows.transpose(0, 1, 3, 2)
        distance = _sweep(graph, distance, image.columns_Khw, image.longest)
    return distance


def _sweep(graph: Graph, distance_NKlo: Value, travelled_Klo: Value, longest: int) -> Value:
    """Let paths run along dimension 2 in both directions."""
    forward = _running_minimum(graph, distance_NKlo - travelled_Klo, longest, reverse=False)
    backward = _running_minimum(graph, distance_NKlo + travelled_Klo, longest, reverse=True)
    return graph.op("Min", forward + travelled_Klo, backward - travelled_Klo)


def _running_minimum(graph: Graph, x_NKlo: Value, longest: int, *, reverse: bool) -> Value:
    """Minimum over all before, or all after, along dimension 2.

    Halving distances, from half of the line down to 1, cover every distance: a minimum of two
    shifted windows at each step. Padding first lets every step be two views of one array.
    """
    steps = [2**i for i in reversed(range((longest - 1).bit_length()))]
    padding = sum(steps)
    # All four axes are named: onnxruntime moves transposes past a Pad as if there were no others.
    pads = np.zeros(8, dtype=np.int64)
    pads[6 if reverse else 2] = padding
    x = graph.op("Pad", x_NKlo, graph.constant(pads), graph.constant(_BEYOND_ALL))
    for step in steps:
        x = graph.op("Min", x.slice(2, 0, -step), x.slice(2, step, np.iinfo(np.int64).max))
    return x

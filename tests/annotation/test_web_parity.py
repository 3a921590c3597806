"""The page's arithmetic against what the rest of the project computes, number by number.

The page's own code runs in Node; everything is asked at once, in one process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from engine.annotation.simulation.strokes import stroke_mask
from engine.masks import decode_mask, encode_mask, mask_area
from engine.records import Rle
from model.preprocess import input_frame
from model.types import Frame
from model.upsample import upsample_logits

WEB = Path(__file__).parents[2] / "engine" / "annotation" / "web"
BUNDLED, FULL = (512, 32), (1024, 1024)
# Interpolated in another order, a logit next to 0 may fall on its other side.
FLIPS_PER_MILLION = 5


@dataclass(frozen=True, slots=True, eq=False)
class Upsampled:
    """Logits that the page and the model turn into a mask."""

    logits_hw: NDArray[np.float32]
    frame: Frame
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What the page was asked, and what it answered."""

    masks: list[NDArray[np.bool_]]
    strokes: list[tuple[NDArray[np.float64], float, tuple[int, int]]]
    frames: list[tuple[tuple[int, int], tuple[int, int]]]
    upsampled: list[Upsampled]
    prompts: list[tuple[NDArray[np.bool_], tuple[int, int]]]
    halves: NDArray[np.uint16]
    floats: NDArray[np.float32]
    tensors: dict[str, torch.Tensor]
    folder: Path
    answers: dict[str, list[object]]


def _run_page(questions: object, folder: Path) -> dict[str, list[object]]:
    """Bundle the page's code as its build does, and run it."""
    node = shutil.which("node")
    rolldown = WEB / "node_modules" / "rolldown" / "bin" / "cli.mjs"
    if node is None or not rolldown.exists():
        pytest.skip("needs Node and the page's packages: run `make web`")
    bundle = folder / "page.mjs"
    entry = WEB / "tests" / "parity" / "main.ts"
    command = [node, str(rolldown), str(entry), "--platform", "node", "--file", str(bundle)]
    subprocess.run(command, check=True, capture_output=True, cwd=WEB)
    done = subprocess.run(
        [node, str(bundle)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, list[object]] = json.loads(done.stdout)
    return answers


def _masks(random: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    for height, width in ((1, 1), (1, 7), (7, 1), (5, 4), (37, 61), (240, 320)):
        yield np.zeros((height, width), np.bool_)
        yield np.ones((height, width), np.bool_)
        for density in (0.02, 0.5, 0.98):
            yield random.random((height, width)) < density
    y, x = np.mgrid[:900, :1300]
    angle = np.arctan2(y - 400, x - 700)
    yield np.hypot(y - 400, x - 700) < 300 * (1 + 0.2 * np.sin(7 * angle))
    full_height = np.zeros((50, 60), np.bool_)
    full_height[:, 20:40] = True
    yield full_height


def _logits(random: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth logits with borders of many slopes, as a decoder draws them."""
    rough = torch.from_numpy(random.normal(-1, 4, (1, 1, 9, 7)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(rough, size, mode="bicubic", align_corners=False)
    noise = random.normal(0, 0.3, size).astype(np.float32)
    return np.ascontiguousarray(smooth[0, 0].numpy() + noise)


def _upsampled(random: np.random.Generator) -> Iterator[Upsampled]:
    cases = [
        ((480, 640), BUNDLED),
        ((640, 427), BUNDLED),
        ((97, 131), BUNDLED),  # smaller than the input
        ((1500, 2250), BUNDLED),
        ((1500, 1000), FULL),
        ((2, 300), BUNDLED),
    ]
    for original, size in cases:
        frame = input_frame(original, *size)
        low = (frame.padded_size[0] // 4, frame.padded_size[1] // 4)
        yield Upsampled(_logits(random, low), frame, size)
    frame = input_frame((480, 640), *BUNDLED)
    small = np.full((frame.padded_size[0] // 4, frame.padded_size[1] // 4), -3, np.float32)
    yield Upsampled(small, frame, BUNDLED)  # nothing above 0
    small = small.copy()
    small[17, 40] = 5
    yield Upsampled(small, frame, BUNDLED)


def _strokes(
    random: np.random.Generator,
) -> Iterator[tuple[NDArray[np.float64], float, tuple[int, int]]]:
    for count in (1, 2, 5, 30):
        for radius in (0.4, 3.0, 17.25):
            yield random.uniform(-20, 220, (count, 2)).round(2), radius, (150, 200)
    yield np.array([[10.0, 10.0], [10.0, 90.0], [80.0, 90.0]]), 5.0, (100, 100)


def _pairs(masks: list[NDArray[np.bool_]]) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Neighbours that belong to images of the same size."""
    return [(a, b) for a, b in pairwise(masks) if a.shape == b.shape]


def _rle(mask_HW: NDArray[np.bool_]) -> dict[str, object]:
    rle = encode_mask(mask_HW)
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def _mask_of(rle: object) -> NDArray[np.bool_]:
    assert isinstance(rle, dict)
    height, width = rle["size"]
    return decode_mask(Rle(height=height, width=width, counts=rle["counts"]))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("page")
    random = np.random.default_rng(0)
    masks = list(_masks(random))
    strokes = list(_strokes(random))
    upsampled = list(_upsampled(random))
    frames = [
        ((int(height), int(width)), size)
        for height, width in random.integers(1, 9000, (300, 2))
        for size in (BUNDLED, FULL)
    ]
    prompts = [(masks[-2], BUNDLED), (masks[-2], FULL), (masks[22], BUNDLED)]
    halves = np.arange(65536, dtype=np.uint16)
    floats = _awkward_floats(random)
    tensors = {
        "iou": torch.from_numpy(random.normal(size=(1, 4)).astype(np.float32)),
        "logits": torch.from_numpy(random.normal(size=(1, 4, 3, 5)).astype(np.float16)),
        "nothing": torch.zeros(0, 3),
    }
    save_file(tensors, folder / "some.safetensors", metadata={"frame": "{}"})
    halves.tofile(folder / "halves")
    floats.tofile(folder / "floats")
    for i, case in enumerate(upsampled):
        case.logits_hw.tofile(folder / f"logits-{i}")
    questions = {
        "codec": [_rle(mask) for mask in masks],
        "pairs": [[_rle(a), _rle(b)] for a, b in _pairs(masks)],
        "strokes": [
            {"points": points.tolist(), "radius": radius, "width": size[1], "height": size[0]}
            for points, radius, size in strokes
        ],
        "frames": [_frame_question(*frame) for frame in frames],
        "upsample": [
            {
                "logits": str(folder / f"logits-{i}"),
                "frame": _frame_question(case.frame.original_size, case.size),
            }
            for i, case in enumerate(upsampled)
        ],
        "prompts": [
            {
                "rle": _rle(mask),
                "image_size": size[0],
                "pad_multiple": size[1],
                "out": str(folder / f"prompt-{i}"),
            }
            for i, (mask, size) in enumerate(prompts)
        ],
        "halves": {
            name: str(folder / name) for name in ("halves", "floats", "out_floats", "out_halves")
        },
        "safetensors": [{"file": str(folder / "some.safetensors"), "out": str(folder / "tensors")}],
        "tokens": [[0.9, 0.2, 0.8, 0.5]],
    }
    answers = _run_page(questions, folder)
    return Asked(
        masks, strokes, frames, upsampled, prompts, halves, floats, tensors, folder, answers
    )


def _frame_question(original: tuple[int, int], size: tuple[int, int]) -> dict[str, int]:
    return {
        "height": original[0],
        "width": original[1],
        "image_size": size[0],
        "pad_multiple": size[1],
    }


def _awkward_floats(random: np.random.Generator) -> NDArray[np.float32]:
    """Every half float, the middles between neighbours and their neighbours, and more."""
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (finite[:-1] + finite[1:]) / 2
    return np.concatenate(
        [
            finite,
            -finite,
            middles,
            np.nextafter(middles, np.float32(np.inf)),
            -np.nextafter(middles, np.float32(-np.inf)),
            np.array([65519.99, 65520, 1e9, np.inf, -np.inf, 1e-9, 2**-25, 1e-40], np.float32),
            random.normal(0, 10, 1000).astype(np.float32),
        ]
    )


def test_run_lengths_are_those_of_pycocotools_byte_for_byte(asked: Asked) -> None:
    assert len(asked.answers["codec"]) == len(asked.masks)
    for mask, answer in zip(asked.masks, asked.answers["codec"], strict=True):
        assert isinstance(answer, dict)
        assert answer["rle"] == _rle(mask)
        assert answer["area"] == mask_area(encode_mask(mask))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            assert answer["box"] == [
                columns[0],
                rows[0],
                columns[-1] - columns[0] + 1,
                rows[-1] - rows[0] + 1,
            ]


def test_added_and_removed_pixels_are_those_of_whole_masks(asked: Asked) -> None:
    for (a, b), answer in zip(_pairs(asked.masks), asked.answers["pairs"], strict=True):
        assert isinstance(answer, dict)
        assert answer["union"] == _rle(a | b)
        assert answer["subtract"] == _rle(a & ~b)


def test_a_stroke_covers_the_pixels_that_the_simulated_annotators_brush_covers(
    asked: Asked,
) -> None:
    for (points, radius, size), answer in zip(asked.strokes, asked.answers["strokes"], strict=True):
        assert answer == _rle(stroke_mask(points, radius, size))


def test_an_image_is_laid_into_the_input_as_the_model_does(asked: Asked) -> None:
    for (original, size), answer in zip(asked.frames, asked.answers["frames"], strict=True):
        frame = input_frame(original, *size)
        assert answer == {
            "original": list(frame.original_size),
            "input": list(frame.input_size),
            "padded": list(frame.padded_size),
        }


def test_logits_become_the_mask_that_the_model_makes_of_them(asked: Asked) -> None:
    flips = pixels = 0
    for case, answer in zip(asked.upsampled, asked.answers["upsample"], strict=True):
        logits = torch.from_numpy(case.logits_hw)[None, None]
        wanted_HW = (upsample_logits(logits, case.frame)[0, 0] > 0).numpy()
        flips += int((wanted_HW != _mask_of(answer)).sum())
        pixels += wanted_HW.size
    assert flips <= FLIPS_PER_MILLION * pixels / 1e6


def test_a_mask_prompt_holds_the_share_of_each_cell_that_the_mask_covers(asked: Asked) -> None:
    for i, (mask_HW, size) in enumerate(asked.prompts):
        frame = input_frame((mask_HW.shape[0], mask_HW.shape[1]), *size)
        found = np.fromfile(asked.folder / f"prompt-{i}", np.float32)
        low = (frame.padded_size[0] // 4, frame.padded_size[1] // 4)
        rows, columns = (_cover(frame, axis, low[axis]) for axis in (0, 1))
        share_hw = rows @ mask_HW.astype(np.float64) @ columns.T
        np.testing.assert_allclose(found.reshape(low), share_hw * 16 - 8, atol=2e-3)


def _cover(frame: Frame, axis: int, cells: int) -> NDArray[np.float64]:
    """How much of each cell (rows) each original pixel (columns) covers."""
    pixels, scale = frame.original_size[axis], frame.input_size[axis] / frame.original_size[axis]
    low = np.maximum(np.arange(cells)[:, None] * 4, np.arange(pixels) * scale)
    high = np.minimum((np.arange(cells)[:, None] + 1) * 4, (np.arange(pixels) + 1) * scale)
    share: NDArray[np.float64] = np.maximum(high - low, 0) / 4
    return share


def test_half_floats_are_read_and_written_as_numpy_does(asked: Asked) -> None:
    read = np.fromfile(asked.folder / "out_floats", np.float32)
    np.testing.assert_array_equal(read, asked.halves.view(np.float16).astype(np.float32))
    written = np.fromfile(asked.folder / "out_halves", np.uint16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(written, asked.floats.astype(np.float16).view(np.uint16))


def test_safetensors_are_read_as_they_were_written(asked: Asked) -> None:
    [answer] = asked.answers["safetensors"]
    assert answer == {
        "metadata": {"frame": "{}"},
        "shapes": [[name, list(tensor.shape)] for name, tensor in sorted(asked.tensors.items())],
    }
    wanted = np.concatenate(
        [tensor.float().numpy().ravel() for _, tensor in sorted(asked.tensors.items())]
    )
    np.testing.assert_array_equal(np.fromfile(asked.folder / "tensors", np.float32), wanted)


def test_one_point_offers_the_ambiguous_masks_best_first(asked: Asked) -> None:
    assert asked.answers["tokens"] == [[2, 3, 1]]

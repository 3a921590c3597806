"""What a click costs with our export and with the public one.

    python -m tests.benchmarks.bench_decoder [--public CHECKOUT_OF_SEGMENT_ANYTHING]

Both decode with SAM's full-size decoder (256 channels, 4,096 image tokens), random weights, in
onnxruntime on one thread. Runs take turns, and each is measured in CPU seconds of its own thread,
so that the ratio holds on a busy machine too. `--keep FOLDER` leaves the files, and what they are
in `comparison.json`, for the same comparison in a browser. Without a checkout the decoder of the
package transformers stands for the public one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

from model import SIZES, Sam
from model.export import export_decoder
from model.image_encoder import VitConfig
from tests.benchmarks.public_export import write_public_style

Feeds = Mapping[str, NDArray[np.generic]]
ORIGINAL_SIZE = (1500.0, 2250.0)


def main() -> None:
    """Print one row for each kind of click."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="leave the files in this folder")
    parser.add_argument("--only-write", action="store_true", help="with --keep: measure nothing")
    parser.add_argument("--public", type=Path, help="checkout of segment-anything to export")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        decoders = write_decoders(folder, arguments.public)
        if not arguments.only_write:
            measure(decoders, arguments.rounds)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoders:
    """The files that are compared."""

    prepare: Path
    decode: Path
    public_low_res: Path
    public: Path


def write_decoders(folder: Path, checkout: Path | None = None) -> Decoders:
    """Export one decoder three times, and say in `comparison.json` what the files are."""
    tiny = VitConfig(width=32, depth=1, heads=2, global_blocks=(0,))  # the encoder is not used
    sam = Sam(dataclasses.replace(SIZES["vit_b"], encoder=tiny)).eval()
    files = export_decoder(sam, folder)
    write_public_style(sam, folder / "public_low_res.onnx", upscale=False, checkout=checkout)
    write_public_style(sam, folder / "public.onnx", upscale=True, checkout=checkout)
    names = {
        "prepare": files.prepare.name,
        "decode": files.decode.name,
        "public_low_res": "public_low_res.onnx",
        "public": "public.onnx",
    }
    (folder / "comparison.json").write_text(json.dumps(names, indent=2) + "\n")
    return Decoders(**{name: folder / file for name, file in names.items()})


def measure(decoders: Decoders, rounds: int) -> None:
    """Time clicks without and with a mask prompt."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(1, 256, 64, 64)).astype(np.float16)
    prepare, ours, low_res, public = (
        _session(path)
        for path in (
            decoders.prepare,
            decoders.decode,
            decoders.public_low_res,
            decoders.public,
        )
    )
    names = [output.name for output in prepare.get_outputs()]
    tensors = prepare.run(names, {"coarse": coarse})
    prepared = dict(zip(names, tensors, strict=True))
    once_ms = _milliseconds(partial(prepare.run, names, {"coarse": coarse}))
    print(f"prepare, once per image: {once_ms:.1f} ms")
    print("| click | ours ms | public, low-res ms | ratio | public, 2250x1500 ms | ratio |")
    print("|---|---|---|---|---|---|")
    for title, has_mask in (("first", 0.0), ("with a mask prompt", 1.0)):
        click: Feeds = {
            "points_xy": np.array([[[500.0, 400.0], [0.0, 0.0]]], np.float32),
            "point_labels": np.array([[1.0, -1.0]], np.float32),
            "mask_logits": rng.normal(size=(1, 1, 256, 256)).astype(np.float32) * 4,
            "has_mask": np.array([has_mask], np.float32),
        }
        image: Feeds = {**click, "image_embeddings": coarse.astype(np.float32)}
        whole: Feeds = {**image, "orig_im_size": np.array(ORIGINAL_SIZE, np.float32)}
        runs = [
            partial(ours.run, None, {**click, **prepared}),
            partial(low_res.run, None, image),
            partial(public.run, None, whole),
        ]
        theirs = runs[1]()[1]
        worst = np.abs(runs[0]()[1][:, -theirs.shape[1] :] - theirs).max()
        spent = [[_milliseconds(run) for run in runs] for _ in range(rounds + 1)]
        ours_ms, low_res_ms, public_ms = np.median(spent[1:], axis=0)
        print(
            f"| {title} | {ours_ms:.1f} | {low_res_ms:.1f} | {low_res_ms / ours_ms:.2f} "
            f"| {public_ms:.1f} | {public_ms / ours_ms:.2f} |  logits differ by {worst:.0e}"
        )


def _milliseconds(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return (time.thread_time() - began) * 1000


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()

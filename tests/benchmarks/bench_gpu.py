"""Images/s of the automatic stage on a GPU: `python -m tests.benchmarks.bench_gpu --help`.

    make bench-gpu ARGS="--segment-anything ../segment-anything"

End to end, as a shard is made: JPEG files are read, decoded, masked and packed into run lengths by
`mask_images`, several in company. One photo (painted, or --image) is written as many files. SAM's
sizes get weights that let the share of masks pass that trained ones do (`plausible_weights`, fitted
to the photo); the bundled model has its own weights and thresholds.

Columns: images/s from the first result on, after a warm-up; `busy`: share of the wall time in which
a kernel or copy ran (torch's profiler); `waits`: how often the processor waited for the GPU for one
image; `bound`: FLOPs of one image / (seconds for an image x measured matmul rate in the same
precision); `public`: times as fast as the public generator in float32, as it is published, on the
same card and weights. Every row states its masks; --check compares them with the processor's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig, generate_masks
from engine.automatic.pipeline import best_images_at_once, mask_images
from engine.images import ImageLimits, content_id, decode_image, encode_jpeg
from engine.masks import mask_iou
from engine.records import ImageRecord, MaskRecord
from model import SIZES, Sam, build_sam
from model.compiling import compile_parts
from tests.benchmarks import gpu_gauges as gauges
from tests.benchmarks.peers import from_checkout, painted, public_model, shared_settings
from tests.benchmarks.plausible_weights import plausible_sam

Pixels = NDArray[np.uint8]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRESETS = {"1": None, "21": "paper", "fast": "fast"}
WARM_UP = 3
HEADER = (
    "| model | precision | crops | photo | images/s | ms/image | masks | busy | waits | bound "
    "| peak GB | public |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row: what runs, and how long it may take."""

    model: str
    precision: str
    crops: str
    seconds: float

    def config(self, sam: Sam, points_per_side: int) -> AutomaticConfig:
        """Return the model's thresholds with this row's crops."""
        points = {"points_per_side": points_per_side}
        return AutomaticConfig.for_model(sam, points, PRESETS[self.crops])


def main() -> None:
    """Print a table."""
    arguments = parsed()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; use --device cpu to try the benchmark itself")
    with TemporaryDirectory() as folder:
        photo, files = photos(arguments, Path(folder))
        print(
            f"{gauges.device_name(device)}, torch {torch.__version__}, "
            f"{best_images_at_once(device)} images in company, "
            f"{arguments.points_per_side}^2 points, compile {arguments.compile}\n\n{HEADER}"
        )
        for line in lines(arguments, device, photo, files):
            print(line, flush=True)


def lines(
    arguments: argparse.Namespace, device: torch.device, photo: Pixels, files: list[ImageRecord]
) -> Iterator[str]:
    """Measure row by row; each gets its share of the time that is left for all of them."""
    left = arguments.minutes * 60
    rows = len(arguments.models) * len(arguments.precisions) * len(arguments.crops)
    for name in arguments.models:
        weights = weights_of(name, photo)
        public: dict[str, float] = {}
        for precision in arguments.precisions:
            sam = placed(weights, device, DTYPES[precision])
            if arguments.compile == "auto" and device.type == "cuda":
                compile_parts(sam)
            for crops in arguments.crops:
                case = Case(model=name, precision=precision, crops=crops, seconds=left / rows)
                rows -= 1
                if left <= 0:
                    yield f"| {name} | {precision} | {crops} | left out: --minutes are over |"
                    continue
                began = perf_counter()
                yield row(case, sam, photo, files, arguments, public, weights)
                left -= perf_counter() - began
            if arguments.check and precision == "float32":
                yield agreement(weights, sam, photo)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["vit_h", "vit_b", "bundled"])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"], choices=DTYPES)
    parser.add_argument(
        "--crops", nargs="+", default=["1", "21"], choices=PRESETS, help="21: the paper's"
    )
    parser.add_argument("--images", type=int, default=64, help="at most, for a row")
    parser.add_argument("--image", type=Path, help="a photo to use in place of the painted one")
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--width", type=int, default=2250)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--compile", default="auto", choices=["off", "auto"])
    parser.add_argument("--segment-anything", help="a checkout of the public code")
    parser.add_argument("--check", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--minutes", type=float, default=8, help="for all rows, beside what weights take"
    )
    return parser.parse_args()


def photos(arguments: argparse.Namespace, folder: Path) -> tuple[Pixels, list[ImageRecord]]:
    """Write the photo as often as it is to be masked; return its pixels and the files' records."""
    if arguments.image is not None:
        data = arguments.image.read_bytes()
    else:
        data = encode_jpeg(painted(arguments.height, arguments.width), quality=95)
    pixels = decode_image(data)
    image_id, sha256 = content_id(data)
    files = []
    for number in range(arguments.images + WARM_UP):
        path = folder / f"{number}.jpg"
        path.write_bytes(data)
        files.append(
            ImageRecord(
                image_id=image_id,
                uri=str(path),
                sha256=sha256,
                width=pixels.shape[1],
                height=pixels.shape[0],
                format="jpeg",
                ingested_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    return pixels, files


def weights_of(name: str, photo: Pixels) -> Sam:
    """Return the model on the processor, in float32."""
    if name == "bundled":
        return build_sam(name, device="cpu")
    return plausible_sam(SIZES[name], photo)[0]


def placed(weights: Sam, device: torch.device, dtype: torch.dtype) -> Sam:
    """Copy the model to the device."""
    sam = Sam(weights.config)
    sam.load_state_dict(weights.state_dict())
    return sam.eval().to(device, dtype)


def row(
    case: Case,
    sam: Sam,
    photo: Pixels,
    files: list[ImageRecord],
    arguments: argparse.Namespace,
    public: dict[str, float],
    weights: Sam,
) -> str:
    """Measure one row; `public` keeps the public generator's seconds by number of crops."""
    device, config = sam.device, case.config(sam, arguments.points_per_side)
    seconds, masks = timed(case, sam, config, files)
    gauges.forget_peak(device)

    def three_images() -> list[Any]:
        company = best_images_at_once(device)
        return list(mask_images(files[:3], sam, config, ImageLimits(), images_at_once=company))

    busy = gauges.busy_share(three_images, device)
    peak = gauges.peak_gigabytes(device)
    with uncompiled():
        waits = gauges.waits(lambda: generate_masks(sam, photo, config), device)
        flops = gauges.counted_flops(lambda: generate_masks(sam, photo, config))
    bound = flops / seconds / gauges.matmul_rate(device, sam.dtype)
    if arguments.segment_anything and case.crops not in public and case.model != "bundled":
        public[case.crops] = public_seconds(weights, photo, config, device, arguments)
    height, width = photo.shape[:2]
    cells = (
        case.model,
        case.precision,
        case.crops,
        f"{width}x{height}",
        f"{1 / seconds:.2f}",
        f"{seconds * 1e3:.0f}",
        masks,
        "-" if busy is None else f"{busy:.0%}",
        "-" if waits is None else waits,
        f"{bound:.0%}",
        "-" if peak is None else f"{peak:.1f}",
        f"{public[case.crops] / seconds:.1f}x" if case.crops in public else "-",
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def timed(
    case: Case, sam: Sam, config: AutomaticConfig, files: list[ImageRecord]
) -> tuple[float, int]:
    """Return seconds for an image, once the pipeline is full, and an image's number of masks."""
    results = mask_images(
        files, sam, config, ImageLimits(), images_at_once=best_images_at_once(sam.device)
    )
    warm_up = min(WARM_UP, len(files) - 1)
    for _ in range(warm_up):
        found = next(results)
        if found.skipped is not None:
            raise SystemExit(f"a photo of the benchmark was skipped: {found.skipped.message}")
    began, count, masks = perf_counter(), 0, 0
    for found in results:
        count, masks = count + 1, len(found.masks)
        if perf_counter() - began > case.seconds / 2:  # the other half is for the gauges
            break
    return (perf_counter() - began) / count, masks


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what was compiled as it is written: counters look at single operations."""
    with torch.compiler.set_stance("force_eager"):
        yield


def public_seconds(
    weights: Sam,
    photo: Pixels,
    config: AutomaticConfig,
    device: torch.device,
    arguments: argparse.Namespace,
) -> float:
    """Time the public generator on the same card, weights and settings, after a small warm-up."""
    package = from_checkout("segment_anything", arguments.segment_anything)
    model = public_model(package, weights.config)
    model.load_state_dict(weights.state_dict())
    model.eval().to(device)
    settings = shared_settings(config)

    def generate(**changed: int) -> float:
        generator = package.SamAutomaticMaskGenerator(
            model, output_mode="coco_rle", **{**settings, **changed}
        )
        gauges.finish(device)
        began = perf_counter()
        generator.generate(photo)
        gauges.finish(device)
        return perf_counter() - began

    generate(points_per_side=8, crop_n_layers=0)
    return generate()


def agreement(weights: Sam, sam: Sam, photo: Pixels) -> str:
    """Compare the device's float32 masks with the processor's, for few points."""
    config = AutomaticConfig.for_model(weights, {"points_per_side": 8})
    with uncompiled():
        here, there = (generate_masks(model, photo, config) for model in (weights, sam))
    same = {(m.rle.counts, m.point_xy) for m in here} & {(m.rle.counts, m.point_xy) for m in there}
    worst = min((best_iou(mask, there) for mask in here), default=1.0)
    return (
        f"| {weights.config.name}: {len(here)} masks on the processor, {len(there)} on the device, "
        f"{len(same)} byte for byte the same; lowest IoU with the best match {worst:.4f} |"
    )


def best_iou(mask: MaskRecord, others: list[MaskRecord]) -> float:
    """Return the IoU with the mask that fits best."""
    if not others:
        return 0.0
    return float(np.max(mask_iou([mask.rle], [other.rle for other in others])))


if __name__ == "__main__":
    main()

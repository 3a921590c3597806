"""How long a click takes in a real browser: from the request to the masks, measured in the page.

    python -m tests.benchmarks.bench_browser
    python -m tests.benchmarks.bench_browser --model vit_b --rounds 20

With a plain SAM the same clicks also go to a decoder in the form of the public ONNX export, with
its scaling to the image in the graph and without, in the same page and in turn, so that their ratio
holds on a busy machine too. Its weights are random, on which times don't depend. Needs Node, the
page's packages and chromium on PATH.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from engine.masks import mask_iou
from engine.records import Rle
from model import Sam, build_sam
from model.export import embedding_tensors, export_decoder
from model.types import ImageFeatures
from tests.benchmarks.public_export import write_public_style
from tests.click_page import ClickPage, Clicks, build_click_page, click_page

HEIGHT, WIDTH = 1200, 1800


@dataclass(slots=True, eq=False)
class Timed:
    """What was measured of a contestant."""

    name: str
    number: int
    start_ms: float
    clicks_ms: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    masks: list[Rle] = field(default_factory=list)


def calm_masks(sam: Sam) -> Sam:
    """Let neighbours share weights: a SAM with random ones then draws areas, not texture."""
    with torch.no_grad():
        for layer in sam.mask_decoder.output_upscaling:
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    return sam


def write_model(
    name: str, folder: Path, height: int, width: int, checkout: Path | None = None
) -> None:
    """Export a model with an embedding; a plain SAM in the public form too."""
    torch.manual_seed(0)
    if name == "bundled":
        sam = build_sam("bundled", device="cpu")
        features = sam.encode(picture(height, width)).features
    else:
        sam = calm_masks(build_sam("vit_b", device="cpu"))
        rough = torch.randn(1, sam.config.dim, 6, 6)
        smooth = torch.nn.functional.interpolate(rough, (64, 64), mode="bicubic")
        features = ImageFeatures(smooth)
    export_decoder(sam, folder)
    save_file(embedding_tensors(features), folder / "embedding.safetensors")
    if name != "bundled":
        write_public_style(sam, folder / "public.onnx", upscale=True, checkout=checkout)
        write_public_style(sam, folder / "public-low-res.onnx", upscale=False, checkout=checkout)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Blobs of colour on a gradient."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    image = np.stack([x / width * 90, y / height * 90, (x / width + y / height) * 50], axis=-1)
    for _ in range(25):
        centre_y, centre_x, radius = random.uniform(
            (0, 0, height / 30), (height, width, height / 5)
        )
        inside = np.hypot(y - centre_y, (x - centre_x) * random.uniform(0.6, 1.4)) < radius
        image[inside] = random.uniform(0, 255, 3)
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def measure(page: ClickPage, timed: list[Timed], size: tuple[int, int], rounds: int) -> None:
    """Click, one contestant after the other in every round; a tenth of the rounds warms up."""
    height, width = size
    for number in range(-max(2, rounds // 10), rounds):
        x, y = (number * 0.618034 + 0.3) % 1 * width, (number * 0.754878 + 0.5) % 1 * height
        for contestant in timed:
            clicked = page.click(contestant.number, Clicks(points=((x, y, 1),)))
            if number >= 0:
                contestant.clicks_ms.append(clicked.milliseconds)
                contestant.processor_ms.append(clicked.processor_ms)
                contestant.masks.append(clicked.masks[0])


def report(timed: list[Timed]) -> None:
    """Print times of a click and how they compare with the first contestant's.

    On a busy machine the best click says most. Processor time counts all threads, waiting ones too.
    """
    first = timed[0]
    for contestant in timed:
        best, median, late = np.percentile(contestant.clicks_ms, (0, 50, 95))
        pairs = zip(contestant.masks, first.masks, strict=True)
        alike = np.mean([mask_iou([mask], [other])[0, 0] for mask, other in pairs])
        print(
            f"{contestant.name:<26} median {median:6.1f} ms "
            f"({median / np.median(first.clicks_ms):4.2f}x)  p95 {late:6.1f} ms  "
            f"best {best:6.1f} ms ({best / min(first.clicks_ms):4.2f}x)  "
            f"processor {np.median(contestant.processor_ms):6.1f} ms "
            f"({np.median(contestant.processor_ms) / np.median(first.processor_ms):4.2f}x)  "
            f"start {contestant.start_ms:6.0f} ms  IoU with the first {alike:.4f}"
        )


def main() -> None:
    """Print a line for each contestant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled", choices=("bundled", "vit_b"))
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--public", type=Path, help="checkout of segment-anything to export")
    given = parser.parse_args()
    kinds = ["ours"] if given.model == "bundled" else ["ours", "public", "public-low-res"]
    size = {"width": given.width, "height": given.height}
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        build_click_page(site)
        write_model(given.model, site / "model", **size, checkout=given.public)
        with click_page(site) as page:
            print(page.fact("cores"), "cores, isolated:", page.fact("isolated"))
            timed = []
            for threads in given.threads:
                for kind in kinds:
                    name = f"{kind}, {threads} thread{'s'[: threads > 1]}"
                    started = page.start(kind=kind, folder="model", threads=threads, **size)
                    timed.append(Timed(name, *started))
            measure(page, timed, (given.height, given.width), given.rounds)
    report(timed)


if __name__ == "__main__":
    main()

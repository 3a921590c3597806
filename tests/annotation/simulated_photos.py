"""Photos of bright shapes on a dark ground with their COCO file: work for simulated people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engine.images import encode_png
from engine.masks import encode_mask, mask_area

HEIGHT, WIDTH = 96, 128


def write_photos(folder: Path, count: int, shapes: int = 3) -> list[bytes]:
    """Write images/*.png and annotations.json; return the photos' files in their order."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(7)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    files: list[bytes] = []
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for number in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), (28, 32, 40), dtype=np.uint8)
        pixels[..., 0] += np.uint8(number)
        name = f"{number:03d}.png"
        for place in range(shapes):
            x = (place + 0.5) * WIDTH / shapes + random.uniform(-4, 4)
            y, radius = random.uniform(32, HEIGHT - 32), random.uniform(11, 17)
            mask_HW = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
            pixels[mask_HW] = random.integers(120, 255, 3)
            rle = encode_mask(mask_HW)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "area": mask_area(rle),
                    "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle.counts},
                }
            )
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        files.append(encode_png(pixels))
        (folder / "images" / name).write_bytes(files[-1])
    coco = {"images": images, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return files

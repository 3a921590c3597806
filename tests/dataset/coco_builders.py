"""A small COCO data set with real files, made of painted scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engine.images import encode_jpeg
from engine.masks import encode_mask


def write_coco(folder: Path, images: int, *, split: str | None = None, seed: int = 0) -> Path:
    """Write photos of discs on noise with one mask per disc; return the annotations file."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(images):
        height, width = (int(n) for n in random.integers(120, 200, 2))
        y, x = np.mgrid[:height, :width]
        photo = random.integers(60, 120, (height, width, 3)).astype(np.uint8)
        for _ in range(3):
            centre_y, centre_x = random.integers(30, height - 30), random.integers(30, width - 30)
            mask = np.hypot(y - centre_y, x - centre_x) < random.integers(15, 30)
            photo[mask] = random.integers(0, 255, 3)
            ys, xs = np.nonzero(mask)
            rle = encode_mask(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "segmentation": {"size": [height, width], "counts": rle.counts},
                    "bbox": [
                        int(xs.min()),
                        int(ys.min()),
                        int(np.ptp(xs)) + 1,
                        int(np.ptp(ys)) + 1,
                    ],
                    "area": int(mask.sum()),
                    "votes": 2,
                }
            )
        name = f"{number:03d}.jpg"
        (folder / "images" / name).write_bytes(encode_jpeg(photo))
        row = {"id": number, "file_name": name, "width": width, "height": height}
        rows.append(row if split is None else {**row, "split": split})
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": rows, "annotations": annotations}))
    return path

"""Collect real photos that come with installed packages: the demo's input.

    python -m tests.examples.demo_photos FOLDER

They are the public domain or freely licensed sample pictures of scikit-image, scikit-learn and
matplotlib; nothing is downloaded and nothing of them is part of this project.
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

PHOTOS = {
    ("skimage", "data"): (
        "astronaut.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "hubble_deep_field.jpg",
        "motorcycle_left.png",
        "rocket.jpg",
    ),
    ("sklearn", "datasets/images"): ("china.jpg", "flower.jpg"),
    ("matplotlib", "mpl-data/sample_data"): ("grace_hopper.jpg",),
}


def demo_photos() -> list[Traversable]:
    """Return the photos that are there; packages that are not installed are left out."""
    found = []
    for (package, folder), names in PHOTOS.items():
        try:
            root = resources.files(package).joinpath(folder)
        except ModuleNotFoundError:
            continue
        found += [root / name for name in names if (root / name).is_file()]
    return found


def copy_photos(folder: Path) -> int:
    """Copy the photos into a folder; return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = demo_photos()
    for photo in photos:
        with resources.as_file(photo) as path:
            shutil.copyfile(path, folder / photo.name)
    return len(photos)


if __name__ == "__main__":
    count = copy_photos(Path(sys.argv[1]))
    if not count:
        sys.exit("no sample photos found; install them: pip install 'maskwheel[demo]'")
    print(f"{count} photos in {sys.argv[1]}")

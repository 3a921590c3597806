"""Real photos that come with packages installed anyway: what the demos work on.

    copied = copy_demo_photos(Path("maskwheel-demo/photos"))

They are the public domain or freely licensed sample pictures of scikit-image, scikit-learn and
matplotlib; nothing is downloaded and nothing of them is part of this project.
"""

from __future__ import annotations

import shutil
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from engine.errors import BadInputError

__all__ = ["copy_demo_photos", "demo_photos"]

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


def copy_demo_photos(folder: Path) -> int:
    """Copy the photos into a folder, those that it lacks; return how many there are.

    Raises:
        BadInputError: there are none, or the folder cannot be written.
    """
    photos = demo_photos()
    if not photos:
        raise BadInputError("no sample photos found; install them: pip install 'maskwheel[demo]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            copy = folder / photo.name
            if not copy.exists():
                with resources.as_file(photo) as path:
                    shutil.copyfile(path, copy)
    except OSError as error:
        raise BadInputError(f"{folder} cannot be written: {error}") from error
    return len(photos)

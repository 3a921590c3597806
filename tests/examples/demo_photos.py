"""Collect real photos that come with installed packages: the demo's input.

python -m tests.examples.demo_photos FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine.dataset.demo_photos import copy_demo_photos
from engine.errors import BadInputError

if __name__ == "__main__":
    try:
        count = copy_demo_photos(Path(sys.argv[1]))
    except BadInputError as error:
        sys.exit(str(error))
    print(f"{count} photos in {sys.argv[1]}")

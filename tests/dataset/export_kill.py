"""Exports a release in a process that kills itself.

    python -m tests.dataset.export_kill WORKSPACE RELEASE FORMAT TARGET IMAGES

SIGKILL comes when so many images are done.
"""

from __future__ import annotations

import os
import signal
import sys

from engine.dataset.catalog import Workspace
from engine.dataset.exports.exporting import export_release
from engine.dataset.exports.protocol import ExportOptions
from engine.dataset.releases import load_release
from engine.images import ImageLimits
from tests.dataset.dataset_builders import NOW


def main(address: str, release: str, format_name: str, target: str, images: int) -> None:
    left = images

    def count(uri: str, masks: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with Workspace.open(address, create=False) as workspace:
        export_release(
            workspace,
            load_release(workspace, release),
            ExportOptions(format=format_name, images_per_part=2),
            target,
            limits=ImageLimits(),
            now=NOW,
            on_image=count,
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))

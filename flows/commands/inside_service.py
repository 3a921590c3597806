"""An annotation service of one's own, in a process beside this one: for `maskwheel simulate`.

    with inside_service(workspace, truth, plan) as link: ...

It is `maskwheel annotate` on the photos that the truth knows, on a free port.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.annotation.simulation.simulate import SimulationPlan
    from engine.annotation.simulation.truth import Truth

_STOP_SECONDS = 30


@contextmanager
def inside_service(workspace: str, truth: Truth, plan: SimulationPlan) -> Iterator[str]:
    """Serve a campaign on the photos of the truth until the block ends; give the admin's link.

    Raises:
        EngineError: the service did not start; its own message stands on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="maskwheel-simulate-") as folder:
        photos = Path(folder) / "photos.txt"
        photos.write_text("".join(f"{image.path}\n" for image in truth.images.values()))
        arguments = ["annotate", str(photos), "-w", workspace, "--port", "0", "--json"]
        arguments += ["--campaign", plan.campaign or "simulated"]
        arguments += ["--review"] if plan.reviewers else []
        service = subprocess.Popen(  # noqa: S603  (this program itself)
            [sys.executable, "-m", "flows.cli", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the people first: they save what they have
        )
        try:
            yield _link(service)
        finally:
            service.send_signal(signal.SIGTERM)
            try:
                service.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
            if service.stdout is not None:
                service.stdout.close()


def _link(service: subprocess.Popen[str]) -> str:
    line = service.stdout.readline() if service.stdout is not None else ""
    if not line:
        code = service.wait(_STOP_SECONDS)
        raise EngineError(f"the service did not start: `maskwheel annotate` ended with code {code}")
    link: str = json.loads(line)["admin_link"]
    return link

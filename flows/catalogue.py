"""The one table of flows: what can be run, deployed and triggered, and in which queue.

    entry = FLOWS["retrain"]          # entry.entrypoint == "flows.retrain.retrain"

It imports nothing, so that listing the flows is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["ALERT", "FLOWS", "FlowEntry", "Queue"]

Queue = Literal["control", "compute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEntry:
    """A flow.

    Attributes:
        name: as Prefect and `maskwheel run` call it.
        module: that it is in.
        function: of the module.
        queue: ``control`` for what takes seconds and may run beside others, ``compute`` for what
            takes the machine.
        summary: one sentence.
        exclusive: two runs of one workspace would do the same work twice, so one waits for the
            other.
    """

    name: str
    module: str
    function: str
    queue: Queue
    summary: str
    exclusive: bool = False

    @property
    def entrypoint(self) -> str:
        """The address to import, which needs no checkout of the sources."""
        return f"{self.module}.{self.function}"


def _entry(name: str, queue: Queue, summary: str, *, exclusive: bool = False) -> FlowEntry:
    function = name.replace("-", "_")
    return FlowEntry(
        name=name,
        module=f"flows.{function}",
        function=function,
        queue=queue,
        summary=summary,
        exclusive=exclusive,
    )


ALERT = "alert"

# In the order of the work.
FLOWS: Mapping[str, FlowEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            _entry("ingest", "control", "Add photos to the workspace without masking them."),
            _entry(
                "assisted-manual",
                "compute",
                "Choose images, prepare them and open a campaign in which people make masks.",
            ),
            _entry(
                "semi-automatic",
                "compute",
                "Pre-fill confident masks and open a campaign in which people add what is missing.",
            ),
            _entry(
                "publish-annotations",
                "control",
                "Publish what people accepted in a campaign as a release.",
            ),
            _entry(
                "fully-automatic",
                "compute",
                "Mask every image with the model alone and publish a release.",
                exclusive=True,
            ),
            _entry(
                "retrain",
                "compute",
                "Train the model on the masks of people and promote it if it became better.",
                exclusive=True,
            ),
            _entry("evaluate", "compute", "Measure a model beside classical methods."),
            _entry("audit", "control", "Check a release against the bars of quality."),
            _entry("release", "control", "Verify, tag, report and export a release."),
            _entry("maintenance", "control", "Remove what nothing needs and tidy the databases."),
            _entry(
                "data-engine",
                "control",
                "Look at the workspace and the policy, start what is due, and explain it.",
            ),
            _entry(ALERT, "control", "Tell people about something that needs them."),
        )
    }
)

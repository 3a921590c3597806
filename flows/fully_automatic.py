"""The fully automatic stage as a flow, see `flows.masking`.

>>> outcome = fully_automatic(["photos/"], workspace="maskwheel-data")
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.masking import mask_photos
from flows.naming import photos_named

__all__ = ["fully_automatic"]


def _run_name() -> str:
    parameters = flow_run.parameters
    return f"mask {photos_named(parameters['photos'])} with {Path(parameters['model']).name}"


fully_automatic = flow(name="fully-automatic", flow_run_name=_run_name)(mask_photos)

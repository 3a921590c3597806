"""What every test shares: one torch thread, examples, and the folder with real annotated images.

Hypothesis tries the same examples every time, and as long as a busy machine takes for them:
what fails in one run fails in the next. `make test-all` tries new ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.browser import chromium
from tests.postgres import postgres_server, postgres_url
from tests.servers import ceph_server, moto_server, s3_address

# Fixtures that browser.py, servers.py and postgres.py explain.
__all__ = [
    "ceph_server",
    "chromium",
    "moto_server",
    "postgres_server",
    "postgres_url",
    "s3_address",
]

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("searching", _PATIENT)
settings.register_profile("repeatable", _PATIENT, derandomize=True)
settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """Return the folder with the annotated sets: MASKWHEEL_TEST_DATA or ../shared/data."""
    given = os.environ.get("MASKWHEEL_TEST_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no annotated images at {folder}; set MASKWHEEL_TEST_DATA to their folder")
    return folder

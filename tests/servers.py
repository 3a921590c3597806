"""Real servers on loopback, for tests.

    def test_it(s3_address: str) -> None:            # moto: a bucket of the test's own
        store = open_store(s3_address)

`moto_server` and `ceph_server` (a Ceph RADOS gateway; slow, from Debian's packages) start with the
first test that asks. `S3Server.environment()` is what a child process, or a fixture of a wider
scope than one test, sets to reach one.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.objects import S3Options
from engine.objects.s3_client import s3_client
from tests import ceph

__all__ = ["S3Server", "ceph_server", "moto_server", "run_moto", "s3_address"]

# AWS's numbers are 1,000 and 5 MiB, which would need large buckets and files.
MOTO_PAGE = 7  # names that a listing holds
MOTO_PART_BYTES = 65_536  # the smallest part of an upload
_MOTO_SIZES = {
    "MOTO_S3_DEFAULT_MAX_KEYS": str(MOTO_PAGE),
    "S3_UPLOAD_PART_MIN_SIZE": str(MOTO_PART_BYTES),
}
_REPOSITORY = Path(__file__).parents[1]
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server.

    Attributes:
        endpoint: its address, ``http://127.0.0.1:port``.
        access_key: a user who may do everything.
        secret_key: the user's password.
    """

    endpoint: str
    access_key: str = "test"
    secret_key: str = "test-secret"  # noqa: S105  (of a server that ends with the tests)

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the variables that lead to this server, or to a proxy before it."""
        return {
            "MASKWHEEL_S3_ENDPOINT": endpoint or self.endpoint,
            "MASKWHEEL_S3_ADDRESSING": "path",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @property
    def options(self) -> S3Options:
        """How a store reaches this server, with the variables set."""
        return S3Options(endpoint=self.endpoint, addressing="path")

    def make_bucket(self) -> str:
        """Create an empty bucket, with the variables set; return its name."""
        name = f"bucket-{next(_numbers)}"
        s3_client(self.options).create_bucket(Bucket=name)
        return name


@contextmanager
def run_moto() -> Iterator[S3Server]:
    """Run a moto server in a process of its own, which also ends when this one does."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.moto_process"],
        cwd=_REPOSITORY,
        env={**os.environ, **_MOTO_SIZES},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process without pipes")
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("moto did not start; is moto[server] installed?")
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """Return a moto server that all tests share; each has buckets of its own."""
    with run_moto() as server:
        yield server


@pytest.fixture
def s3_address(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a new bucket, with the environment set to reach it."""
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{moto_server.make_bucket()}"


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[S3Server]:
    """Return a Ceph RADOS gateway on a cluster of one node, in a temporary folder."""
    missing = ceph.missing_programs()
    if missing:
        pytest.skip(
            f"no {', '.join(missing)}: apt-get install radosgw ceph-mon ceph-osd ceph-common"
        )
    with ceph.run_ceph() as endpoint:
        yield S3Server(endpoint, ceph.ACCESS_KEY, ceph.SECRET_KEY)

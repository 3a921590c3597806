"""A Ceph cluster of one node with an S3 gateway, on loopback and in memory, for tests.

    with run_ceph() as server:                 # about 20 seconds; needs Debian's packages
        store = S3Store("bucket", options=server.options)

`apt-get install radosgw ceph-mon ceph-osd ceph-common`; no root is needed to run it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["ACCESS_KEY", "SECRET_KEY", "missing_programs", "run_ceph"]

ACCESS_KEY = "test"
SECRET_KEY = "test-secret"  # noqa: S105  (of a server that ends with the tests)
PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw")
START_SECONDS = 180

# One object store daemon that keeps everything in memory, no authentication between the daemons,
# and no encryption, which needs a package more. Without tcp_nodelay, Ceph's default, each answer
# waits 40 ms for the client's acknowledgement of its head.
CONFIGURATION = """
[global]
fsid = {cluster}
mon host = v2:127.0.0.1:{monitor_port}/0
public addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
keyring = {folder}/keyring
run dir = {folder}
log file = {folder}/$name.log
admin socket =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
mon allow pool size one = true
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{gateway_port} tcp_nodelay=1
"""


def missing_programs() -> list[str]:
    """Return what is not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def run_ceph() -> Iterator[str]:
    """Start the cluster; yield the gateway's address; end it, and remove its folder."""
    with tempfile.TemporaryDirectory(prefix="ceph-") as name, ExitStack() as daemons:
        folder = Path(name)
        monitor_port, gateway_port = free_port(), free_port()
        cluster, disk = str(uuid.uuid4()), str(uuid.uuid4())
        settings = folder / "ceph.conf"
        settings.write_text(
            CONFIGURATION.format(
                cluster=cluster,
                folder=folder,
                monitor_port=monitor_port,
                gateway_port=gateway_port,
            )
        )
        for part in ("mon", "osd"):
            (folder / part).mkdir()
        keys = str(folder / "keyring")
        may = ("--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        run("ceph-authtool", "--create-keyring", keys, *may)
        map_file = str(folder / "monmap")
        monitor = f"[v2:127.0.0.1:{monitor_port}]"
        run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", monitor, map_file)
        use = ("-c", str(settings))
        run("ceph-mon", *use, "--mkfs", "-i", "a", "--monmap", map_file, "--keyring", keys)
        daemons.enter_context(daemon(folder, "ceph-mon", *use, "-f", "-i", "a"))
        run("ceph", *use, "osd", "new", disk)
        run("ceph-osd", *use, "-i", "0", "--mkfs", "--osd-uuid", disk)
        daemons.enter_context(daemon(folder, "ceph-osd", *use, "-f", "-i", "0"))
        user = ("--uid=test", "--display-name=test", f"--access-key={ACCESS_KEY}")
        run("radosgw-admin", *use, "user", "create", *user, f"--secret={SECRET_KEY}")
        gateway = daemons.enter_context(daemon(folder, "radosgw", *use, "-f", "-n", "client.rgw"))
        endpoint = f"http://127.0.0.1:{gateway_port}"
        wait_for(endpoint, gateway, folder)
        yield endpoint


def run(*command: str) -> None:
    """Run one step of the set-up; its output is the error's."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-2000:]}")


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon, which also ends when this process is killed."""
    leash = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    with (folder / f"{command[0]}.out").open("wb") as output:
        process = subprocess.Popen([*leash, *command], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()  # it keeps nothing
        process.wait()


def wait_for(endpoint: str, gateway: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when the gateway answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and gateway.poll() is None:
        try:
            direct.open(endpoint, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    said = (folder / "radosgw.out").read_text()[-2000:]
    raise RuntimeError(f"the Ceph gateway did not start: {said}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

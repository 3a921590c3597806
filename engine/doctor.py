"""What works on this machine: each part is tried for real, on small data of its own."""

from __future__ import annotations

import io
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from engine.errors import EngineError

_SIDE_PX = 96


@dataclass(frozen=True, slots=True)
class Check:
    """The result of trying one part.

    Attributes:
        name: what was tried.
        works: whether it did.
        detail: figures, or what went wrong and what to do.
    """

    name: str
    works: bool
    detail: str


def examine(workspace: str) -> list[Check]:
    """Try every part; never raises for a part that does not work."""
    parts: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("torch", _torch),
        ("bundled model", _bundled_model),
        ("images", _images),
        ("masks", _masks),
        ("catalog", _catalog),
        ("prefect", _prefect),
        ("workspace", lambda: _workspace(workspace)),
    ]
    return [_try(name, part) for name, part in parts]


def _try(name: str, part: Callable[[], str]) -> Check:
    try:
        return Check(name, True, part())
    except (EngineError, ImportError, OSError, RuntimeError, ValueError) as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> str:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return f"{torch.__version__}, {torch.get_num_threads()} threads, devices: {', '.join(devices)}"


def _bundled_model() -> str:
    from model import Prompts, build_sam

    sam = build_sam("bundled", device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    sam.encode(image)
    began = time.perf_counter()
    embedding = sam.encode(image)
    encoded = time.perf_counter()
    prompts = Prompts(points_xy=np.array([[[320, 240]]]), point_labels=np.array([[1]]))
    sam.predict(embedding, prompts)
    clicked = time.perf_counter()
    encode_ms, click_ms = (encoded - began) * 1000, (clicked - encoded) * 1000
    return f"{sam.model_id()}, encode {encode_ms:.0f} ms, click {click_ms:.0f} ms on the CPU"


def _images() -> str:
    from PIL import Image

    from engine.images import decode_image

    picture = Image.fromarray(np.full((_SIDE_PX, _SIDE_PX, 3), 128, dtype=np.uint8))
    formats = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
    for name in formats:
        buffer = io.BytesIO()
        picture.save(buffer, name)
        decode_image(buffer.getvalue())
    return f"decodes {', '.join(formats)}"


def _masks() -> str:
    from engine.masks import decode_mask, encode_mask

    mask = np.zeros((_SIDE_PX, _SIDE_PX), dtype=bool)
    mask[10:40, 20:70] = True
    if not np.array_equal(decode_mask(encode_mask(mask)), mask):
        raise RuntimeError("a mask does not survive encoding; is pycocotools intact?")
    return f"COCO RLE by pycocotools {version('pycocotools')}"


def _catalog() -> str:
    from engine.config import load_settings
    from engine.dataset.catalog import Workspace
    from engine.dataset.ingest import expand_inputs, ingest
    from engine.images import ImageLimits, encode_png

    with tempfile.TemporaryDirectory(prefix="maskwheel-doctor-") as folder:
        photo = Path(folder) / "photo.png"
        photo.write_bytes(encode_png(np.zeros((_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)))
        with Workspace.open(Path(folder) / "workspace") as opened:
            images = expand_inputs([str(photo)])
            found = ingest(opened, images, ImageLimits(), datetime.now(UTC))
            rows = opened.table("images").scan().to_arrow().num_rows
            opened.forget()
    if (found.new, rows) != (1, 1):
        raise RuntimeError(f"wrote 1 row to a new table, read {rows}")
    database = "SQLite" if load_settings().database_url is None else "PostgreSQL"
    return f"Iceberg tables by pyiceberg {version('pyiceberg')} on {database}"


def _prefect() -> str:
    try:
        return version("prefect")
    except PackageNotFoundError as error:
        raise ImportError("prefect is not installed") from error


def _workspace(address: str) -> str:
    from engine.dataset.catalog import is_workspace
    from engine.objects import absolute_address, is_remote, open_store

    if is_remote(address):
        store = open_store(address)
        store.check()
        state = "exists" if is_workspace(address) else "will be made"
        return f"{store.address} {state}, can be reached, takes conditional writes"
    folder = Path(absolute_address(address))
    existing = folder
    while not existing.exists():
        existing = existing.parent
    with tempfile.TemporaryFile(dir=existing):
        pass
    free_gb = shutil.disk_usage(existing).free / 1e9
    state = "exists" if folder.exists() else "will be made"
    return f"{folder} {state}, writable, {free_gb:.0f} GB free"

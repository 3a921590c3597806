"""A real annotation service on loopback, for tests.

    with running_service(tmp_path, images=3, people={"ada": "annotator"}) as service:
        service.url, service.links["ada"], service.tokens["ada"]
        service.campaign.campaign_id, service.image_ids
        with service.client("ada") as ada:                 # httpx, signed in
            lease = ada.post(f"/api/campaigns/{service.campaign.campaign_id}/next").json()
        with service.database() as db: ...                 # what it has written
        service.kill(); service.start()                    # the same port, the same database

The service runs in a process of its own (real uvicorn) and ends with this one. Its log is
`service.log`. With ``model=None`` it answers no prompts and starts in a second; with
``model="bundled"`` it is the whole thing.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from engine.annotation.annotators import invite
from engine.annotation.campaigns import open_campaign
from engine.annotation.database import Database, database_url, open_database
from engine.annotation.proposals import set_proposals
from engine.annotation.records import (
    Campaign,
    CampaignImage,
    CampaignSpec,
    MaskObject,
    Role,
    Stage,
)
from engine.images import content_id, encode_png, probe_image

__all__ = ["MODEL_ID", "UNSAFE", "Service", "running_service", "scene"]

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_ID = "no-model-000000000000"
UNSAFE = {"X-Maskwheel": "1"}
_STOP_SECONDS = 30


def scene(seed: int, height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """Paint a few coloured boxes on grey: (H, W, 3)."""
    random = np.random.default_rng(seed)
    image_HWC3 = np.full((height, width, 3), 90 + seed % 60, dtype=np.uint8)
    for _ in range(5):
        y, x = random.integers(0, height - 20), random.integers(0, width - 20)
        h, w = random.integers(10, 40), random.integers(10, 40)
        image_HWC3[y : y + h, x : x + w] = random.integers(0, 255, 3)
    return image_HWC3


@dataclass
class Service:
    """A service that may be started, killed and started again.

    Attributes:
        folder: with the photos, the database and the log.
        campaign: the one that it serves.
        image_ids: in the campaign's order.
        tokens: of the invited people, by name.
    """

    folder: Path
    options: dict[str, Any]
    campaign: Campaign
    image_ids: tuple[int, ...]
    tokens: dict[str, str]
    url: str = ""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def links(self) -> dict[str, str]:
        """The invite links, by name."""
        return {name: f"{self.url}/join#token={token}" for name, token in self.tokens.items()}

    @property
    def log(self) -> str:
        """What the service has logged."""
        return Path(self.options["log"]).read_text()

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        if self._process is None:
            raise RuntimeError("the service does not run")
        return self._process.pid

    def database(self) -> Database:
        """Open the service's database; close it."""
        return open_database(self.options["database_url"], schema=self.options["schema"])

    def start(self) -> None:
        """Start the process, and wait until it listens."""
        file = self.folder / "options.json"
        file.write_text(json.dumps(self.options))
        with (self.folder / "stderr.txt").open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.annotation.service_process", str(file)],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._process = process
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            process.wait(_STOP_SECONDS)
            raise RuntimeError(f"no service: {(self.folder / 'stderr.txt').read_text()}")
        self.url = json.loads(line)["url"]
        self.options["port"] = int(self.url.rpartition(":")[2])  # the same again after a kill

    def stop(self) -> int:
        """End it as a service manager does, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def client(self, name: str | None = None, **settings: Any) -> httpx.Client:
        """Return an HTTP client, signed in as somebody, that may send anything."""
        cookies = httpx.Cookies()
        if name is not None:
            body = {"token": self.tokens[name]}
            answer = httpx.post(f"{self.url}/api/session", json=body, headers=UNSAFE, timeout=60)
            if answer.status_code != 200:
                raise RuntimeError(answer.text)
            cookies = answer.cookies
        return httpx.Client(
            base_url=self.url, headers=UNSAFE, cookies=cookies, timeout=60, **settings
        )

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        code = process.wait(_STOP_SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return code


@contextmanager
def running_service(
    folder: Path,
    *,
    images: int | Sequence[bytes] = 3,
    people: Mapping[str, Role] | None = None,
    stage: Stage = "manual",
    model: str | None = None,
    review: bool = False,
    annotators_per_image: int = 1,
    proposals: Mapping[int, Sequence[MaskObject]] | None = None,
    url: str | None = None,
    schema: str = "maskwheel_annotation",
    models_folder: Path | None = None,
    **options: Any,
) -> Iterator[Service]:
    """Open a campaign in a new database and serve it.

    Args:
        folder: for photos, database and log.
        images: how many scenes to paint, or the photos' files.
        people: names and roles; by default ada and ben annotate, rita reviews, max is admin.
        stage: of the campaign.
        model: None, or ``"bundled"``.
        review: whether submissions are reviewed.
        annotators_per_image: as in the campaign.
        proposals: by position of the image.
        url: of the database; by default a SQLite file in the folder.
        schema: in PostgreSQL.
        models_folder: where exported decoders and embeddings are kept; by default the folder.
        options: lease_seconds, port, requests_per_second, request_burst, sign_ins_per_second,
            sign_in_burst, body_limits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = url or database_url(folder)
    files = [encode_png(scene(i)) for i in range(images)] if isinstance(images, int) else images
    model_id = _model_id(model)
    now = datetime.now(UTC)
    with open_database(address, schema=schema) as db:
        campaign = open_campaign(
            db,
            CampaignSpec(
                name="test",
                stage=stage,
                images=tuple(_stored(folder, i, data) for i, data in enumerate(files)),
                model=model or "none",
                model_id=model_id,
                instructions="Mask every box.",
                annotators_per_image=annotators_per_image,
                review=review,
            ),
            now=now,
        )
        image_ids = tuple(content_id(data)[0] for data in files)
        for position, objects in (proposals or {}).items():
            set_proposals(db, campaign.campaign_id, image_ids[position], objects)
        invited = people or {
            "ada": "annotator",
            "ben": "annotator",
            "rita": "reviewer",
            "max": "admin",
        }
        tokens = {name: invite(db, name, role, now=now).token for name, role in invited.items()}
    settings = {
        "folder": str(folder),
        "log": str(folder / "service.log"),
        "database_url": address,
        "schema": schema,
        "port": 0,
        "model": model,
        "models_folder": str(models_folder or folder),
        "lease_seconds": 120,
        "requests_per_second": 1000.0,
        "request_burst": 5000.0,
        "sign_ins_per_second": 100.0,
        "sign_in_burst": 1000.0,
        "body_limits": {},
    }
    service = Service(folder, {**settings, **options}, campaign, image_ids, tokens)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def _stored(folder: Path, number: int, data: bytes) -> CampaignImage:
    info = probe_image(data)
    path = folder / "photos" / f"{number:03d}.{info.format}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    image_id, _ = content_id(data)
    return CampaignImage(image_id=image_id, width=info.width, height=info.height, uri=str(path))


def _model_id(model: str | None) -> str:
    if model is None:
        return MODEL_ID
    from engine.learning.registry import built_in_version

    return built_in_version().model_id

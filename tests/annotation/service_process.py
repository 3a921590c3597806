"""The annotation service in a process of its own, for tests; see service.py.

    python -m tests.annotation.service_process OPTIONS.json        # ends with its standard input

Prints one line of JSON when it listens: {"url": ...}.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.annotation.database import Database, open_database
from engine.annotation.http.app import create_app
from engine.annotation.http.assembly import ServiceOptions, make_context
from engine.annotation.http.context import Rates
from engine.annotation.http.limits import BodyLimits, RateLimiter
from engine.annotation.http.serve import listen, run
from engine.images import ImageLimits

if TYPE_CHECKING:
    from engine.annotation.model_service import ModelService

__all__ = ["main"]


def main(options_file: Path) -> None:
    options: dict[str, Any] = json.loads(options_file.read_bytes())
    logging.basicConfig(filename=options["log"], level=logging.INFO)
    listener = listen("127.0.0.1", options["port"])
    url = listener.url("http")
    database = open_database(options["database_url"], schema=options["schema"])
    model = _model(options)
    sign_in = RateLimiter(options["sign_ins_per_second"], options["sign_in_burst"])
    context = make_context(
        database,
        ServiceOptions(
            public_url=url,
            work_folder=Path(options["folder"]),
            lease_seconds=options["lease_seconds"],
            workspace=options["folder"],
            limits=BodyLimits(**options["body_limits"]),
            rates=Rates(
                session=RateLimiter(options["requests_per_second"], options["request_burst"]),
                sign_in=sign_in,
            ),
        ),
        model=model,
        image_limits=ImageLimits(),
        announce=partial(logging.info, "announced: %r"),
        on_close=partial(_close, database, model),
    )
    threading.Thread(target=_end_with_input, daemon=True).start()
    run(
        create_app(context),
        listener,
        on_ready=lambda: print(json.dumps({"url": url}), flush=True),
    )


def _model(options: dict[str, Any]) -> ModelService | None:
    if options["model"] is None:
        return None
    from engine.annotation.model_service import ModelService
    from engine.objects import open_store

    folder = Path(options["models_folder"])
    return ModelService(open_store(folder / "store"), folder, device="cpu", threads=1)


def _close(database: Database, model: ModelService | None) -> None:
    if model is not None:
        model.close()
    database.close()


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

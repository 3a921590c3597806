"""Files for people: pictures, pages and lists that appear whole or not at all.

write_atomically(Path("report.html"), page.encode())
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

from engine.errors import BadInputError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, creating its folders, replacing an old one.

    Raises:
        BadInputError: a path that cannot be written.
    """
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be written: {error}; name a file in a folder that you may write to"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

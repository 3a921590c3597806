"""The page: files that `make web` built, served with the right types, compressed once.

    page = StaticPage(folder_of_page())
    response = page.answer("assets/index-Bi9xC0dp.js", request.headers)

A path that leads out of the folder does not exist; neither do folders. Names below ``assets/``
hold a hash of the content, so browsers keep them for good; everything else is asked about again.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from starlette.responses import Response

from engine.annotation.http.caching import IMMUTABLE, REVALIDATE, is_known, not_modified

__all__ = ["MEDIA_TYPES", "PAGE_PATHS", "StaticPage", "folder_of_page"]

# The machine's own table may lack the last ones, and a module of another type does not run.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_COMPRESSED = frozenset({".css", ".html", ".js", ".json", ".mjs", ".svg", ".wasm", ".webmanifest"})
# Addresses of the page's own views: all are index.html.
PAGE_PATHS = ("annotate", "review", "lead", "join")

_NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Maskwheel</title></head>
<body style="font-family: sans-serif; margin: 3rem; max-width: 40rem">
<h1>The annotation page is not built</h1>
<p>The service runs, and so does its <a href="/api/docs">API</a>. To build the page, in a checkout
of Maskwheel:</p><pre>make web</pre><p>and reload. (Installed packages bring the page along.)</p>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class _File:
    stamp: tuple[int, int]
    data: bytes
    compressed: bytes | None
    etag: str


class StaticPage:
    """The built page in a folder; files are kept in memory until they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._kept: dict[Path, _File] = {}
        self._lock = threading.Lock()

    def answer(self, path: str, headers: Mapping[str, str]) -> Response | None:
        """Return the response for a path without its first slash; None: there is no such file."""
        view = path.partition("/")[0]
        is_view = path == "" or view in PAGE_PATHS
        found = self._find("index.html" if is_view else path)
        if found is None:
            return self._not_built() if is_view else None
        caching = IMMUTABLE if path.startswith("assets/") else REVALIDATE
        file = self._read(found)
        suffix = found.suffix.lower()
        answer_headers = {"ETag": file.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
        if is_known(file.etag, headers):
            return not_modified(answer_headers)
        data = file.data
        if file.compressed is not None and "gzip" in headers.get("accept-encoding", ""):
            data = file.compressed
            answer_headers["Content-Encoding"] = "gzip"
        media_type = MEDIA_TYPES.get(suffix, "application/octet-stream")
        return Response(data, headers=answer_headers, media_type=media_type)

    def _find(self, path: str) -> Path | None:
        parts = PurePosixPath(path).parts
        if "\\" in path or "\0" in path or any(part.startswith((".", "/")) for part in parts):
            return None
        found = (self._folder / path).resolve()
        # Links out of the folder lead out of it too.
        return found if found.is_relative_to(self._folder) and found.is_file() else None

    def _read(self, path: Path) -> _File:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        with self._lock:
            kept = self._kept.get(path)
            if kept is None or kept.stamp != stamp:
                data = path.read_bytes()
                # mtime=0: the same file gives the same bytes.
                compressed = (
                    gzip.compress(data, 6, mtime=0) if path.suffix.lower() in _COMPRESSED else None
                )
                etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
                kept = self._kept[path] = _File(stamp, data, compressed, etag)
        return kept

    def _not_built(self) -> Response:
        return Response(_NOT_BUILT, 503, media_type="text/html")


def folder_of_page() -> Path:
    """Return where the built page is, in a checkout or an installed package."""
    return Path(str(resources.files("engine.annotation"))) / "web" / "dist"

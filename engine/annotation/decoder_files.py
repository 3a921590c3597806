"""Where exported decoders are, and what they say of themselves; exported once per model.

    folder = find_decoder_files(local_folder, model_id) or export_decoder_files(sam, local_folder)
    description = read_description(folder)

Reading needs no torch.
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import WorkspaceError

if TYPE_CHECKING:
    from model import Sam

__all__ = [
    "DESCRIPTION_FILE",
    "EXPORT_VERSION",
    "DecoderDescription",
    "export_decoder_files",
    "find_decoder_files",
    "read_description",
]

DESCRIPTION_FILE = "decoder.json"
# Part of the folder's name: raise it when the graphs change, so that old files are not used again.
EXPORT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderDescription:
    """What whoever runs a decoder needs to know; see `model.export.DecoderFiles`.

    Attributes:
        model_id: of the model that it was made from.
        image_size: long side of the model's input in pixels.
        pad_multiple: the input's sides are padded to a multiple of this.
        low_res_stride: input pixels per pixel of the logits.
        inputs: names of an embedding's tensors.
        prepare: file that runs once per image.
        decode: file that runs once per prompt.
    """

    model_id: str
    image_size: int
    pad_multiple: int
    low_res_stride: int
    inputs: tuple[str, ...]
    prepare: Path
    decode: Path


def find_decoder_files(local_folder: Path, model_id: str) -> Path | None:
    """Return the folder of a model's exported decoder, or None before it was exported."""
    folder = _folder(local_folder, model_id)
    return folder if (folder / DESCRIPTION_FILE).is_file() else None


def export_decoder_files(sam: Sam, local_folder: Path, model_id: str | None = None) -> Path:
    """Export a model's decoder unless it was; any number of processes may do so at once.

    Args:
        sam: the model.
        local_folder: what is of this machine only, see `Workspace.local_folder`.
        model_id: of the model, where it is known; else it is computed.

    Raises:
        WorkspaceError: the folder cannot be written.
    """
    from model.export import export_decoder

    folder = _folder(local_folder, model_id or sam.model_id())
    if (folder / DESCRIPTION_FILE).is_file():
        return folder
    partial = folder.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        export_decoder(sam, partial)
        with suppress(OSError):  # another process was first: its files are as good
            partial.rename(folder)
    except OSError as error:
        raise WorkspaceError(f"the decoder cannot be written to {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not (folder / DESCRIPTION_FILE).is_file():
        raise WorkspaceError(f"{folder} holds something else than a decoder; remove it")
    return folder


def read_description(folder: Path) -> DecoderDescription:
    """Read what a decoder says of itself.

    Raises:
        WorkspaceError: the folder holds no exported decoder.
    """
    path = folder / DESCRIPTION_FILE
    try:
        fields = json.loads(path.read_bytes())
        return DecoderDescription(
            model_id=str(fields["model_id"]),
            image_size=int(fields["image_size"]),
            pad_multiple=int(fields["pad_multiple"]),
            low_res_stride=int(fields["low_res_stride"]),
            inputs=tuple(str(item["name"]) for item in fields["inputs"]),
            prepare=folder / fields["files"]["prepare"]["name"],
            decode=folder / fields["files"]["decode"]["name"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{path} describes no decoder ({error!r}); remove {folder}, and it is exported anew"
        ) from error


def _folder(local_folder: Path, model_id: str) -> Path:
    return local_folder / "decoders" / f"{model_id}-v{EXPORT_VERSION}"

"""Where the model versions of a workspace lie; for who reads their records and no weights.

    for version in registered_versions(store): print(version.name, version.origin.trained_on)

It needs no torch; `engine.learning.registry` makes and loads versions.
"""

from __future__ import annotations

from pydantic import TypeAdapter

from engine.learning.version_files import VersionFiles
from engine.objects import ObjectStore
from engine.records import ModelVersion

__all__ = ["BUILT_IN", "MODEL_FILES", "registered_versions"]

BUILT_IN = "bundled"
MODEL_FILES = VersionFiles("models", "m", TypeAdapter(ModelVersion))


def registered_versions(store: ObjectStore) -> list[ModelVersion]:
    """Return the versions that were registered, oldest first, without the built-in model.

    Raises:
        WorkspaceError: a record is damaged.
    """
    return MODEL_FILES.versions(store)

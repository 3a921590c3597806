"""The policy of a workspace: ``policy.toml`` in its store, with a line of words for each value.

    policy = load_policy(store)                          # the workspace's; else the preset "small"
    init_policy(store, "paper")                          # writes the file, unless there is one

A file may leave values out; they are its preset's. What nobody knows is refused with the nearest
name, as a typo would otherwise be a policy that nobody wanted.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_type_hints

from engine.errors import BadInputError, MissingObjectError, WorkspaceError
from engine.objects import ObjectStore
from engine.wheel.policy_values import (
    PRESETS,
    SOURCES,
    WORDS,
    AuditPolicy,
    AutomaticPolicy,
    Policy,
    ReleasePolicy,
    RetrainingPolicy,
    SemiPolicy,
    StagePolicy,
)

__all__ = [
    "POLICY_FILE",
    "PRESETS",
    "AuditPolicy",
    "AutomaticPolicy",
    "Policy",
    "ReleasePolicy",
    "RetrainingPolicy",
    "SemiPolicy",
    "StagePolicy",
    "find_policy",
    "init_policy",
    "load_policy",
    "parse_policy",
    "policy_text",
]

POLICY_FILE = "policy.toml"
_WIDTH = 98


def find_policy(store: ObjectStore) -> Policy | None:
    """Return the workspace's own policy; None: it has none, and nothing turns by itself.

    Raises:
        BadInputError: the file cannot be used; the message has the key's path.
    """
    try:
        text = store.get(POLICY_FILE)
    except MissingObjectError:
        return None
    return parse_policy(text.decode(errors="replace"), store.uri(POLICY_FILE))


def load_policy(store: ObjectStore, name: str | None = None) -> Policy:
    """Return a policy by name.

    Args:
        store: of the workspace.
        name: a preset, or the path of a TOML file; None: the workspace's own, or ``"small"``.

    Raises:
        BadInputError: there is none of that name, or a file that cannot be used.
    """
    if name is None:
        return find_policy(store) or PRESETS["small"]
    if name in PRESETS:
        return PRESETS[name]
    try:
        text = Path(name).read_text()
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"got the policy {name!r}; expected {' or '.join(PRESETS)}, or the path of a TOML file "
            f"({error})"
        ) from error
    return parse_policy(text, name)


def init_policy(store: ObjectStore, preset: str = "small", *, images: int | None = None) -> bool:
    """Write a preset as the workspace's policy, for people to edit; return whether it was missing.

    Args:
        store: of the workspace.
        preset: its name.
        images: that the workspace has: the stages are made small enough for them.

    Raises:
        BadInputError: an unknown preset.
        WorkspaceError: the store cannot be written.
    """
    policy = _preset(preset, "preset")
    if images is not None:
        policy = policy.fitted_to(images)
    return store.put_if_absent(POLICY_FILE, policy_text(policy).encode())


def parse_policy(text: str, where: str = POLICY_FILE) -> Policy:
    """Read a policy; what is left out is its preset's.

    Args:
        text: TOML.
        where: it comes from, for messages.

    Raises:
        BadInputError: no TOML, an unknown key, or a value that does not fit, with the key's path.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{where}: {error}") from error
    base = _preset(table.get("preset", "small"), f"{where}: preset")
    return cast(Policy, _merged(base, table, where, ""))


def policy_text(policy: Policy) -> str:
    """Return a policy as TOML, with the words for each value; `parse_policy` gives it back."""
    lines = [
        "# How the wheel of this workspace turns. The data engine reads it at every look, so a",
        "# change counts from the next one on. `maskwheel policy check` says whether it can.",
        "",
        *_lines(policy, SOURCES.get(policy.preset, {}), ""),
    ]
    return "\n".join(lines) + "\n"


def _preset(name: object, where: str) -> Policy:
    if not isinstance(name, str) or name not in PRESETS:
        raise BadInputError(f"{where}: got {name!r}; expected {' or '.join(PRESETS)}")
    return PRESETS[name]


def _merged(base: object, table: Mapping[str, Any], where: str, path: str) -> object:
    """Return a value with what a table gives instead."""
    # A dataclass of ours: `fields` gives its values, type hints say what they may be.
    hints = get_type_hints(type(base))
    known = {item.name: item for item in fields(cast(Any, base))}
    changes: dict[str, object] = {}
    for key, given in table.items():
        here = f"{path}{key}"
        if key not in known:
            raise BadInputError(f"{where}: {here}: {_unknown(key, known)}")
        old = getattr(base, key)
        if is_dataclass(old):
            if not isinstance(given, dict):
                raise BadInputError(f"{where}: {here}: got {given!r}; expected a table [{here}]")
            changes[key] = _merged(old, given, where, f"{here}.")
        else:
            changes[key] = _checked(given, hints[key], f"{where}: {here}")
    try:
        return replace(cast(Any, base), **changes)
    except BadInputError as error:
        raise BadInputError(f"{where}: {path}{error}") from error


def _unknown(key: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(key, known, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no such value; {guess}known here: {', '.join(known)}"


def _checked(given: object, hint: object, where: str) -> object:
    """Return a value of TOML as the field's type wants it."""
    wanted = _expected(hint)
    if wanted == "true or false" and isinstance(given, bool):
        return given
    if isinstance(given, bool):
        raise BadInputError(f"{where}: got {str(given).lower()}; expected {wanted}")
    if wanted == "a whole number" and isinstance(given, int):
        return given
    if wanted == "a number" and isinstance(given, int | float):
        return float(given)
    if wanted == "text" and isinstance(given, str):
        return given
    is_list = isinstance(given, list) and all(isinstance(item, str) for item in given)
    if wanted == "a list of texts" and is_list:
        return tuple(cast(list[str], given))
    raise BadInputError(f"{where}: got {given!r}; expected {wanted}")


def _expected(hint: object) -> str:
    of = [item for item in get_args(hint) if item is not NoneType]
    if bool in (hint, *of):
        return "true or false"
    if int in (hint, *of):
        return "a whole number"
    if hint is float:
        return "a number"
    return "a list of texts" if str in of and Ellipsis in of else "text"


def _lines(values: object, sources: Mapping[str, str], path: str) -> Iterator[str]:
    items = fields(cast(Any, values))
    for item in items:
        value = getattr(values, item.name)
        if not is_dataclass(value):
            yield from _line(item, value)
    for item in items:
        value = getattr(values, item.name)
        if is_dataclass(value):
            yield f"[{path}{item.name}]"
            yield from _wrapped(f"{item.metadata[WORDS]} {sources.get(item.name, '')}")
            yield ""
            yield from _lines(value, {}, f"{path}{item.name}.")


def _line(item: Field[Any], value: object) -> Iterator[str]:
    yield from _wrapped(item.metadata[WORDS])
    yield f"{item.name} = {_toml(value)}" if value is not None else f"# {item.name} ="
    yield ""


def _wrapped(words: str) -> Iterator[str]:
    line = "#"
    for word in words.split():
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = "#"
        line = f"{line} {word}"
    yield line


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:_}" if isinstance(value, int) and value >= 10_000 else repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for one character that JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    raise WorkspaceError(f"a policy cannot hold {value!r}")

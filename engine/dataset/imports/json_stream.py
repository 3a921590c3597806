"""A JSON object of any size, read array by array without holding it.

    for value in iter_array(stream, "annotations"): ...

For files like COCO's: an object whose large members are arrays. Reading costs the whole file, also
for a small array; memory is one element and a buffer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TextIO

from engine.errors import BadInputError

__all__ = ["iter_array", "read_members"]

_CHUNK = 1 << 20
_MAX_ELEMENT = 1 << 28
_AFTER_A_VALUE = tuple(" \t\r\n,:]}")
_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


def iter_array(stream: TextIO, name: str) -> Iterator[object]:
    """Yield the elements of a member that is an array; nothing when it is absent.

    Args:
        stream: at its beginning.
        name: of the member of the outermost object.

    Raises:
        BadInputError: the text is not a JSON object, or the member is no array.
    """
    for member, value in _walk(stream, {name}):
        if member == name:
            yield value


def read_members(stream: TextIO, names: set[str]) -> dict[str, object]:
    """Return members of the outermost object whole: for the small ones; arrays become lists.

    Raises:
        BadInputError: the text is not a JSON object.
    """
    members = _walk(stream, names, whole=True)
    return {name: value for name, value in members if name in names}


def _walk(stream: TextIO, wanted: set[str], *, whole: bool = False) -> Iterator[tuple[str, object]]:
    """Yield (member, element) of wanted arrays, or (member, value) of wanted members."""
    text = _Text(stream)
    text.expect("{")
    if text.peek() == "}":
        return
    while True:
        name = text.value()
        if not isinstance(name, str):
            raise text.error("a name in quotes")
        text.expect(":")
        if text.peek() == "[" and not (whole and name in wanted):
            for element in _elements(text):
                if name in wanted:
                    yield name, element
        elif name in wanted and not whole:
            raise BadInputError(f"the member {name!r} is no array; expected a list of objects")
        else:
            yield name, text.value()
        if text.expect(",}") == "}":
            return


def _elements(text: _Text) -> Iterator[object]:
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
        return
    while True:
        yield text.value()
        if text.expect(",]") == "]":
            return


class _Text:
    """A window that moves over the text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer = ""
        self._at = 0
        self._before = 0  # characters that have left the buffer
        self._ended = False

    def peek(self) -> str:
        """Return the next character that is not a space; "" at the end."""
        while True:
            found = _SPACE.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def expect(self, characters: str) -> str:
        """Step over one of these characters."""
        found = self.peek()
        if not found or found not in characters:
            raise self.error(" or ".join(map(repr, characters)))
        self._at += 1
        return found

    def value(self) -> object:
        """Step over a whole value, and return it."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self.error(f"a JSON value ({error.msg})") from error
                continue
            except RecursionError as error:
                raise self.error("a value that is not nested so deep") from error
            # A number may go on in what is not read yet: "-7" is all that "-7." holds so far.
            if self._buffer[end : end + 1] not in _AFTER_A_VALUE and self._more():
                continue
            self._at = end
            return value

    def error(self, expected: str) -> BadInputError:
        """Describe what is there instead of what was expected."""
        got = self._buffer[self._at : self._at + 20]
        return BadInputError(
            f"character {self._before + self._at}: got {got!r}, expected {expected}; the file is "
            "cut or not JSON"
        )

    def _more(self) -> bool:
        """Read on; twice as much each time that one element does not fit."""
        held = len(self._buffer) - self._at
        if self._ended or held > _MAX_ELEMENT:
            return False
        chunk = self._stream.read(max(_CHUNK, held))
        self._ended = not chunk
        self._before += self._at
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
        return not self._ended

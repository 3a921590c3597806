"""JSON read array by array: the same values as `json.loads`, wherever the text is cut."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset.imports.json_stream import iter_array, read_members
from engine.errors import BadInputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


class Dripping(io.StringIO):
    """A stream that gives a few characters at a time, whatever is asked for."""

    def __init__(self, text: str, size: int) -> None:
        super().__init__(text)
        self._size = size

    def read(self, size: int | None = -1) -> str:
        return super().read(self._size)


@settings(max_examples=40)
@given(OBJECTS, st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_an_array_is_what_json_reads(
    others: dict[str, Any], wanted: list[Any], size: int, indent: int | None
) -> None:
    text = json.dumps({**others, "wanted": wanted, "last": 12}, indent=indent)
    assert list(iter_array(Dripping(text, size), "wanted")) == wanted
    assert read_members(Dripping(text, size), {"wanted", "a", "last"}) == {
        name: value for name, value in json.loads(text).items() if name in ("wanted", "a", "last")
    }
    assert list(iter_array(Dripping(text, size), "absent")) == []


@settings(max_examples=40)
@given(OBJECTS, st.data())
def test_a_text_that_is_cut_is_an_error(content: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(content)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(BadInputError, match="cut or not JSON"):
        read_members(Dripping(cut, 3), {"a"})


@pytest.mark.parametrize(
    "text", ["[1]", "7", '{"a" 1}', '{"a": [1 2]}', "{1: 2}", '{"a": 1;}', '{"a": ' + "[" * 99999]
)
def test_what_is_no_json_object_is_an_error(text: str) -> None:
    with pytest.raises(BadInputError):
        list(iter_array(io.StringIO(text), "b"))


def test_a_wanted_member_that_is_no_array_is_an_error() -> None:
    with pytest.raises(BadInputError, match="no array"):
        list(iter_array(io.StringIO('{"images": {"1": 2}}'), "images"))

"""64 bits for each row of a table: rows with the same values, and practically no others, agree.

    digests_R = digest_rows(rows)          # uint64, the same in every process

Two rows are compared without having both at hand: what is kept of a mask is 8 bytes, not its run
lengths. Different rows agree by accident once in 2**64.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["digest_rows"]

_Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_NOTHING = np.uint64(0xD1B54A32D192ED03)


def digest_rows(rows: pa.Table) -> _Words:
    """Return a digest of each row; names and order of the columns count.

    Takes columns of integers, floats, times, text, and of lists of these; null is a value of its
    own, and floats count by their bits.
    """
    digests = np.zeros(rows.num_rows, np.uint64)
    for name in rows.column_names:
        values = _digest_values(rows[name].combine_chunks())
        digests = _mix(digests + _STEP + _digest_text(name.encode()) ^ values)
    return digests


def _digest_values(values: pa.Array) -> _Words:
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        digests = _digest_lists(values)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoded = values.dictionary_encode()
        texts = encoded.dictionary.cast(pa.large_binary()).to_pylist()
        words = np.array([_digest_text(text) for text in texts] or [_NOTHING], np.uint64)
        digests = words[encoded.indices.fill_null(0).to_numpy()]
    else:
        digests = _mix(_bits(values))
    if values.null_count:
        digests = np.where(pc.is_null(values).to_numpy(zero_copy_only=False), _NOTHING, digests)
    return digests


def _bits(values: pa.Array) -> _Words:
    """The values as 64 bits each; anything where there is none."""
    if pa.types.is_floating(values.type):
        floats: NDArray[np.float64] = (
            values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        )
        return floats.view(np.uint64)
    longs: NDArray[np.int64] = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return longs.view(np.uint64)


def _digest_lists(values: pa.Array) -> _Words:
    """Sum up the items of each list, each mixed with its position, and the list's length."""
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths.astype(np.int64))
    starts = ends - lengths
    items = _digest_values(pc.list_flatten(values))
    positions = np.arange(len(items)) - np.repeat(starts, lengths)
    mixed = _mix(items ^ _mix(positions.astype(np.uint64)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
    return _mix(sums[ends] - sums[starts] + lengths.astype(np.uint64))


def _digest_text(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def _mix(words: _Words) -> _Words:
    """Spread every bit over all 64 (splitmix64's finaliser)."""
    words = words + _STEP
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))

"""The rates that `engine.dataset.capacity` predicts with, each with its source.

    RATES["bytes_per_mask"].value

A measured rate has a row in tests/benchmarks/RESULTS.md; the others are assumptions, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["RATES", "Rate"]

_SCALE_ROW = "tests/benchmarks/RESULTS.md, Scale"


@dataclass(frozen=True, slots=True)
class Rate:
    """A number that a prediction rests on.

    Attributes:
        name: what it is called in `predict` and, with dashes, as an option.
        value: in `unit`.
        unit: e.g. ``"s"`` or ``"bytes"``.
        what: one line for a person.
        source: where it was measured, or what the assumption is.
        measured: whether there is a benchmark row for it.
    """

    name: str
    value: float
    unit: str
    what: str
    source: str
    measured: bool


_ALL_RATES = (
    Rate(
        "seconds_per_image",
        2.2,
        "s",
        "of one GPU for one image",
        "vit_h and the paper's crops: 21 encodings and 3,072 points are 136 TFLOP, 1.1 s at 40 % "
        "of an A100's bf16, and as much again for the masks; `maskwheel auto` prints your own",
        False,
    ),
    Rate(
        "ingest_images_per_second",
        160,
        "images/s",
        "read and hashed before anything is masked",
        "8 readers (MASKWHEEL_READ_THREADS) of a bucket, 50 ms for each image",
        False,
    ),
    Rate("image_bytes", 900_000, "bytes", "of an image's file", "a JPEG of 1500x2250", False),
    Rate(
        "bytes_per_mask",
        345,
        "bytes",
        "of a mask in Parquet, its run lengths 800 bytes",
        "tests/benchmarks/RESULTS.md, Data set",
        True,
    ),
    Rate("bytes_per_image_row", 60, "bytes", "of an image in its two tables", _SCALE_ROW, True),
    Rate("bytes_per_file_entry", 490, "bytes", "of a file's entry in a manifest", _SCALE_ROW, True),
    Rate(
        "seconds_per_release",
        0.5,
        "s",
        "to stage, tag and move tables, once per run; a bucket adds its waiting",
        _SCALE_ROW,
        True,
    ),
    Rate(
        "seconds_per_listed_file",
        0.0001,
        "s",
        "to read a file's entry; a release lists all files",
        _SCALE_ROW,
        True,
    ),
    Rate(
        "audit_bytes_per_second",
        200e6,
        "bytes/s",
        "at which the committer hashes new files",
        "8 readers of a bucket",
        False,
    ),
    Rate("price_gpu_hour", 2.5, "USD", "for a GPU", "an A100 in a public cloud", False),
    Rate(
        "price_gb_month",
        0.023,
        "USD",
        "for a gigabyte stored, per month",
        "list price of S3 Standard",
        False,
    ),
    Rate(
        "price_million_reads",
        0.40,
        "USD",
        "for a million reads of a bucket",
        "list price of S3 Standard",
        False,
    ),
)
RATES: Mapping[str, Rate] = {rate.name: rate for rate in _ALL_RATES}
"""The rates by name, with their default values."""

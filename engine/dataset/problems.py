"""What is wrong with a release: counted all, described some.

found = Problems(shown=100)
found.add("checksum", "runs/a/masks-00000.parquet", None, "sha256 ...")
found.total, found.most_frequent()[0].kind, found.kept[0].message
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.row_checks import Fault

__all__ = ["Problem", "ProblemCount", "Problems"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a release.

    Attributes:
        kind: the rule that is broken, one word.
        file: object key of the file that it is in; the release's record where it is in none.
        row: position in the file from 0; None when it concerns the whole file.
        message: one sentence for a person.
    """

    kind: str
    file: str
    row: int | None
    message: str


@dataclass(frozen=True, slots=True)
class ProblemCount:
    """How often one rule is broken."""

    kind: str
    count: int


class Problems:
    """Counts all problems and keeps the first ones.

    Attributes:
        shown: at most so many are kept.
        kept: the first ones, in the order in which they were added.
    """

    def __init__(self, shown: int) -> None:
        self.shown = shown
        self._counts = Counter[str]()
        self.kept: list[Problem] = []

    @property
    def total(self) -> int:
        """The number of all problems."""
        return self._counts.total()

    def most_frequent(self) -> tuple[ProblemCount, ...]:
        """Return how many there are of each kind, the most frequent first."""
        return tuple(ProblemCount(kind, count) for kind, count in self._counts.most_common())

    def add(self, kind: str, file: str, row: int | None, message: str) -> None:
        """Add one problem; arguments as in `Problem`."""
        self._counts[kind] += 1
        if len(self.kept) < self.shown:
            self.kept.append(Problem(kind, file, row, message))

    def add_all(self, faults: Iterable[Fault], file: str, rows_N: NDArray[np.int64]) -> None:
        """Add the faults of rows that stand at `rows_N` in their file."""
        for fault in faults:
            self._counts[fault.kind] += len(fault.rows)
            for row in fault.rows[: self.shown - len(self.kept)].tolist():
                message = fault.describe(row)
                self.kept.append(Problem(fault.kind, file, int(rows_N[row]), message))

    def join(self, other: Problems) -> None:
        """Add all that others have found."""
        self._counts.update(other._counts)
        self.kept += other.kept[: self.shown - len(self.kept)]

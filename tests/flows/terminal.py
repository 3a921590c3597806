"""The command line in this process: what it prints, what it says on standard error, how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main


class Terminal:
    """Runs ``maskwheel``, or one of its groups, on a workspace.

    Attributes:
        workspace: what MASKWHEEL_WORKSPACE says.
        err: what the last call wrote on standard error.
    """

    def __init__(
        self, workspace: Path, capture: pytest.CaptureFixture[str], group: tuple[str, ...] = ()
    ) -> None:
        self.workspace = workspace
        self.err = ""
        self._capture = capture
        self._words = ["maskwheel", *group]

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [*self._words, *map(str, arguments)])
            patch.setenv("MASKWHEEL_WORKSPACE", str(self.workspace))
            patch.delenv("PREFECT_API_URL", raising=False)
            with pytest.raises(SystemExit) as ended:
                main()
        out, self.err = self._capture.readouterr()
        assert (ended.value.code or 0) == code, self.err
        return out

    def json(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self(*arguments, "--json", code=code))
        return answer

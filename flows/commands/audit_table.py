"""What the audit of a run found, as a table on the terminal: `with explained_refusals(address)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.dataset.audit_reports import GateReport

__all__ = ["explained_refusals", "print_report"]


@contextmanager
def explained_refusals(address: str, *, quiet: bool = False) -> Iterator[None]:
    """Print the checks of what is refused inside, on standard error, unless `quiet`."""
    from engine.dataset.audit_reports import load_reports
    from engine.dataset.catalog import Workspace
    from engine.errors import RefusedError

    try:
        yield
    except RefusedError as error:
        if not quiet:
            with Workspace.open(address, create=False) as opened:
                for commit_id in error.commit_ids:
                    for report in load_reports(opened.store, commit_id)[-1:]:
                        print_report(report)
        raise


def print_report(report: GateReport) -> None:
    """Print a report's checks on standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "passed", "found", title=f"{report.commit_id}, for {report.release}")
    for check in report.checks:
        passed = "yes" if check.passed else "[red]NO[/red]"
        table.add_row(check.name, passed, check.detail)
    console = Console(stderr=True)
    console.print(table)
    console.print(
        f"{report.sampled_masks:,} masks from {report.sampled_files} of {report.files} files read"
    )

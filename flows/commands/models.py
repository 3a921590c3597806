"""`maskwheel models`: the models of a workspace, and which of them is the champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli import EXIT_PARTLY_DONE
from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from engine.dataset.labelled_sets import LabelledSet
    from engine.learning.measurement import Measured
    from engine.records import ComparedRow, ModelVersion, PromotionDecision
    from model import Sam

_PIPE_COLUMNS = 200


@click.group("models")
def command() -> None:
    """List models, and decide which one is the champion: what `--model champion` means.

    Every training and every import is a version that never changes. The model that ships with
    Maskwheel is the version "bundled", and the champion until another one is promoted.
    """


@command.command("list", epilog="\b\nExample:\n  maskwheel models list -w birds")
@workspace_option
@json_option
def list_command(workspace: str | None, as_json: bool) -> None:
    """List the models, oldest first."""
    from engine.dataset.catalog import Workspace
    from engine.learning.decisions import read_log
    from engine.learning.registry import list_versions

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        versions, log = list_versions(opened.store), read_log(opened.store)
    if as_json:
        print_json(
            {
                "champion": log.champion,
                "models": [asdict(version) for version in versions],
                "decisions": [asdict(decision) for decision in log.decisions],
            }
        )
        return
    _show_versions(versions, log.champion)
    if log.decisions:
        click.echo(_sentence(log.decisions[-1]))


@command.command("show", epilog="\b\nExample:\n  maskwheel models show champion")
@click.argument("name")
@workspace_option
@json_option
def show_command(name: str, workspace: str | None, as_json: bool) -> None:
    """Show where model NAME comes from and what was decided about it."""
    from engine.dataset.catalog import Workspace
    from engine.learning.decisions import read_log, resolve

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        version, log = resolve(opened.store, name), read_log(opened.store)
    about = [d for d in log.decisions if version.name in (d.candidate, d.previous_champion)]
    if as_json:
        decisions = [asdict(decision) for decision in about]
        is_champion = log.champion == version.name
        print_json({**asdict(version), "is_champion": is_champion, "decisions": decisions})
        return
    _show_version(version, is_champion=log.champion == version.name)
    for decision in about:
        click.echo()
        _show_decision(decision)


@command.command(
    "promote",
    epilog="""\b
Examples:
  maskwheel models promote m2 --data birds/annotations.json --split val
  maskwheel models promote m2 --data birds.json --data coco.json --hold-out 40
  maskwheel models promote m2 --data birds.json --force "the new camera"

The first --data counts: there one click must be better by more than --margin, and more than by
luck. On all of them, clicks and boxes may not be worse by more than --tolerance.
Exit code 4: refused; the champion stays, and the decision says why.""",
)
@click.argument("name")
@click.option(
    "--data", required=True, multiple=True, help="COCO file or release to compare on; any number."
)
@click.option("--split", help="Only images of this split, in sets that know splits.")
@click.option(
    "--hold-out",
    type=click.IntRange(1),
    help="Only so many evenly spaced images: those that a training with --hold-out left out.",
)
@click.option(
    "--margin", type=float, default=0.5, show_default=True, help="Points of mIoU to be better by."
)
@click.option(
    "--tolerance", type=float, default=1.0, show_default=True, help="Points it may be worse by."
)
@click.option(
    "--masks-per-image", type=click.IntRange(0), default=10, show_default=True, help="0: all."
)
@click.option("--force", metavar="REASON", help="Promote in spite of the numbers.")
@click.option("--note", default="", help="Why; goes into the record.")
@click.option("--by", help="Who decides.  [default: the user's name]")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@workspace_option
@json_option
def promote_command(
    name: str,
    data: tuple[str, ...],
    split: str | None,
    hold_out: int | None,
    margin: float,
    tolerance: float,
    masks_per_image: int,
    force: str | None,
    note: str,
    by: str | None,
    device: str | None,
    workspace: str | None,
    as_json: bool,
) -> int:
    """Make model NAME the champion if it is better than the present one, and nowhere worse."""
    from engine.config import current_time
    from engine.dataset.catalog import Workspace
    from engine.evaluation.sets import evaluation_sets
    from engine.learning.promotion import GateConfig, promote
    from flows.events import announce

    if force is not None and not force.strip():
        raise click.BadParameter(
            "expected a reason, which goes into the record", param_hint="--force"
        )
    config = GateConfig(margin=margin / 100, tolerance=tolerance / 100)
    with Workspace.open(workspace_address(workspace), create=False) as opened:
        sets = evaluation_sets(data, opened, split, hold_out)
        decision = promote(
            opened.store,
            name,
            lambda sam: _measure(sam, sets, masks_per_image),
            config,
            by=by or _user(),
            now=current_time(),
            note=force or note,
            force=force is not None,
            device=device,
            announce=announce,
        )
    if as_json:
        print_json(asdict(decision))
    else:
        _show_decision(decision)
    return EXIT_PARTLY_DONE if decision.outcome == "refused" else 0


@command.command(
    "rollback",
    epilog="""\b
Examples:
  maskwheel models rollback --note "fails on night photos"
  maskwheel models rollback m1""",
)
@click.argument("name", required=False)
@click.option("--note", default="", help="Why; goes into the record.")
@click.option("--by", help="Who decides.  [default: the user's name]")
@workspace_option
@json_option
def rollback_command(
    name: str | None, note: str, by: str | None, workspace: str | None, as_json: bool
) -> None:
    """Make an earlier champion, or model NAME, champion again.

    Nothing is removed: it is one more decision, and the model can be promoted again.
    """
    from engine.config import current_time
    from engine.dataset.catalog import Workspace
    from engine.learning.promotion import roll_back
    from flows.events import announce

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        decision = roll_back(
            opened.store,
            name,
            by=by or _user(),
            now=current_time(),
            note=note,
            announce=announce,
        )
    if as_json:
        print_json(asdict(decision))
    else:
        click.echo(_sentence(decision))


@command.command(
    "import",
    epilog="""\b
Examples:
  maskwheel models import sam_vit_b_01ec64.pth
  maskwheel auto photos/ --model m1""",
)
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@workspace_option
@json_option
def import_command(checkpoint: Path, workspace: str | None, as_json: bool) -> None:
    """Make a version of CHECKPOINT: an official SAM .pth, or .safetensors."""
    from engine.config import current_time
    from engine.dataset.catalog import Workspace
    from engine.learning.registry import import_checkpoint

    with Workspace.open(workspace_address(workspace)) as opened:
        version = import_checkpoint(opened.store, checkpoint, now=current_time())
    if as_json:
        print_json(asdict(version))
    else:
        click.echo(f"{version.name}: {version.model_id}, from {checkpoint}")


def _measure(sam: Sam, sets: Sequence[LabelledSet], masks_per_image: int) -> tuple[Measured, ...]:
    from dataclasses import replace

    from engine.evaluation.labelled import Selection
    from engine.learning.measurement import GATE_PROMPTS, measure
    from flows.commands.progress_bar import ProgressBar

    prompts = replace(GATE_PROMPTS, selection=Selection(masks_per_image=masks_per_image))
    with ProgressBar() as bar:
        bar.stage("measuring", sum(len(one) for one in sets))
        return measure(sam, sets, prompts, on_image=bar.image)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"


def _console() -> Console:
    """Tables keep their full width where no terminal limits it: in files and pipes."""
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)


def _table(*headers: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _show_versions(versions: list[ModelVersion], champion: str) -> None:
    table = _table("", "model", "created", "model id", "from", "trained on", "MB")
    for version in versions:
        origin = version.origin
        table.add_row(
            "*" if version.name == champion else "",
            version.name,
            f"{version.created_at:%Y-%m-%d %H:%M}" if version.created_at else "",
            version.model_id,
            origin.source or origin.parent or origin.kind,
            ", ".join(origin.trained_on),
            f"{version.size_bytes / 1e6:.0f}",
        )
    _console().print(table)


def _show_version(version: ModelVersion, *, is_champion: bool) -> None:
    fields = {
        "model": version.name + (" (champion)" if is_champion else ""),
        "model id": version.model_id,
        "weights": f"sha256 {version.sha256}, {version.size_bytes / 1e6:.1f} MB",
        "created": version.created_at,
        **{key.replace("_", " "): value for key, value in asdict(version.origin).items()},
        **{m.row: f"{100 * m.mean_iou:.1f} (on {m.fingerprint})" for m in version.metrics},
        "config": version.config_json,
    }
    for key, value in fields.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        if shown not in (None, ""):
            click.echo(f"{key:>12}  {shown}")


def _show_decision(decision: PromotionDecision) -> None:
    console = _console()
    if decision.rows:
        models = (decision.candidate, decision.previous_champion)
        table = _table("mIoU", *models, "difference", "95 % interval")
        for row in decision.rows:
            table.add_row(*_cells(row))
        console.print(table)
    for reason in decision.reasons:
        console.print(reason, style="yellow", soft_wrap=True)
    console.print(_sentence(decision), soft_wrap=True)


def _cells(row: ComparedRow) -> tuple[str, str, str, str, str]:
    return (
        f"{row.row} ({row.masks} masks, {row.images} images)",
        f"{100 * row.candidate:.1f}",
        f"{100 * row.champion:.1f}",
        f"{100 * row.difference:+.1f}",
        f"{100 * row.low:+.1f} to {100 * row.high:+.1f}",
    )


def _sentence(decision: PromotionDecision) -> str:
    note = f": {decision.note}" if decision.note else ""
    return (
        f"decision {decision.number}, {decision.decided_at:%Y-%m-%d %H:%M} by "
        f"{decision.decided_by}: {decision.candidate} {decision.outcome}{note}; "
        f"the champion is {decision.champion}"
    )

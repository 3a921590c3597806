"""`maskwheel policy`: how the wheel of a workspace is to turn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.objects import ObjectStore


@click.group("policy")
def command() -> None:
    """Show, write or check the policy: what each stage of the wheel is to be.

    It is a file of the workspace, policy.toml, with words for each value; `maskwheel run
    data-engine` follows it. Without one nothing starts by itself.
    """


@command.command(
    "init",
    epilog="""\b
Examples:
  maskwheel policy init                     for hundreds of photos, fitted to those you have
  maskwheel policy init --preset paper      the numbers of Segment Anything
  maskwheel policy init --from mine.toml -w s3://team-data/birds""",
)
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="What to begin with.",
)
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file to take instead.",
)
@workspace_option
@json_option
def init_command(preset: str, file: Path | None, workspace: str | None, as_json: bool) -> None:
    """Write the workspace's policy, unless it has one."""
    from engine.dataset.catalog import Workspace
    from engine.errors import BadInputError
    from engine.wheel.initial import adopt_policy
    from engine.wheel.policy import POLICY_FILE, parse_policy

    with Workspace.open(workspace_address(workspace)) as opened:
        where = opened.store.uri(POLICY_FILE)
        if file is None:
            written = adopt_policy(opened, preset)
        else:
            text = file.read_text()
            parse_policy(text, str(file))
            written = opened.store.put_if_absent(POLICY_FILE, text.encode())
    if not written:
        raise BadInputError(
            f"{where} is there already; edit it, or remove it first (the wheel waits meanwhile)"
        )
    if as_json:
        print_json({"policy": where})
    else:
        click.echo(f"{where}: edit it as you like; `maskwheel run data-engine` follows it")


@command.command(
    "show",
    epilog="""\b
Examples:
  maskwheel policy show                     the workspace's
  maskwheel policy show paper""",
)
@click.argument("policy", required=False)
@workspace_option
@json_option
def show_command(policy: str | None, workspace: str | None, as_json: bool) -> None:
    """Print POLICY, a preset or a file, by default the workspace's, with words for each value."""
    from engine.wheel.policy import load_policy, policy_text

    found = load_policy(_store(workspace), policy)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(policy_text(found), nl=False)


@command.command("check", epilog="\b\nExample:\n  maskwheel policy check mine.toml")
@click.argument("policy", required=False)
@workspace_option
@json_option
def check_command(policy: str | None, workspace: str | None, as_json: bool) -> None:
    """Say whether POLICY, a file, by default the workspace's, can be read, and its rounds."""
    from engine.errors import BadInputError
    from engine.wheel.decision import rounds_of
    from engine.wheel.policy import find_policy, load_policy

    store = _store(workspace)
    found = find_policy(store) if policy is None else load_policy(store, policy)
    if found is None:
        raise BadInputError(
            f"{store.address} has no policy; `maskwheel policy init` writes one to begin with"
        )
    rounds = list(rounds_of(found))
    if as_json:
        print_json({"rounds": [{"name": r.name, "images": r.images} for r in rounds]})
        return
    images = sum(a_round.images for a_round in rounds)
    click.echo(f"it can be read: {len(rounds)} rounds, in which people annotate {images:,} images")
    for a_round in rounds:
        click.echo(f"  {a_round.name:<10} {a_round.images:>9,} images")


def _store(workspace: str | None) -> ObjectStore:
    from engine.objects import open_store

    return open_store(workspace_address(workspace))

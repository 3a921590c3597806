"""`maskwheel releases`: the states of the data set, and what can be done with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.releases import ReleaseTag
    from engine.records import Release

# Commands with a module of their own, imported when they are asked for: (module, one line of help).
_MODULES = {
    "diff": ("release_diff", "Say what differs between two releases."),
    "export": ("export", "Write a release in the format of other tools."),
    "verify": ("release_verify", "Read a whole release again and say what is wrong."),
    "gc": ("release_gc", "Remove what no release needs."),
}
_ORDER = ("list", "show", "diff", "tag", "rollback", "publish", "export", "verify", "gc")


class _Commands(click.Group):
    """The commands below, and those of `_MODULES`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"flows.commands.{_MODULES[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        lines = {name: text for name, (_, text) in _MODULES.items()}
        lines |= {name: own.get_short_help_str(80) for name, own in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, lines[name]) for name in _ORDER])


@click.group("releases", cls=_Commands)
def command() -> None:
    """List, compare, tag, restore, check and export releases: states that never change.

    Where a release is asked for, r3, a tag of it and "latest" all do.
    """


@command.command("list", epilog="\b\nExample:\n  maskwheel releases list -w birds")
@workspace_option
@json_option
def list_command(workspace: str | None, as_json: bool) -> None:
    """List the releases, oldest first."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import list_releases, list_tags

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        releases, tags = list_releases(opened), list_tags(opened)
    if as_json:
        print_json({"releases": [_fields(release, tags) for release in releases]})
    elif not releases:
        click.echo("no releases yet; make one: maskwheel auto PHOTOS...")
    else:
        _show_list(releases, tags)


@command.command("show", epilog="\b\nExample:\n  maskwheel releases show r1 --json")
@click.argument("name")
@workspace_option
@json_option
def show_command(name: str, workspace: str | None, as_json: bool) -> None:
    """Show what release NAME holds and where it came from."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import list_tags, load_release

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        release, tags = load_release(opened, name), list_tags(opened)
    if as_json:
        print_json(_fields(release, tags))
        return
    for key, value in _fields(release, tags).items():
        if value not in (None, "", (), [], {}):
            _show_field(key.replace("_", " "), value)


@command.command(
    "tag",
    epilog="""\b
Examples:
  maskwheel releases tag r3 v1.0
  maskwheel releases tag latest paper-2026 --note "as in the paper"

A tag never moves: papers and configurations can cite it.""",
)
@click.argument("name")
@click.argument("tag")
@click.option("--note", default="", help="Why; goes into the record.")
@workspace_option
@json_option
def tag_command(name: str, tag: str, note: str, workspace: str | None, as_json: bool) -> None:
    """Give release NAME a name of your own, TAG."""
    from engine.config import current_time
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import tag_release

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        release = tag_release(opened, tag, name, current_time(), note)
    if as_json:
        print_json({"tag": tag, "release": release.name})
    else:
        click.echo(f"{release.name} is {tag}")


@command.command(
    "rollback",
    epilog="""\b
Example:
  maskwheel releases rollback r3 --note "the new camera was out of focus"

Nothing is removed: the releases since then stay, and a rollback to them brings them back.""",
)
@click.argument("name")
@click.option("--note", default="", help="Why; goes into the record.")
@workspace_option
@json_option
def rollback_command(name: str, note: str, workspace: str | None, as_json: bool) -> None:
    """Make a new release with the masks of release NAME."""
    from engine.config import current_time
    from engine.dataset.catalog import Workspace
    from engine.dataset.rollback import rollback
    from flows.events import announce

    with Workspace.open(workspace_address(workspace), create=False) as opened:
        release = rollback(opened, name, current_time(), note, announce=announce)
    if as_json:
        print_json(asdict(release))
        return
    click.echo(
        f"{release.name} has the {release.masks:,} masks of {release.restores} again, "
        f"on {release.images:,} images"
    )


@command.command(
    "publish",
    epilog="""\b
Examples:
  maskwheel releases publish auto-53ee80e3d0d0a461-0002
  maskwheel releases publish auto-53ee80e3d0d0a461-0002 --accept "small objects, as intended"

Exit code 4: an audit refused the run; the data set is unchanged, and the table says why.""",
)
@click.argument("run")
@click.option("--accept", metavar="REASON", help="Publish it even if an audit refuses it.")
@workspace_option
@json_option
def publish_command(run: str, accept: str | None, workspace: str | None, as_json: bool) -> None:
    """Publish RUN, a finished run that is in no release yet."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.runs import publish_run
    from engine.quality.gate import audit
    from flows.commands.audit_table import explained_refusals
    from flows.events import announce

    address = workspace_address(workspace)
    with (
        explained_refusals(address, quiet=as_json),
        Workspace.open(address, create=False) as opened,
    ):
        release = publish_run(opened, run, audit, accepted=accept, announce=announce)
    if as_json:
        print_json(asdict(release))
    else:
        click.echo(f"{run} is in {release.name}: {release.masks:,} masks")


def _fields(release: Release, tags: Sequence[ReleaseTag]) -> dict[str, object]:
    return {**asdict(release), "tags": [tag.name for tag in tags if tag.release == release.name]}


def _show_list(releases: Sequence[Release], tags: Sequence[ReleaseTag]) -> None:
    from flows.commands.release_tables import console, table

    named = defaultdict(list)
    for tag in tags:
        named[tag.release].append(tag.name)
    shown = table("release", "tags", "created", "made by", ">images", ">masks", "models", "note")
    for release in releases:
        made_by = f"rollback to {release.restores}" if release.restores else release.kind
        shown.add_row(
            release.name,
            ", ".join(named[release.name]),
            f"{release.created_at:%Y-%m-%d %H:%M}",
            made_by,
            f"{release.images:,}",
            f"{release.masks:,}",
            ", ".join(release.models),
            release.note,
        )
    console().print(shown)


def _show_field(key: str, value: object) -> None:
    if isinstance(value, Mapping):
        lines = [f"{name}: {item}" for name, item in value.items()]
    elif isinstance(value, list | tuple):
        lines = [str(item) for item in value]
    else:
        lines = [f"{value:,}" if isinstance(value, int) else str(value)]
    for number, line in enumerate(lines):
        click.echo(f"{'' if number else key:>12}  {line}")

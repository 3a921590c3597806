"""The command `maskwheel`: a small module per command, loaded when asked for."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import click

EXIT_FAILED, EXIT_USAGE, EXIT_BAD_INPUT, EXIT_PARTLY_DONE = 1, 2, 3, 4

# Name -> (module below flows.commands, one line of help). The help stands here, so that listing the
# commands imports none of them.
COMMANDS = {
    "auto": ("auto", "Mask everything in photos and publish a data set release."),
    "ingest": ("ingest", "Add photos to a workspace without masking them."),
    "import": ("import_", "Add masks from COCO or SA-1B files and publish a release."),
    "annotate": ("annotate", "Let people make masks of photos in a browser."),
    "campaigns": ("campaigns", "List, invite to, close and publish annotation campaigns."),
    "simulate": ("simulate", "Let simulated people annotate: a load test, a rehearsal."),
    "train": ("train", "Train a model on releases and COCO files."),
    "evaluate": ("evaluate", "Say how good a model is, beside classical methods."),
    "models": ("models", "List models, import, promote and roll back."),
    "releases": ("releases", "List, compare, tag, restore, verify and export releases."),
    "sql": ("sql", "Ask a release in SQL."),
    "plan": ("plan", "Predict what a data set takes: files, bytes, hours, money."),
    "report": ("report", "Write one self-contained HTML page about a release."),
    "policy": ("policy", "Show, write or check how the wheel is to turn."),
    "run": ("run", "Run any flow, here or on the workers of a Prefect server."),
    "up": ("up", "Start everything on this machine, and say where it is."),
    "down": ("down", "Stop what `up` started."),
    "status": ("status", "Say what runs, what waits for whom, and what comes next."),
    "deploy": ("deploy", "Tell a Prefect server what to run, when and after what."),
    "doctor": ("doctor", "Say what works on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"flows.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="maskwheel")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, on standard error.")
def cli(verbose: bool) -> None:
    """Turn photos into a versioned data set of masks.

    \b
    Start here:
      maskwheel auto photos/          mask everything, publish a release
      maskwheel report                look at it
      maskwheel up                    people, retraining and schedules, on one machine
    """  # noqa: D301 - click's mark, not a backslash
    if verbose:  # without it Prefect's own quiet settings apply, and warnings are still told
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 2 usage, 3 bad input, 4 partly done, 1 anything else.
    """
    from engine.errors import BadInputError, EngineError, PartlyDoneError

    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped; the same command goes on where it was", err=True)
        sys.exit(EXIT_FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BadInputError as error:
        _complain(error)
        sys.exit(EXIT_BAD_INPUT)
    except PartlyDoneError as error:
        _complain(error)
        sys.exit(EXIT_PARTLY_DONE)
    except EngineError as error:
        _complain(error)
        sys.exit(EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: Exception) -> None:
    click.secho(f"maskwheel: {error}", fg="red", err=True)


if __name__ == "__main__":  # torchrun -m flows.cli train ...
    main()

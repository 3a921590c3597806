"""`maskwheel annotate`: a campaign on photos, and the service that people work on it with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from flows.commands.annotation_opening import ORDERS, Choices, OrderName
from flows.commands.annotation_service import open_and_serve, serve_workspace
from flows.commands.options import json_option, workspace_address, workspace_option

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DEMO_FOLDER = "maskwheel-demo"
_DEMO_INSTRUCTIONS = (
    "Click on an object: the model answers with its mask. Right click where it took too much. "
    "Enter keeps the mask; press ? for all keys. Mask what has a name, largest first."
)


@click.command(
    "annotate",
    epilog="""\b
Examples:
  maskwheel annotate --demo                            try it, on photos that are here already
  maskwheel annotate photos/ -w birds                  open a campaign, print the link
  maskwheel annotate -w birds                          go on with what there is
  maskwheel annotate --serve -w birds                  campaigns that flows open later, too
  maskwheel annotate photos/ --stage semi --model champion --review
  maskwheel annotate photos/ --host 0.0.0.0 --ssl-certfile cert.pem --ssl-keyfile key.pem

The link signs you in as admin: invite others on the page, or by `maskwheel campaigns invite`.
Ctrl-C stops the service; what the page called saved is kept, and the same command goes on.""",
)
@click.argument("photos", nargs=-1)
@click.option("--demo", is_flag=True, help=f"Sample photos, in ./{_DEMO_FOLDER}.")
@click.option(
    "--serve",
    is_flag=True,
    help="Open no campaign; serve those that the workspace has and gets.",
)
@click.option("--campaign", "name", help="Its name.  [default: the stage's]")
@click.option(
    "--stage",
    type=click.Choice(["manual", "semi"]),
    help="semi: people start from the model's own masks.  [default: manual]",
)
@click.option("--model", help="Registered version: bundled, m2, champion.  [default: champion]")
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default="listed",
    show_default=True,
    help="Which photos come first; all but listed and random ask the model.",
)
@click.option(
    "--prefill",
    default="auto",
    show_default=True,
    help="What proposes in stage semi: auto, or a detector: detector (the newest), p2.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order.")
@click.option("--instructions", help="Shown to the annotators; @FILE reads a file.")
@click.option("--annotators-per-image", type=click.IntRange(1, 20), help="[default: 1]")
@click.option("--review/--no-review", default=None, help="A second person judges each task.")
@click.option("--host", help="To listen on.  [default: MASKWHEEL_ANNOTATION_HOST or 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="0: any.  [default: MASKWHEEL_ANNOTATION_PORT or 8765, or the next that is free]",
)
@click.option("--public-url", help="What links begin with, where a proxy stands in front.")
@click.option("--allow-host", "allow_hosts", multiple=True, help="Name that browsers may use.")
@click.option("--ssl-certfile", "certfile", type=_FILE, help="Certificate for https, PEM.")
@click.option("--ssl-keyfile", "keyfile", type=_FILE, help="Its key, PEM.")
@click.option("--device", help="To encode photos on: cpu, cuda, mps.  [default: the best there is]")
@workspace_option
@json_option
def command(
    photos: tuple[str, ...],
    demo: bool,
    serve: bool,
    name: str | None,
    stage: Literal["manual", "semi"] | None,
    model: str | None,
    order: OrderName,
    prefill: str,
    seed: int,
    instructions: str | None,
    annotators_per_image: int | None,
    review: bool | None,
    host: str | None,
    port: int | None,
    public_url: str | None,
    allow_hosts: tuple[str, ...],
    certfile: Path | None,
    keyfile: Path | None,
    device: str | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Open a campaign on PHOTOS, or go on with one, and serve it to browsers.

    PHOTOS are image files, folders, globs, or lists of them (.txt, .csv, .parquet); none: what the
    campaign has, or all photos of the workspace.
    """
    from engine.annotation.opening import CampaignRequest

    if demo and photos:
        raise click.UsageError("--demo brings its own photos; leave PHOTOS out")
    if serve and (photos or demo or name):
        raise click.UsageError("--serve opens no campaign; leave PHOTOS, --demo and --campaign out")
    if (certfile is None) != (keyfile is None):
        raise click.UsageError("--ssl-certfile and --ssl-keyfile go together")
    choices = Choices(
        order=order,
        prefill=prefill,
        host=host,
        port=port,
        public_url=public_url,
        allow_hosts=allow_hosts,
        certfile=certfile,
        keyfile=keyfile,
        device=device,
        as_json=as_json,
    )
    if serve:
        serve_workspace(workspace_address(workspace), choices)
        return
    if demo:
        photos, workspace = _demo(workspace)
    request = CampaignRequest(
        name=name or ("demo" if demo else None),
        stage=stage,
        model=model,
        instructions=_text(instructions) or (_DEMO_INSTRUCTIONS if demo else None),
        annotators_per_image=annotators_per_image,
        review=review,
        seed=seed,
    )
    open_and_serve(workspace_address(workspace), request, photos, choices)


def _demo(workspace: str | None) -> tuple[tuple[str, ...], str]:
    """Return the sample photos' folder, and the workspace beside it unless one is named."""
    from engine.dataset.demo_photos import copy_demo_photos

    photos = Path(_DEMO_FOLDER) / "photos"
    copy_demo_photos(photos)
    return (str(photos),), workspace or str(Path(_DEMO_FOLDER) / "workspace")


def _text(given: str | None) -> str | None:
    """Return an option's text, or that of the file that it names with an @."""
    from engine.errors import BadInputError

    if given is None or not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"the instructions in {given[1:]} cannot be read: {error}") from error

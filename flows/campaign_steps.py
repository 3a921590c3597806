"""What the two stages with people have in common: a campaign is opened, prepared and shown.

    opened = open_campaign(request, choice, None, workspace, device)
    made = prepare(opened.campaign, None, 1000, workspace, device)
    summarise(opened, made, workspace)

Every step can be repeated: a campaign of the name goes on with the images that it has, and what is
prepared is not made again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from prefect import task

from engine.annotation.choosing import ChoiceRequest, choose_images
from engine.annotation.decoder_files import export_decoder_files
from engine.annotation.http.whereabouts import running_at
from engine.annotation.opening import (
    Arranged,
    CampaignRequest,
    OpenedCampaign,
    open_chosen,
    open_workspace_database,
)
from engine.annotation.pending import give_out
from engine.annotation.preparing import (
    Chunk,
    Prepared,
    PreparedCampaign,
    chunks_to_prepare,
    prepare_images,
    summarised,
)
from engine.annotation.proposal_sources import noting_proposer
from engine.annotation.records import Campaign, Stage
from engine.automatic.shard_worker import ModelSpec, cached_model
from engine.config import Settings, current_time, load_settings
from engine.dataset.catalog import Workspace
from engine.errors import PartlyDoneError
from engine.images import ImageLimits
from engine.records import ModelVersion
from flows.artifacts.campaigns import show_campaign
from flows.artifacts.progress import Progress
from flows.artifacts.tables import show_table
from flows.artifacts.texts import escaped
from flows.limits import image_limits
from flows.naming import counted
from flows.progress import listener
from flows.retrying import RETRIED
from flows.task_runners import WorkerLostError, hired

__all__ = ["export_decoder", "open_campaign", "prepare", "show_nothing", "summarise"]


logger = logging.getLogger(__name__)


@task(task_run_name="choose images and open the campaign", **RETRIED)
def open_campaign(
    request: CampaignRequest,
    choice: ChoiceRequest,
    proposer: str | None,
    workspace: str,
    device: str | None,
) -> OpenedCampaign | None:
    """Open the campaign over images that are chosen now, or find the one that there is.

    Nobody gets its images before they are prepared.
    """
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):

        def choose(version: ModelVersion) -> Arranged:
            arranged = choose_images(
                opened,
                db,
                choice,
                lambda: cached_model(spec_of(version.model_id, workspace, device)),
                limits=image_limits(),
                on_begin=lambda images: listener().stage("choosing images", images),
                on_image=lambda uri: listener().image(uri, 0),
            )
            return arranged if proposer is None else noting_proposer(arranged, proposer)

        return open_chosen(opened, db, request, choose, current_time())


@task(task_run_name="export the decoder of {model_id}", **RETRIED)
def export_decoder(model_id: str, workspace: str, device: str | None) -> Path:
    """Export what browsers need of a model, once, for the service of this machine."""
    with Workspace.open(workspace, create=False) as opened:
        sam = cached_model(spec_of(model_id, workspace, device))
        return export_decoder_files(sam, opened.local_folder, model_id)


def prepare(
    campaign: Campaign,
    proposer: str | None,
    embed_ahead: int,
    workspace: str,
    device: str | None,
) -> list[Prepared]:
    """Prepare the images that are pending, chunk by chunk, and give them out as they are ready.

    Raises:
        PartlyDoneError: some could not be prepared; people have the others.
    """
    if campaign.closed_at is not None:
        logger.info("campaign %s is closed: nothing of it is prepared", campaign.name)
        return []
    made: list[Prepared] = []
    while chunks := plan_chunks(campaign, embed_ahead, workspace):
        results = prepare_chunks(chunks, campaign, proposer, workspace, device)
        ready = [result for result in results if isinstance(result, Prepared)]
        failures = [result for result in results if isinstance(result, Exception)]
        made += ready
        if not failures:
            break
        lost = [failure for failure in failures if isinstance(failure, WorkerLostError)]
        if not (lost and ready):
            raise PartlyDoneError(
                f"{len(failures)} of {len(chunks)} parts of campaign {campaign.name} could not be "
                f"prepared, the first with {failures[0]!r}; people have the others, and the same "
                "call again prepares the rest"
            ) from failures[0]
        logger.warning("%d parts are prepared by other workers: %s", len(lost), lost[0])
    give_out_rest(campaign, workspace)
    return made


@task(task_run_name="see what is to be prepared", **RETRIED)
def plan_chunks(campaign: Campaign, embed_ahead: int, workspace: str) -> tuple[Chunk, ...]:
    """Return the images that are not ready, in tasks of some minutes each."""
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        return chunks_to_prepare(db, campaign, embed_ahead=embed_ahead)


def prepare_chunks(
    chunks: Sequence[Chunk],
    campaign: Campaign,
    proposer: str | None,
    workspace: str,
    device: str | None,
) -> list[Prepared | Exception]:
    """Have the chunks prepared by whom the settings name; return what came of each."""
    limits = image_limits()
    calls = (
        {
            "chunk": chunk,
            "name": campaign.name,
            "campaign": campaign,
            "proposer": proposer,
            "workspace": workspace,
            "device": device,
            "limits": limits,
        }
        for chunk in chunks
    )
    results: list[Prepared | Exception] = []
    images = sum(len(chunk.image_ids) for chunk in chunks)
    listener().stage("preparing images", images)
    with (
        Progress(images, f"preparing {campaign.name}", unit="images") as progress,
        hired(staff(), device) as workers,
    ):
        for result in workers.each(prepare_chunk, calls):
            results.append(result)
            if isinstance(result, Prepared):
                proposals = sum(r.proposals for r in results if isinstance(r, Prepared))
                progress.advance(result.images, f"{proposals:,} proposals" if proposer else "")
    return results


@task(task_run_name="prepare {name} from image {chunk.first}", **RETRIED)
def prepare_chunk(
    chunk: Chunk,
    name: str,
    campaign: Campaign,
    proposer: str | None,
    workspace: str,
    device: str | None,
    limits: ImageLimits,
) -> Prepared:
    """Make what some images lack, and give them out."""
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        return prepare_images(
            opened.store,
            db,
            campaign,
            chunk,
            cached_model(spec_of(campaign.model_id, workspace, device)),
            proposer,
            limits=limits,
            now=current_time(),
            on_image=listener().image,
        )


@task(task_run_name="give out {campaign.name}", **RETRIED)
def give_out_rest(campaign: Campaign, workspace: str) -> int:
    """Let people have the images whose embeddings are made when they are asked for."""
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        return give_out(db, campaign.campaign_id, now=current_time())


def staff() -> Settings:
    """Return who prepares: only this machine can, where the annotation database is a file of it."""
    settings = load_settings()
    if settings.database_url is not None or settings.task_runner not in ("ray", "dask"):
        return settings
    logger.info(
        "prepared here, not on %s: the annotation database is a file of this machine; "
        "MASKWHEEL_DATABASE_URL names one that all machines reach",
        settings.task_runner,
    )
    return load_settings(task_runner="threads", workers=1)


def spec_of(model_id: str, workspace: str, device: str | None) -> ModelSpec:
    """Return how to load a campaign's model."""
    return ModelSpec(model_id, device, workspace=workspace)


def summarise(opened: OpenedCampaign, made: Sequence[Prepared], workspace: str) -> PreparedCampaign:
    """Say what the campaign is, in the log and as a page in the Prefect UI with its link."""
    url = campaign_page(opened.campaign.campaign_id, workspace)
    outcome = summarised(opened, made, url)
    logger.info(
        "campaign %s %s: %s, %d prepared now",
        outcome.name,
        "opened" if outcome.opened else "goes on",
        counted(outcome.images, "image"),
        outcome.prepared,
    )
    show_campaign(
        outcome.name,
        url,
        stage=outcome.stage,
        images=outcome.images,
        ready=outcome.images if opened.campaign.closed_at is None else 0,
        proposals=outcome.proposals,
        skipped=len(outcome.skipped),
        opened=outcome.opened,
        workspace=workspace,
    )
    if outcome.skipped:
        show_table(
            "campaign-skipped",
            [{"photo": s.uri, "reason": s.reason, "message": s.message} for s in outcome.skipped],
            f"{counted(len(outcome.skipped), 'photo')} cannot be read",
        )
    return outcome


def show_nothing(name: str, stage: Stage) -> PreparedCampaign:
    """Say that there is nothing to annotate, so that no campaign was opened."""
    said = (
        "nothing to annotate: every image of the workspace has masks of people, or is in a "
        "campaign; `maskwheel ingest` adds more"
    )
    logger.info("%s", said)
    show_table("campaign", [{"campaign": name, "images": 0}], escaped(said))
    return PreparedCampaign(campaign_id=None, name=name, stage=stage)


def campaign_page(campaign_id: str, workspace: str) -> str | None:
    """Return the address of a campaign's page; None: no service is known to run."""
    with Workspace.open(workspace, create=False) as opened:
        url = load_settings().annotation_url or running_at(opened.local_folder)
    return f"{url.rstrip('/')}/annotate/{campaign_id}" if url else None

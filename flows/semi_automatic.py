"""The second stage as a flow: the model masks what it is sure of, people add what is missing.

>>> semi_automatic("birds", campaign="semi-1", images=200, proposer="train").proposals

A box proposer is trained on what people made in the first stage, once for a model and a release.
Its masks are in an image before anybody gets the image. Killed anywhere, the same call goes on.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from prefect import flow, task
from prefect.runtime import flow_run

from engine.annotation.choosing import ChoiceRequest, OrderName
from engine.annotation.opening import CampaignRequest, open_workspace_database
from engine.annotation.preparing import PreparedCampaign, RoundPlan, plan_round
from engine.automatic.shard_worker import cached_model
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.learning.decisions import CHAMPION
from engine.learning.proposer_choice import TRAIN, choose_proposer
from flows.campaign_steps import (
    export_decoder,
    open_campaign,
    prepare,
    show_nothing,
    spec_of,
    summarise,
)
from flows.naming import describe_run
from flows.retrying import RETRIED
from flows.training_progress import TrainingProgress

__all__ = ["semi_automatic"]

logger = logging.getLogger(__name__)

_NAME = "semi"


def _run_name() -> str:
    return f"open {flow_run.parameters.get('campaign') or _NAME}"


@flow(name="semi-automatic", flow_run_name=_run_name)
def semi_automatic(
    workspace: str,
    campaign: str | None = None,
    images: int | None = None,
    model: str = CHAMPION,
    proposer: str = TRAIN,
    proposer_steps: int | None = None,
    order: OrderName = "uncovered",
    annotators_per_image: int = 1,
    review: bool = False,
    instructions: str = "",
    embed_ahead: int = 1000,
    device: str | None = None,
    seed: int = 0,
) -> PreparedCampaign:
    """Pre-fill confident masks and open a campaign in which people add what is missing.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        campaign: its name; one that is there goes on. Default: ``semi``.
        images: how many; with fewer candidates all of them. Default: all. Those that the automatic
            stage was least sure of come first into question.
        model: that answers the clicks: ``champion``, ``m2``, ``bundled``.
        proposer: what finds the masks: ``train``: a box proposer for this model, trained on what
            people made in the newest release unless there is one; ``newest``: the newest for this
            model; ``p2``: that one; ``auto``: the model's automatic masks.
        proposer_steps: of a training. Default: the recipe's.
        order: which images come first, see `engine.annotation.ordering`; ``listed``: by address.
        annotators_per_image: so many people annotate each image.
        review: whether a second person judges each submission.
        instructions: shown to the annotators.
        embed_ahead: the first so many images are encoded before people get them.
        device: ``cpu``, ``cuda``, ``mps``; by default the best there is.
        seed: of the choice and of the order.

    Raises:
        BadInputError: a workspace without images or without masks to train on, an unknown model or
            proposer, or a campaign of the name that is another.
        PartlyDoneError: some images could not be prepared; people have the others.
    """
    request = CampaignRequest(
        name=campaign or _NAME,
        stage="semi",
        # A campaign that is there keeps the champion of its day.
        model=None if model == CHAMPION else model,
        instructions=instructions,
        annotators_per_image=annotators_per_image,
        review=review,
        seed=seed,
    )
    choice = ChoiceRequest(images=images, order=order, seed=seed, doubtful_first=True)
    describe_run(workspace=workspace, stage="semi", campaign=request.name)
    plan = look(request, workspace)
    if not plan.is_open and not plan.candidates:
        return show_nothing(campaign or _NAME, "semi")
    proposes = plan.proposer or pick_proposer(
        proposer, plan.model_id, proposer_steps, workspace, device
    )
    logger.info("masks of %s are proposed by %s", request.name, proposes)
    request = replace(request, model=plan.model_id)
    opened = open_campaign(request, choice, proposes, workspace, device)
    if opened is None:
        return show_nothing(campaign or _NAME, "semi")
    export_decoder(opened.campaign.model_id, workspace, device)
    made = prepare(opened.campaign, proposes, embed_ahead, workspace, device)
    return summarise(opened, made, workspace)


@task(task_run_name="look at the workspace", **RETRIED)
def look(request: CampaignRequest, workspace: str) -> RoundPlan:
    """Return what the campaign works with: its own model and proposer, if it is there."""
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        return plan_round(opened, db, request)


@task(task_run_name="{proposer} proposer", **RETRIED)
def pick_proposer(
    proposer: str, model_id: str, steps: int | None, workspace: str, device: str | None
) -> str:
    """Return the name of what proposes masks; train it if that is asked for and due."""
    with (
        Workspace.open(workspace, create=False) as opened,
        TrainingProgress("a box proposer") as progress,
    ):
        sam = cached_model(spec_of(model_id, workspace, device))
        return choose_proposer(
            opened, proposer, sam, now=current_time(), steps=steps, listener=progress
        )

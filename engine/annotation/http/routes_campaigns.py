"""Campaigns: how far they are, and the next task of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from engine.annotation.campaigns import campaign, campaign_state, list_campaigns
from engine.annotation.figures import campaign_figures, masks_csv
from engine.annotation.http.answers import (
    CampaignValue,
    Finished,
    LeaseValue,
    Nothing,
    ReviewLease,
    Upcoming,
)
from engine.annotation.http.bodies import JsonRoute
from engine.annotation.http.context import Context, ServiceContext
from engine.annotation.http.convert import (
    campaign_value,
    decoder_link,
    image_links,
    lease_value,
    review_value,
)
from engine.annotation.http.security import Reviewing, Signed
from engine.annotation.records import Campaign, Lease, NothingToDo
from engine.annotation.reviews import lease_review
from engine.annotation.tasks import lease_next, upcoming

__all__ = ["CampaignId", "router"]

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"], route_class=JsonRoute)

CampaignId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_AHEAD = 3


@router.get("")
def campaigns(context: Context, me: Signed) -> list[CampaignValue]:
    """List the campaigns, the newest first, with the caller's own part in them."""
    return [
        _state(context, one.campaign_id, me.annotator_id)
        for one in list_campaigns(context.database)
    ]


@router.get("/{campaign_id}")
def one_campaign(campaign_id: CampaignId, context: Context, me: Signed) -> CampaignValue:
    """Say how far a campaign is."""
    return _state(context, campaign_id, me.annotator_id)


@router.post("/{campaign_id}/next")
def next_task(
    campaign_id: CampaignId, context: Context, me: Signed, body: Finished | None = None
) -> LeaseValue | Nothing:
    """Lease the next task; the caller's own live lease of this campaign is given again.

    Tasks in `finished` are not given: the caller still holds their submissions.
    """
    found = lease_next(
        context.database,
        campaign_id,
        me.annotator_id,
        now=context.clock(),
        seconds=context.lease_seconds,
        finished=body.numbers() if body else (),
    )
    if isinstance(found, NothingToDo):
        return Nothing(nothing=found.reason, message=found.message)
    _prepare(context, found)
    return lease_value(found)


@router.get("/{campaign_id}/upcoming")
def upcoming_images(
    campaign_id: CampaignId,
    context: Context,
    me: Signed,
    n: Annotated[int, Query(ge=1, le=10)] = 2,
) -> list[Upcoming]:
    """Say what the next tasks would be, for a page that fetches ahead; leases nothing."""
    return _upcoming(context, campaign(context.database, campaign_id), me.annotator_id, n)


@router.post("/{campaign_id}/next-review")
def next_review(campaign_id: CampaignId, context: Context, me: Reviewing) -> ReviewLease | Nothing:
    """Lease the next submission to review; never the caller's own."""
    found = lease_review(
        context.database,
        campaign_id,
        me.annotator_id,
        now=context.clock(),
        seconds=context.lease_seconds,
    )
    if isinstance(found, NothingToDo):
        return Nothing(nothing=found.reason, message=found.message)
    if found.submission is None:
        raise RuntimeError(f"task {found.task.task_id} is to be reviewed, without a submission")
    return review_value(found, found.submission)


@router.get("/{campaign_id}/figures", response_model=None)
def figures(
    campaign_id: CampaignId,
    context: Context,
    me: Reviewing,
    format: Annotated[str, Query(pattern="^(json|csv)$")] = "json",
) -> Response:
    """Say what masks cost and what became of them: totals, by person, by day; or a CSV of masks."""
    if format == "csv":
        name = f"{campaign(context.database, campaign_id).campaign_id}.csv"
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        text = masks_csv(context.database, campaign_id)
        return Response(text, headers=disposition, media_type="text/csv; charset=utf-8")
    made = campaign_figures(context.database, campaign_id, now=context.clock())
    return Response(made.to_json(), media_type="application/json")


def _state(context: ServiceContext, campaign_id: str, annotator_id: str) -> CampaignValue:
    state = campaign_state(
        context.database, campaign_id, now=context.clock(), annotator_id=annotator_id
    )
    return campaign_value(state)


def _upcoming(
    context: ServiceContext, one: Campaign, annotator_id: str, count: int
) -> list[Upcoming]:
    images = upcoming(context.database, one.campaign_id, annotator_id, count, now=context.clock())
    return [
        Upcoming(image=image_links(image, one.model_id), decoder=decoder_link(one.model_id))
        for image in images
    ]


def _prepare(context: ServiceContext, lease: Lease) -> None:
    """Make the embeddings that will be asked for in a moment, this task's first."""
    if context.model is None:
        return
    ahead = upcoming(
        context.database,
        lease.task.campaign.campaign_id,
        lease.key.annotator_id,
        _AHEAD,
        now=context.clock(),
    )
    context.model.prepare_ahead(lease.task.campaign.model_id, [lease.task.image, *ahead])

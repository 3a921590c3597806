"""Between the JSON values of HTTP and the values of the domain.

    mask_object(obj), obj_value(mask_object), lease_value(lease)

The image's addresses are made here: what a task needs can be fetched from nothing but the task.
"""

from __future__ import annotations

import orjson

from engine.annotation import records
from engine.annotation.http.answers import (
    CampaignTasks,
    CampaignValue,
    ImageLinks,
    LeaseValue,
    Mine,
    Returned,
    ReviewedSubmission,
    ReviewLease,
    ReviewObject,
    TaskCampaign,
    TaskValue,
)
from engine.annotation.http.schemas import (
    BoxPrompt,
    Draft,
    Event,
    Obj,
    PointPrompt,
    Prompt,
    RleValue,
    StrokePrompt,
    Submission,
    Verdict,
)
from engine.records import Rle

__all__ = [
    "campaign_value",
    "decoder_link",
    "domain_draft",
    "domain_events",
    "domain_submission",
    "domain_verdicts",
    "draft_value",
    "image_links",
    "lease_value",
    "mask_object",
    "obj_value",
    "review_value",
    "task_value",
]

_PREVIEW_LONG_PX = 1600


def mask_object(obj: Obj) -> records.MaskObject:
    """Read an object."""
    return records.MaskObject(
        object_id=obj.id,
        rle=_rle(obj.rle),
        proposal=obj.proposal,
        predicted_iou=obj.predicted_iou,
        prompts=tuple(_domain_prompt(prompt) for prompt in obj.prompts),
        decoder=obj.decoder,
        accepted=obj.accepted,
    )


def obj_value(mask: records.MaskObject) -> Obj:
    """Write an object."""
    # What comes from the database was checked when it went in: no need to check it with each task.
    return Obj.model_construct(
        id=mask.object_id,
        proposal=mask.proposal,
        rle=_rle_value(mask.rle),
        predicted_iou=mask.predicted_iou,
        prompts=[_prompt_value(prompt) for prompt in mask.prompts],
        decoder=mask.decoder,
        accepted=mask.accepted,
    )


def domain_draft(draft: Draft) -> records.DraftContent:
    """Read a draft."""
    return records.DraftContent(
        objects=tuple(mask_object(obj) for obj in draft.objects),
        deleted=tuple(draft.deleted),
        exhaustive=draft.exhaustive,
        current=mask_object(draft.current) if draft.current else None,
    )


def draft_value(draft: records.Draft) -> Draft:
    """Write a draft."""
    content = draft.content
    return Draft.model_construct(
        version=draft.version,
        objects=[obj_value(mask) for mask in content.objects],
        deleted=list(content.deleted),
        exhaustive=content.exhaustive,
        current=obj_value(content.current) if content.current else None,
    )


def domain_events(events: list[Event]) -> tuple[records.Event, ...]:
    """Read events; what belongs to an event stays JSON."""
    return tuple(
        records.Event(
            seq=event.seq,
            at_ms=event.at_ms,
            kind=event.kind,
            object_id=event.object_id,
            data=orjson.dumps(event.data).decode(),
        )
        for event in events
    )


def domain_submission(submission: Submission) -> records.Submission:
    """Read a submission."""
    return records.Submission(
        submission_id=submission.submission_id,
        objects=tuple(mask_object(obj) for obj in submission.objects),
        deleted=tuple(submission.deleted),
        exhaustive=submission.exhaustive,
        page_id=submission.page_id,
        last_seq=submission.last_seq,
        events=domain_events(submission.events),
    )


def domain_verdicts(verdicts: list[Verdict]) -> tuple[records.Verdict, ...]:
    """Read verdicts."""
    return tuple(
        records.Verdict(
            object_id=verdict.object_id,
            kind=verdict.verdict,
            reason=verdict.reason or "",
            rle=_rle(verdict.rle) if verdict.rle else None,
        )
        for verdict in verdicts
    )


def image_links(image: records.CampaignImage, model_id: str) -> ImageLinks:
    """Write an image with the addresses of what belongs to it."""
    base = f"/api/images/{image.image_id}"
    return ImageLinks(
        id=str(image.image_id),
        width=image.width,
        height=image.height,
        pixels=f"{base}/pixels",
        preview=f"{base}/pixels?long={_PREVIEW_LONG_PX}",
        embedding=f"{base}/embedding?model={model_id}",
    )


def decoder_link(model_id: str) -> str:
    """Return the address of a model's decoder."""
    return f"/api/models/{model_id}/decoder"


def task_value(task: records.Task) -> TaskValue:
    """Write a task."""
    campaign, returned = task.campaign, task.returned
    return TaskValue.model_construct(
        id=str(task.task_id),
        campaign=_task_campaign(campaign),
        image=image_links(task.image, campaign.model_id),
        proposals=[obj_value(mask) for mask in task.proposals],
        draft=draft_value(task.draft) if task.draft else None,
        returned=_returned_value(returned) if returned else None,
        decoder=decoder_link(campaign.model_id),
    )


def lease_value(lease: records.Lease) -> LeaseValue:
    """Write a lease."""
    return LeaseValue.model_construct(
        task=task_value(lease.task),
        lease_id=lease.key.lease_id,
        seconds=lease.seconds,
        expires_at=lease.expires_at,
    )


def review_value(lease: records.Lease, submission: records.JudgedSubmission) -> ReviewLease:
    """Write a lease for a review."""
    return ReviewLease.model_construct(
        task=task_value(lease.task),
        lease_id=lease.key.lease_id,
        seconds=lease.seconds,
        expires_at=lease.expires_at,
        submission=ReviewedSubmission.model_construct(
            annotator=submission.annotator,
            submitted_at=submission.submitted_at,
            active_seconds=submission.active_seconds,
            exhaustive=submission.exhaustive,
            objects=[_review_object(submitted) for submitted in submission.objects],
            deleted=[obj_value(submitted.mask) for submitted in submission.deleted],
        ),
    )


def campaign_value(state: records.CampaignState) -> CampaignValue:
    """Write a campaign with how far it is."""
    campaign, tasks = state.campaign, state.tasks
    return CampaignValue(
        **_task_campaign(campaign).model_dump(),
        state=state.state,
        review=campaign.review,
        annotators_per_image=campaign.annotators_per_image,
        images=campaign.images,
        tasks=CampaignTasks(
            total=tasks.total,
            open=tasks.open,
            leased=tasks.leased,
            returned=tasks.returned,
            submitted=tasks.submitted,
            accepted=tasks.accepted,
            skipped=tasks.skipped,
        ),
        mine=Mine(done=state.mine_done, returned=state.mine_returned, skipped=state.mine_skipped),
        masks=state.masks,
        reviewable=state.reviewable,
    )


def _task_campaign(campaign: records.Campaign) -> TaskCampaign:
    return TaskCampaign(
        id=campaign.campaign_id,
        name=campaign.name,
        stage=campaign.stage,
        instructions=campaign.instructions,
        model=campaign.model,
        model_id=campaign.model_id,
    )


def _returned_value(returned: records.Returned) -> Returned:
    return Returned.model_construct(
        reason=returned.reason or None,
        verdicts=[
            Verdict.model_construct(
                object_id=verdict.object_id,
                verdict=verdict.kind,
                rle=_rle_value(verdict.rle) if verdict.rle else None,
                reason=verdict.reason or None,
            )
            for verdict in returned.verdicts
        ],
    )


def _review_object(submitted: records.SubmittedObject) -> ReviewObject:
    values = dict(obj_value(submitted.mask))
    return ReviewObject.model_construct(
        **values, made=submitted.made, active_seconds=submitted.active_seconds
    )


def _rle(value: RleValue) -> Rle:
    return Rle(*value.size, value.counts)


def _rle_value(rle: Rle) -> RleValue:
    return RleValue.model_construct(size=(rle.height, rle.width), counts=rle.counts)


def _domain_prompt(prompt: Prompt) -> records.Prompt:
    match prompt:
        case PointPrompt():
            return records.PointPrompt(prompt.x, prompt.y, prompt.label)
        case BoxPrompt():
            return records.BoxPrompt(prompt.x0, prompt.y0, prompt.x1, prompt.y1)
        case StrokePrompt():
            return records.StrokePrompt(prompt.mode, prompt.radius, tuple(prompt.points))


def _prompt_value(prompt: records.Prompt) -> Prompt:
    match prompt:
        case records.PointPrompt():
            return PointPrompt(kind="point", x=prompt.x, y=prompt.y, label=1 if prompt.label else 0)
        case records.BoxPrompt():
            return BoxPrompt(kind="box", x0=prompt.x0, y0=prompt.y0, x1=prompt.x1, y1=prompt.y1)
        case records.StrokePrompt():
            return StrokePrompt.model_construct(
                kind="stroke",
                mode=prompt.mode,
                radius=prompt.radius,
                points=list(prompt.points),
            )

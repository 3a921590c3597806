"""JSON values that the service answers with: who asks, campaigns, tasks, leases, annotators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from engine.annotation.http.schemas import Draft, Obj, Reason, Value, Verdict

__all__ = [
    "AnnotatorValue",
    "CampaignTasks",
    "CampaignValue",
    "Empty",
    "Error",
    "Extended",
    "Finished",
    "Health",
    "ImageLinks",
    "Invitation",
    "LeaseValue",
    "Me",
    "Mine",
    "NewAnnotator",
    "Nothing",
    "Receipt",
    "Returned",
    "ReviewLease",
    "ReviewObject",
    "ReviewReceipt",
    "ReviewedSubmission",
    "SignIn",
    "Skip",
    "TaskCampaign",
    "TaskValue",
    "Upcoming",
]

Role = Literal["annotator", "reviewer", "admin"]
Stage = Literal["manual", "semi"]
Made = Literal["kept", "corrected", "new"]


class Error(Value):
    """Every answer that is not 2xx."""

    code: str
    message: str


class SignIn(Value):
    """The secret of an invite link."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Me(Value):
    """Who asks."""

    name: str
    role: Role
    service: str


class TaskCampaign(Value):
    """What a task says of its campaign."""

    id: str
    name: str
    stage: Stage
    instructions: str
    model: str
    model_id: str


class CampaignTasks(Value):
    """Tasks by state; each is in exactly one."""

    total: int
    open: int
    leased: int
    returned: int
    submitted: int
    accepted: int
    skipped: int


class Mine(Value):
    """The caller's own tasks."""

    done: int
    returned: int
    skipped: int


class CampaignValue(TaskCampaign):
    """A campaign and how far it is."""

    state: Literal["open", "complete", "closed"]
    review: bool
    annotators_per_image: int
    images: int
    tasks: CampaignTasks
    mine: Mine
    masks: int
    reviewable: int


class ImageLinks(Value):
    """An image; `id` is a decimal string, as 63 bits do not fit a number of JavaScript."""

    id: str
    width: int
    height: int
    pixels: str
    preview: str
    embedding: str


class Returned(Value):
    """Why a reviewer sent a task back."""

    reason: str | None
    verdicts: list[Verdict]


class TaskValue(Value):
    """One image for one annotator."""

    id: str
    campaign: TaskCampaign
    image: ImageLinks
    proposals: list[Obj]
    draft: Draft | None
    returned: Returned | None
    decoder: str


class LeaseValue(Value):
    """A task, and the right to work on it until `expires_at`."""

    task: TaskValue
    lease_id: str
    seconds: int
    expires_at: datetime


class Nothing(Value):
    """There is no task; `nothing` is the reason for machines."""

    nothing: str
    message: str


class Finished(Value):
    """Tasks whose submissions the caller has not got rid of yet, for want of a network."""

    finished: Annotated[
        list[Annotated[str, Field(pattern=r"^[1-9]\d{0,8}$")]], Field(max_length=500)
    ] = Field(default_factory=list)

    def numbers(self) -> list[int]:
        """Return the tasks' ids."""
        return [int(task_id) for task_id in self.finished]


class Extended(Value):
    """Until when the lease holds now."""

    seconds: int
    expires_at: datetime


class Empty(Value):
    """It is done, and there is nothing to say."""


class Upcoming(Value):
    """What the next task will probably need."""

    image: ImageLinks
    decoder: str


class Receipt(Value):
    """The service has it."""

    submission_id: str
    task_id: str
    objects: int
    state: str


class Skip(Value):
    """Why an image cannot be annotated."""

    reason: Annotated[Reason, Field(min_length=1)]


class ReviewObject(Obj):
    """An object as the reviewer sees it."""

    made: Made
    active_seconds: float | None


class ReviewedSubmission(Value):
    """What is to be reviewed."""

    annotator: str
    submitted_at: datetime
    active_seconds: float | None
    exhaustive: bool
    objects: list[ReviewObject]
    deleted: list[Obj]


class ReviewLease(LeaseValue):
    """A task to review."""

    submission: ReviewedSubmission


class ReviewReceipt(Value):
    """What the review made of the task: ``"accepted"`` or ``"returned"``."""

    state: str


class AnnotatorValue(Value):
    """A person who may sign in."""

    id: str
    name: str
    role: Role
    invited_at: datetime
    revoked_at: datetime | None


class NewAnnotator(Value):
    """Somebody to invite."""

    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,80}$")]
    role: Role = "annotator"


class Invitation(Value):
    """A link that signs a person in; shown once, because only its hash is kept."""

    id: str
    name: str
    role: Role
    token: str
    link: str


class Health(Value):
    """Whether the service can work."""

    status: Literal["ok", "degraded", "failed"]
    database: bool
    encoder: bool | None
    free_bytes: int | None

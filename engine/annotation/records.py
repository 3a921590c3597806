"""The values of annotation: what the service, the page's server and the simulated annotators pass.

    lease.task.image.image_id, lease.key, receipt.corrected

Coordinates are pixels of the original image, after EXIF orientation: x right, y down, and pixel i
covers [i, i + 1). Times are UTC. What people did is counted in seconds and in events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from engine.annotation.object_records import (
    ActiveSeconds,
    BoxPrompt,
    DecoderKind,
    Draft,
    DraftContent,
    Event,
    LoggedEvent,
    Made,
    MaskObject,
    PointPrompt,
    Prompt,
    StrokePrompt,
    SubmittedObject,
    VerdictKind,
)
from engine.records import Rle

__all__ = [
    "ROLES",
    "ActiveSeconds",
    "Annotator",
    "BoxPrompt",
    "Campaign",
    "CampaignImage",
    "CampaignSpec",
    "CampaignState",
    "DecoderKind",
    "Draft",
    "DraftContent",
    "Event",
    "FinishedTask",
    "ImageAgreement",
    "Invitation",
    "JudgedSubmission",
    "Judgement",
    "Lease",
    "LeaseKey",
    "LoggedEvent",
    "Made",
    "MaskObject",
    "NothingReason",
    "NothingToDo",
    "PointPrompt",
    "Prompt",
    "Receipt",
    "Returned",
    "Role",
    "SignedIn",
    "Stage",
    "StrokePrompt",
    "Submission",
    "SubmittedObject",
    "Task",
    "TaskCounts",
    "TaskState",
    "Verdict",
    "VerdictKind",
]

Role = Literal["annotator", "reviewer", "admin"]
Stage = Literal["manual", "semi"]
TaskState = Literal[
    "pending", "open", "leased", "submitted", "reviewing", "returned", "accepted", "skipped"
]
"""What a task waits for: the model's part (`engine.annotation.preparing`); somebody; the one who
holds its lease; a reviewer; the one who holds the review's lease; its annotator, again; nothing, as
it is done; nothing, as it was skipped."""
NothingReason = Literal["all-done", "all-leased", "closed", "needs-review", "own-work", "no-images"]

ROLES: tuple[Role, ...] = ("annotator", "reviewer", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """Somebody who may annotate.

    Attributes:
        annotator_id: 12 hex digits; stands in data sets, and says nothing about the person.
        name: for people; unique.
        role: each may do what those before it may.
        revoked_at: since when not any more.
    """

    annotator_id: str
    name: str
    role: Role
    invited_at: datetime
    revoked_at: datetime | None = None

    def may(self, role: Role) -> bool:
        """Return whether the person has at least this role."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What lets somebody in: the token is shown once, the database has only its hash."""

    annotator: Annotator
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A session of somebody's browser; `session_id` is a secret, of which a hash is stored."""

    session_id: str = field(repr=False)
    annotator: Annotator
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignImage:
    """An image of a campaign.

    Attributes:
        image_id: as in the data set.
        width: columns in pixels, after EXIF orientation.
        height: rows in pixels.
        uri: where the bytes are.
        score: what ordered it, for the reader; None: nothing did.
    """

    image_id: int
    width: int
    height: int
    uri: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSpec:
    """What a campaign is to be.

    Attributes:
        name: unique.
        stage: ``"manual"``: people start from nothing; ``"semi"``: from proposals.
        images: in the order in which they are given out.
        model: name of the model version that answers.
        model_id: of its weights.
        instructions: what people are to do, shown on the page.
        annotators_per_image: so many people annotate each image, for agreement.
        review: whether a second person judges each submission.
        ordering: how the images were ordered, as a JSON object.
        seed: of that order.
        pending: whether tasks wait for `give_out` before anybody gets them.
    """

    name: str
    stage: Stage
    images: tuple[CampaignImage, ...]
    model: str
    model_id: str
    instructions: str = ""
    annotators_per_image: int = 1
    review: bool = False
    ordering: str = "{}"
    seed: int = 0
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Images that are annotated in one stage with one model; see `CampaignSpec`.

    Attributes:
        campaign_id: the name's letters and digits, and 8 hex digits: unique everywhere.
        images: their number.
        opened_at: when.
        closed_at: since when nothing is given out any more.
    """

    campaign_id: str
    name: str
    stage: Stage
    model: str
    model_id: str
    instructions: str
    annotators_per_image: int
    review: bool
    ordering: str
    seed: int
    images: int
    opened_at: datetime
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCounts:
    """How many tasks wait for what; each is in exactly one of them.

    Attributes:
        open: nobody has it; also those whose lease is over, and those that the model still
            prepares.
        leased: somebody works on it.
        returned: rejected, and waits for its annotator.
        submitted: waits for a review, or is being reviewed.
    """

    total: int = 0
    open: int = 0
    leased: int = 0
    returned: int = 0
    submitted: int = 0
    accepted: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignState:
    """How far a campaign is, and one person in it.

    Attributes:
        state: ``"complete"``: every task is accepted or skipped.
        masks: in the newest submission of each task.
        mine_done: tasks that the person submitted and that were not returned.
        mine_returned: tasks that wait for the person again.
        mine_skipped: tasks that the person skipped.
        reviewable: tasks that the person could review now.
    """

    campaign: Campaign
    state: Literal["open", "complete", "closed"]
    tasks: TaskCounts
    masks: int
    mine_done: int = 0
    mine_returned: int = 0
    mine_skipped: int = 0
    reviewable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a reviewer says of one mask.

    Attributes:
        object_id: which.
        kind: ``"fix"`` accepts it with the reviewer's own `rle`.
        reason: why it was rejected.
    """

    object_id: str
    kind: VerdictKind
    reason: str = ""
    rle: Rle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """Why a task came back to its annotator."""

    reason: str
    verdicts: tuple[Verdict, ...]
    judged_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseKey:
    """What whoever works on a task shows: the lease is theirs, and has not gone to another."""

    task_id: int
    annotator_id: str
    lease_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One image for one annotator.

    Attributes:
        task_id: unique.
        slot: from 0 up to the campaign's annotators per image.
        state: what it waits for.
        annotator_id: who has it, or had it last.
        round: number of submissions so far.
        proposals: what the model had made before.
        draft: of the person who asks.
        returned: why it came back, if it did.
        skip_reason: why it was skipped, if it was.
    """

    task_id: int
    campaign: Campaign
    image: CampaignImage
    slot: int
    state: TaskState
    annotator_id: str | None
    round: int
    proposals: tuple[MaskObject, ...] = ()
    draft: Draft | None = None
    returned: Returned | None = None
    skip_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A task that somebody works on; nobody else gets it until `expires_at`, if not longer.

    Attributes:
        seconds: how long a heartbeat keeps it.
        submission: what is to be judged; None: the task is to be annotated.
    """

    task: Task
    key: LeaseKey
    seconds: int
    expires_at: datetime
    submission: JudgedSubmission | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToDo:
    """Why there is no task, for machines and for people."""

    reason: NothingReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The finished objects of a task, as they are handed in.

    Attributes:
        submission_id: a UUID of the client: handed in again it is the same submission.
        objects: all masks, kept proposals among them.
        deleted: ids of deleted objects; every proposal is either here or among the objects.
        exhaustive: whether nothing is left to annotate.
        page_id: of the page that it comes from.
        last_seq: of that page's last event of the task; 0: there was none.
        events: those of the page that may not be in the log yet.
    """

    submission_id: str
    objects: tuple[MaskObject, ...]
    deleted: tuple[str, ...] = ()
    exhaustive: bool = False
    page_id: str
    last_seq: int = 0
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a submission; the same answer however often it is handed in.

    Attributes:
        state: of the task, right after it.
    """

    submission_id: str
    task_id: int
    annotator_id: str
    state: TaskState
    kept: int
    corrected: int
    new: int
    deleted: int
    active_seconds: float
    submitted_at: datetime

    @property
    def objects(self) -> int:
        """Number of masks."""
        return self.kept + self.corrected + self.new


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSubmission:
    """A submission as the database has it.

    Attributes:
        annotator_id: whose it is.
        annotator: their name.
        active_seconds: all of the person's time on the task so far.
        objects: masks, in order.
        deleted: proposals that the person deleted.
        reviewer_id: who judged it; None: nobody has.
    """

    submission_id: str
    task_id: int
    annotator_id: str
    annotator: str
    round: int
    submitted_at: datetime
    exhaustive: bool
    active_seconds: float
    unattributed_seconds: float
    objects: tuple[SubmittedObject, ...]
    deleted: tuple[SubmittedObject, ...]
    reviewer_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of a review; the same answer however often it is handed in."""

    review_id: str
    task_id: int
    state: TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAgreement:
    """How well the annotators of one image agree: means of best-match IoU, 0 to 1.

    Attributes:
        pairs: (an annotator, another, their agreement), each two once.
    """

    image_id: int
    pairs: tuple[tuple[str, str, float], ...]

    @property
    def mean_iou(self) -> float:
        """Mean over the pairs."""
        return sum(iou for _, _, iou in self.pairs) / len(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTask:
    """A submission for figures: what it cost and what came of it.

    Attributes:
        current: whether no later submission of the task replaced it.
        state: of the task now.
    """

    campaign: Campaign
    image_id: int
    submission: JudgedSubmission
    current: bool
    state: TaskState

"""From photos to a campaign that people can work on; again: the campaign goes on.

    with Workspace.open("birds") as workspace, open_workspace_database(workspace) as db:
        opened = open_or_continue(workspace, db, CampaignRequest(name="first"), photos, limits, now)

Photos that a campaign has are not added twice, and what a campaign is (its stage, its model, how
many people annotate each image) does not change: another one takes another name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from engine.annotation.admin_token import keep_admin_token, read_admin_token
from engine.annotation.annotators import (
    close_session,
    invite,
    list_annotators,
    open_session,
    rotate,
)
from engine.annotation.campaigns import (
    add_images,
    campaign_images,
    find_campaign,
    open_campaign,
)
from engine.annotation.campaigns import campaign as campaign_of
from engine.annotation.database import FILE_NAME, Database, database_url, open_database
from engine.annotation.errors import NotSignedInError
from engine.annotation.records import Campaign, CampaignImage, CampaignSpec, Invitation, Stage
from engine.config import load_settings
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import ingest
from engine.dataset.inputs import ListedImage
from engine.errors import BadInputError
from engine.images import ImageLimits
from engine.records import ImageRecord, ModelVersion, SkippedImage

__all__ = [
    "Arranged",
    "CampaignRequest",
    "OpenedCampaign",
    "Order",
    "admin_invitation",
    "annotation_schema",
    "as_listed",
    "find_workspace_database",
    "open_chosen",
    "open_or_continue",
    "open_workspace_database",
]

log = logging.getLogger(__name__)

_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Arranged:
    """Images in the order in which they are given out, and how it came about, as JSON."""

    images: tuple[CampaignImage, ...]
    ordering: str


Order = Callable[[Sequence[CampaignImage], ModelVersion], Arranged]
"""Orders the images that are new to a campaign by what the campaign's model makes of them."""


def as_listed(images: Sequence[CampaignImage], version: ModelVersion) -> Arranged:
    """Leave images in the order in which they were named."""
    return Arranged(tuple(images), '{"strategy":"listed"}')


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRequest:
    """What somebody asks for; None leaves it to the campaign that is there, or to the default.

    Attributes:
        name: of the campaign; None: the stage's.
        stage: default ``"manual"``.
        model: name of a registered version; default the champion.
        instructions: shown to the annotators.
        annotators_per_image: default 1.
        review: whether a second person judges each submission; default no.
        seed: of the order, for the record.
    """

    name: str | None = None
    stage: Stage | None = None
    model: str | None = None
    instructions: str | None = None
    annotators_per_image: int | None = None
    review: bool | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCampaign:
    """What opening a campaign found.

    Attributes:
        campaign: as it is now.
        is_new: whether it was opened by this call.
        images_added: how many images it did not have before.
        duplicates: listed photos whose content another listed photo has.
        skipped: photos that cannot be used.
    """

    campaign: Campaign
    is_new: bool
    images_added: int
    duplicates: int = 0
    skipped: tuple[SkippedImage, ...] = ()


def open_workspace_database(workspace: Workspace) -> Database:
    """Open the annotation database of a workspace: a file in its local folder, or PostgreSQL.

    In PostgreSQL, which may serve many workspaces, each has a schema of its own.

    Raises:
        WorkspaceError: it cannot be opened, is damaged, or of a newer version.
        TransientError: it is busy or cannot be reached.
    """
    url = load_settings().database_url
    if url is None:
        return open_database(database_url(workspace.local_folder))
    return open_database(url.get_secret_value(), schema=annotation_schema(workspace))


def annotation_schema(workspace: Workspace) -> str:
    """Return where in PostgreSQL the tables of a workspace's annotation are."""
    return f"maskwheel_annotation_{workspace.workspace_id[:16]}"


def find_workspace_database(workspace: Workspace) -> Database | None:
    """Open the annotation database of a workspace; None: there is no file of it, nobody annotated.

    Raises:
        WorkspaceError, TransientError: as `open_workspace_database`.
    """
    has_server = load_settings().database_url is not None
    if not has_server and not (workspace.local_folder / FILE_NAME).is_file():
        return None
    return open_workspace_database(workspace)


def open_or_continue(
    workspace: Workspace,
    db: Database,
    request: CampaignRequest,
    photos: Sequence[ListedImage],
    limits: ImageLimits,
    now: datetime,
    *,
    order: Order = as_listed,
    on_image: Callable[[str], None] | None = None,
    threads: int = 8,
) -> OpenedCampaign:
    """Ingest photos and give them to a campaign, which is opened if there is none of the name.

    Killed at any point and called again, it ends where an undisturbed call ends.

    Args:
        workspace: whose images and models are used.
        db: its annotation database.
        request: what the campaign is to be.
        photos: what to annotate; none: the campaign goes on with the images that it has, a new one
            gets all of the workspace.
        limits: of images.
        now: UTC.
        order: of the images that are new to the campaign.
        on_image: called with each photo's address; for progress bars.
        threads: files read at the same time.

    Raises:
        BadInputError: nothing to annotate, or a campaign of the name that is another, or closed.
        WorkspaceError, TransientError: as of the workspace and the database.
    """
    name = request.name or request.stage or "manual"
    existing = find_campaign(db, name)
    if existing is not None:
        _check_same(workspace, existing, request)
        if not photos:
            return OpenedCampaign(campaign=existing, is_new=False, images_added=0)
        _check_open(existing)
    model = request.model if existing is None else existing.model_id
    version = _version(workspace, model)  # an unknown one is told before photos are read
    found = _find(workspace, photos, limits, now, on_image, threads)
    if existing is None:
        campaign = _open(db, name, request, order(found.images, version), version, now)
    else:
        known = {image.image_id for image in campaign_images(db, existing.campaign_id)}
        new = tuple(image for image in found.images if image.image_id not in known)
        if new:
            add_images(db, existing.campaign_id, order(new, version).images, now=now)
        campaign = campaign_of(db, existing.campaign_id)
    log.info("campaign %s has %d images", campaign.name, campaign.images)
    return OpenedCampaign(
        campaign=campaign,
        is_new=existing is None,
        images_added=campaign.images - (existing.images if existing is not None else 0),
        duplicates=found.duplicates,
        skipped=found.skipped,
    )


def open_chosen(
    workspace: Workspace,
    db: Database,
    request: CampaignRequest,
    choose: Callable[[ModelVersion], Arranged],
    now: datetime,
) -> OpenedCampaign | None:
    """Open a campaign over images that are chosen now; again: the campaign with those it has.

    Its tasks are pending until `engine.annotation.preparing` gives them out. So the choice is kept
    before anything is spent on it, and nobody sees an image before it is ready.

    Args:
        workspace: whose images and models are used.
        db: its annotation database.
        request: what the campaign is to be.
        choose: returns images that no other campaign has; called for a new campaign only.
        now: UTC.

    Returns:
        None: there is nothing to annotate, and no campaign of the name.

    Raises:
        BadInputError: a campaign of the name that is another.
        WorkspaceError, TransientError: as of the workspace and the database.
    """
    name = request.name or request.stage or "manual"
    existing = find_campaign(db, name)
    if existing is None:
        version = _version(workspace, request.model)
        arranged = choose(version)
        if not arranged.images:
            return None
        try:
            campaign = _open(db, name, request, arranged, version, now, pending=True)
        except BadInputError:
            existing = find_campaign(db, name)
            if existing is None:
                raise
            log.info("campaign %s was opened meanwhile by another process", name)
        else:
            log.info("campaign %s has %d images", campaign.name, campaign.images)
            return OpenedCampaign(campaign=campaign, is_new=True, images_added=campaign.images)
    _check_same(workspace, existing, request)
    return OpenedCampaign(campaign=existing, is_new=False, images_added=0)


def admin_invitation(workspace: Workspace, db: Database, now: datetime) -> str:
    """Return the token of the workspace's admin, the same each time on this machine.

    It is kept in a file that only its owner can read, beside the database, which whoever reads the
    file could change anyway: so a link that was opened yesterday still works today.

    Raises:
        WorkspaceError: the database failed.
    """
    token = read_admin_token(workspace.local_folder)
    if token is not None and _is_valid(db, token, now):
        return token
    token = _new_admin(db, now).token
    keep_admin_token(workspace.local_folder, token)
    return token


def _version(workspace: Workspace, model: str | None) -> ModelVersion:
    """Return a model by its name or id, by default the champion."""
    # It brings torch, which the service does without until something is to be encoded.
    from engine.learning.decisions import CHAMPION, resolve

    return resolve(workspace.store, model or CHAMPION)


def _open(
    db: Database,
    name: str,
    request: CampaignRequest,
    arranged: Arranged,
    version: ModelVersion,
    now: datetime,
    *,
    pending: bool = False,
) -> Campaign:
    spec = CampaignSpec(
        name=name,
        stage=request.stage or "manual",
        images=arranged.images,
        model=version.name,
        model_id=version.model_id,
        instructions=request.instructions or "",
        annotators_per_image=request.annotators_per_image or 1,
        review=bool(request.review),
        ordering=arranged.ordering,
        seed=request.seed,
        pending=pending,
    )
    return open_campaign(db, spec, now=now)


@dataclass(frozen=True, slots=True)
class _Found:
    images: tuple[CampaignImage, ...]
    duplicates: int
    skipped: tuple[SkippedImage, ...]


def _find(
    workspace: Workspace,
    photos: Sequence[ListedImage],
    limits: ImageLimits,
    now: datetime,
    on_image: Callable[[str], None] | None,
    threads: int,
) -> _Found:
    """Return the images to annotate, each once, in the order of the list."""
    if not photos:
        rows = workspace.table("images").scan().to_arrow().to_pylist()
        if not rows:
            raise BadInputError(
                f"{workspace.address} has no images yet; name photos to annotate, or try --demo"
            )
        records = sorted((ImageRecord(**row) for row in rows), key=lambda record: record.uri)
        return _Found(tuple(_campaign_image(record) for record in records), 0, ())
    listed: dict[int, CampaignImage] = {}

    def first(record: ImageRecord) -> None:
        listed.setdefault(record.image_id, _campaign_image(record))

    result = ingest(workspace, photos, limits, now, on_image, threads=threads, on_record=first)
    if not listed:
        reasons = "; ".join(f"{one.uri}: {one.message}" for one in result.skipped[:3])
        raise BadInputError(f"none of the {len(photos)} photos can be used: {reasons}")
    return _Found(tuple(listed.values()), result.duplicates, result.skipped)


def _check_same(workspace: Workspace, campaign: Campaign, request: CampaignRequest) -> None:
    asked: dict[str, tuple[object, object]] = {
        "stage": (request.stage, campaign.stage),
        "annotators per image": (request.annotators_per_image, campaign.annotators_per_image),
        "review": (request.review, campaign.review),
    }
    if request.model is not None:
        version = _version(workspace, request.model)
        asked["model"] = (version.model_id, campaign.model_id)
    for what, (wanted, has) in asked.items():
        if wanted is not None and wanted != has:
            raise BadInputError(
                f"campaign {campaign.name!r} was opened with {what} {has!r}, and {wanted!r} was "
                "asked for; leave the option out to go on with it, or name another --campaign"
            )


def _check_open(campaign: Campaign) -> None:
    if campaign.closed_at is not None:
        raise BadInputError(
            f"campaign {campaign.name!r} is closed; `maskwheel campaigns reopen "
            f"{campaign.campaign_id}` opens it again, or name another --campaign"
        )


def _campaign_image(record: ImageRecord) -> CampaignImage:
    return CampaignImage(
        image_id=record.image_id,
        width=record.width,
        height=record.height,
        uri=record.uri,
    )


def _is_valid(db: Database, token: str, now: datetime) -> bool:
    try:
        session = open_session(db, token, now=now)
    except NotSignedInError:
        return False
    close_session(db, session.session_id)
    return session.annotator.role == "admin"


def _new_admin(db: Database, now: datetime) -> Invitation:
    known = {person.name: person for person in list_annotators(db)}
    for number in count(1):
        name = _ADMIN if number == 1 else f"{_ADMIN}-{number}"
        person = known.get(name)
        if person is None:
            return invite(db, name, "admin", now=now)
        if person.role == "admin" and person.revoked_at is None:
            log.warning("the earlier link of %s ends: this machine does not have it", name)
            return rotate(db, person.annotator_id, now=now)
    raise RuntimeError("numbers have ended")

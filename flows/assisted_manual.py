"""The first stage as a flow: images are chosen and prepared, and people mask them with clicks.

>>> assisted_manual("birds", campaign="manual-1", images=200).url

No flow waits for people: the campaign's own completion starts what comes next. The same call again
goes on with the campaign of the name: what is prepared is not made again, and no image is added.
"""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from engine.annotation.choosing import ChoiceRequest, OrderName
from engine.annotation.opening import CampaignRequest
from engine.annotation.preparing import PreparedCampaign
from engine.learning.decisions import CHAMPION
from flows.campaign_steps import (
    export_decoder,
    open_campaign,
    prepare,
    show_nothing,
    summarise,
)
from flows.naming import describe_run

__all__ = ["assisted_manual"]

_NAME = "manual"


def _run_name() -> str:
    return f"open {flow_run.parameters.get('campaign') or _NAME}"


@flow(name="assisted-manual", flow_run_name=_run_name)
def assisted_manual(
    workspace: str,
    campaign: str | None = None,
    images: int | None = None,
    model: str = CHAMPION,
    order: OrderName = "mix",
    annotators_per_image: int = 1,
    review: bool = False,
    instructions: str = "",
    embed_ahead: int = 1000,
    device: str | None = None,
    seed: int = 0,
) -> PreparedCampaign:
    """Choose images, prepare them and open a campaign in which people make masks.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        campaign: its name; one that is there goes on. Default: ``manual``.
        images: how many; with fewer candidates all of them. Default: all.
        model: that answers the clicks: ``champion``, ``m2``, ``bundled``.
        order: which images come first, see `engine.annotation.ordering`; ``listed``: by address.
        annotators_per_image: so many people annotate each image.
        review: whether a second person judges each submission.
        instructions: shown to the annotators.
        embed_ahead: the first so many images are encoded before people get them.
        device: ``cpu``, ``cuda``, ``mps``; by default the best there is.
        seed: of the choice and of the order.

    Raises:
        BadInputError: a workspace without images, an unknown model, or a campaign of the name that
            is another.
        PartlyDoneError: some images could not be prepared; people have the others.
    """
    request = CampaignRequest(
        name=campaign or _NAME,
        stage="manual",
        # A campaign that is there keeps the champion of its day.
        model=None if model == CHAMPION else model,
        instructions=instructions,
        annotators_per_image=annotators_per_image,
        review=review,
        seed=seed,
    )
    choice = ChoiceRequest(images=images, order=order, seed=seed)
    describe_run(f"open {request.name}", workspace=workspace, stage="manual", campaign=request.name)
    opened = open_campaign(request, choice, None, workspace, device)
    if opened is None:
        return show_nothing(campaign or _NAME, "manual")
    export_decoder(opened.campaign.model_id, workspace, device)
    made = prepare(opened.campaign, None, embed_ahead, workspace, device)
    return summarise(opened, made, workspace)

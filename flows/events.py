"""What the engine announces, as Prefect events, for automations and the event feed.

    promote(..., announce=model_promoted)

Without a Prefect server nobody could hear them, so none is started for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.records import PromotionDecision

MODEL_PROMOTED = "maskwheel.model.promoted"


def model_promoted(decision: PromotionDecision) -> None:
    """Emit that the champion changed, by a promotion or a rollback."""
    from prefect.events import emit_event
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        return
    emit_event(
        MODEL_PROMOTED,
        resource={
            "prefect.resource.id": f"maskwheel.model.{decision.champion}",
            "prefect.resource.name": decision.champion,
        },
        payload={
            "champion": decision.champion,
            "previous_champion": decision.previous_champion,
            "outcome": decision.outcome,
            "decision": decision.number,
            "sha256": decision.champion_sha256,
            "decided_by": decision.decided_by,
            "note": decision.note,
        },
    )

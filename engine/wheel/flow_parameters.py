"""What a policy means for each flow that has more than one caller.

    flow_parameters(policy)["retrain"]["steps"]

The data engine passes these, and the deployments have them as defaults: so a training that an event
starts, or a person, is the one that the wheel would have asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.wheel.policy_values import Policy

__all__ = ["flow_parameters"]


def flow_parameters(policy: Policy) -> Mapping[str, Mapping[str, object]]:
    """Return parameters by the flow's name; what is about one workspace or release is not in it."""
    training, automatic, audit = policy.retraining, policy.automatic, policy.audit
    return {
        "retrain": {
            "recipe": training.recipe,
            "init": training.init,
            "steps": training.steps,
            "hold_out": training.hold_out,
            "promote": training.promote,
        },
        "fully-automatic": {
            "model": "champion",
            "preset": automatic.preset or None,
            "precision": automatic.precision,
        },
        "audit": {
            "min_mean_iou": audit.min_mean_iou or None,
            "min_above_90": audit.min_above_90 or None,
            "min_above_75": audit.min_above_75 or None,
            "images": audit.images,
        },
        "release": {
            "report": policy.release.report,
            "export": list(policy.release.export),
        },
    }

"""A workspace in numbers: what the flows of the wheel do to it, without doing it.

world = World(photos=500)
world.run(action)                 # the effect of a flow that succeeds
world.people_finish()
state = world.state()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from engine.wheel.decision import Action, ActionKind
from engine.wheel.state import AuditLook, CampaignLook, TrainingLook, WheelState

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class World:
    """What is there; `masks_of_image`, `gate` and `audit` say how people and models do."""

    photos: int = 0
    masks_of_image: int = 5
    gate: Callable[[int], bool] = lambda number: True
    audit: Callable[[int], bool] = lambda number: True
    annotated: int = 0
    human_masks: dict[str, int] = field(default_factory=lambda: {"manual": 0, "semi": 0})
    new_masks: int = 0
    human_images: int = 0
    releases: int = 0
    masked: int = 0
    champion: str = "bundled"
    campaigns: list[CampaignLook] = field(default_factory=list)
    trainings: list[TrainingLook] = field(default_factory=list)
    audits: list[AuditLook] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    history: list[Action] = field(default_factory=list)

    def state(self) -> WheelState:
        release = f"r{self.releases}" if self.releases else None
        return WheelState(
            workspace="/birds",
            workspace_id="0" * 32,
            images=self.photos,
            candidates=self.photos - self.annotated,
            masked=self.masked,
            champion=self.champion,
            release=release,
            release_tags=tuple(tag for tag, of in self.tags.items() if of == release),
            tags=tuple(self.tags),
            manual_masks=self.human_masks["manual"],
            semi_masks=self.human_masks["semi"],
            new_human_masks=self.new_masks,
            human_images=self.human_images,
            campaigns=tuple(self.campaigns),
            trainings=tuple(self.trainings),
            audits=tuple(self.audits),
        )

    def kinds(self) -> list[ActionKind]:
        return [action.kind for action in self.history]

    def run(self, action: Action) -> None:
        """Do what the flow does."""
        self.history.append(action)
        given = action.arguments()
        match action.kind:
            case "assisted-manual" | "semi-automatic":
                self._open(str(given["campaign"]), int(str(given["images"])), action.kind)
            case "publish-annotations":
                self._publish(str(given["campaign"]))
            case "retrain":
                self._retrain(str(given["release"]))
            case "fully-automatic":
                self.releases += 1
                self.masked = self.photos
            case "audit":
                passed = self.audit(len(self.audits) + 1)
                look = AuditLook(
                    release=str(given["release"]),
                    passed=passed,
                    reason="as planned" if passed else "mean IoU 0.50, below 0.75",
                    audited_at=START + timedelta(days=len(self.history)),
                )
                self.audits.append(look)
            case "release":
                assert given["tag"] not in self.tags
                self.tags[str(given["tag"])] = str(given["release"])

    def people_finish(self) -> None:
        """Let people finish every open campaign."""
        self.campaigns = [
            look
            if look.is_over
            else replace(look, state="complete", done=look.tasks, due=look.tasks)
            for look in self.campaigns
        ]

    def ingest(self, photos: int) -> None:
        self.photos += photos

    def _open(self, name: str, images: int, kind: str) -> None:
        assert all(look.name != name for look in self.campaigns), f"{name} is open"
        taken = min(images, self.photos - self.annotated)
        assert taken > 0
        self.annotated += taken
        look = CampaignLook(
            campaign_id=f"{name}-0000",
            name=name,
            stage="manual" if kind == "assisted-manual" else "semi",
            state="open",
            tasks=taken,
            done=0,
        )
        self.campaigns.append(look)

    def _publish(self, name: str) -> None:
        [place] = [i for i, c in enumerate(self.campaigns) if c.name == name]
        look = self.campaigns[place]
        masks = look.due * self.masks_of_image
        self.human_masks[look.stage] += masks
        self.new_masks += masks
        self.human_images += look.due if masks else 0
        self.releases += 1
        self.campaigns[place] = replace(look, published=look.published + look.due, due=0)

    def _retrain(self, release: str) -> None:
        assert self.new_masks, "there is nothing to learn"
        self.new_masks = 0
        version = f"m{len(self.trainings) + 1}"
        is_better = self.gate(len(self.trainings) + 1)
        look = TrainingLook(
            version=version,
            releases=(release,),
            outcome="promoted" if is_better else "refused",
            reason="" if is_better else "not better",
            decided_at=START + timedelta(days=len(self.history)),
        )
        self.trainings.append(look)
        if is_better:
            self.champion, self.masked = version, 0

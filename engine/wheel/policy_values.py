"""What a policy says, and the presets; `engine.wheel.policy` reads and writes it as a file.

    PRESETS["paper"].manual.images_of_round(1)          # 20000

Every value carries the words that stand beside it in ``policy.toml``: they are written once, here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeVar

from engine.errors import BadInputError

__all__ = [
    "PRESETS",
    "SOURCES",
    "WORDS",
    "AuditPolicy",
    "AutomaticPolicy",
    "Policy",
    "ReleasePolicy",
    "RetrainingPolicy",
    "SemiPolicy",
    "StagePolicy",
]

T = TypeVar("T")
ORDERS = ("listed", "random", "uncertain", "disagreement", "uncovered", "diverse", "mix")
"""Of `engine.annotation.choosing`, which needs torch where this is read without."""

WORDS = "words"
"""The key of a field's metadata under which its words are."""


def _value(default: T, words: str) -> T:
    found: T = field(default=default, metadata={WORDS: words})
    return found


def _check(values: object, name: str, low: float, high: float) -> None:
    value = getattr(values, name)
    if value is not None and not low <= value <= high:
        raise BadInputError(f"{name}: got {value}; expected {low:,} to {high:,}")


def _check_one_of(values: object, name: str, known: Sequence[str]) -> None:
    if getattr(values, name) not in known:
        names = ", ".join(repr(one) for one in known)
        raise BadInputError(f"{name}: got {getattr(values, name)!r}; expected one of {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePolicy:
    """A stage in which people annotate; ``fields()`` carry the words for each value."""

    images: int = _value(
        60, "Images that people annotate in this stage, all rounds together; 0 leaves it out."
    )
    retrainings: int = _value(
        2, "Rounds: each is a campaign, its release, and a retraining of the model."
    )
    annotators_per_image: int = _value(1, "People who annotate each image, independently.")
    review: bool = _value(False, "Whether a second person judges what was handed in.")
    order: str = _value("mix", f"Which images come first: {', '.join(ORDERS)}.")
    instructions: str = _value("", "Shown to the annotators, Markdown.")

    def __post_init__(self) -> None:
        _check(self, "images", 0, 10**9)
        _check(self, "retrainings", 0, 1000)
        _check(self, "annotators_per_image", 1, 20)
        _check_one_of(self, "order", ORDERS)
        if (self.images == 0) != (self.retrainings == 0) or self.retrainings > self.images:
            raise BadInputError(
                f"retrainings: got {self.retrainings} rounds over {self.images} images; expected "
                "an image per round at least, or neither"
            )

    def images_of_round(self, number: int) -> int:
        """Return how many images a round has; rounds count from 1, extra ones are like the last."""
        of_each, left = divmod(self.images, max(1, self.retrainings))
        return of_each + (number <= left)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemiPolicy(StagePolicy):
    """The stage in which the model proposes the masks that it is sure of."""

    order: str = _value("uncovered", "Likewise; the default: what the model masks least of.")
    proposer: str = _value(
        "train",
        "What proposes masks: 'train' a detector of objects on what people have made, 'newest' the "
        "one trained last, 'auto' the automatic stage's masks.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingPolicy:
    """When the model is trained again, and how."""

    min_new_masks: int = _value(
        100, "People's masks that no training has seen: from so many on a retraining is due."
    )
    schedule: str = _value("", "Cron for retrainings besides those; '' for none.")
    recipe: str = _value("finetune", "Of `maskwheel train`.")
    init: str = _value("champion", "Where training starts: 'champion', a version, 'scratch'.")
    steps: int | None = _value(None, "Optimiser steps; left out: the recipe's.")
    hold_out: int | None = _value(
        None, "Images kept for comparing candidate and champion; left out: 5 %, 10 to 200."
    )
    promote: bool = _value(
        True, "Whether a candidate that passes the gate becomes champion; false leaves it to you."
    )
    refusals: int = _value(
        2, "After so many candidates in a row that the gate refused, a person is asked to look."
    )

    def __post_init__(self) -> None:
        _check(self, "min_new_masks", 1, 10**12)
        _check(self, "refusals", 1, 1000)
        _check(self, "steps", 1, 10**9)
        _check(self, "hold_out", 2, 10**6)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticPolicy:
    """The fully automatic stage, over everything, after the rounds of people."""

    preset: str = _value(
        "", "'paper' for the crops of SA-1B: 21 passes per image; 'fast' and '' for one."
    )
    precision: Literal["float32", "bfloat16", "float16"] = _value(
        "float32", "What the model computes in."
    )
    nightly: str = _value(
        "0 2 * * *",
        "Cron at which new photos are masked by the champion, in any stage; '' for never.",
    )

    def __post_init__(self) -> None:
        _check_one_of(self, "preset", ("", "paper", "fast"))
        _check_one_of(self, "precision", ("float32", "bfloat16", "float16"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPolicy:
    """What the automatic masks must reach before they are released."""

    enabled: bool = _value(True, "Whether a release is audited before it gets a tag.")
    min_mean_iou: float = _value(
        0.75,
        "Mean IoU of the automatic masks with those of people, at least; of two people with each "
        "other it is 0.85 to 0.91. 0 asks nothing.",
    )
    min_above_90: float = _value(0.0, "Share of them with an IoU above 0.90; 0 asks nothing.")
    min_above_75: float = _value(0.0, "Share of them with an IoU above 0.75; 0 asks nothing.")
    images: int = _value(500, "Images that are compared, at most.")
    extra_rounds: int = _value(
        1, "After an audit that failed people annotate another round, at most so many times."
    )

    def __post_init__(self) -> None:
        for bar in ("min_mean_iou", "min_above_90", "min_above_75"):
            _check(self, bar, 0, 1)
        _check(self, "images", 1, 10**6)
        _check(self, "extra_rounds", 0, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePolicy:
    """How a finished data set is released."""

    tag: str = _value("v", "What its tags begin with: 'v' gives v1, v2, ...; '' never tags.")
    report: bool = _value(True, "Whether the report with statistics and pictures is made.")
    export: tuple[str, ...] = _value(
        (), 'Formats to export, e.g. ["sa1b", "coco"]; see `maskwheel export --help`.'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the wheel turns; see each value's words, or `maskwheel policy show`."""

    preset: str = _value("small", "Where values that are left out come from.")
    attempts: int = _value(
        3, "A run that fails is started again, so many times in all; then a person has to look."
    )
    look_every_minutes: int = _value(
        10, "How often the data engine looks; what happens between is told by events."
    )
    maintenance: str = _value("0 4 * * 0", "Cron of the tidying; '' for never.")
    manual: StagePolicy = field(
        default_factory=StagePolicy,
        metadata={WORDS: "People mask with the model's help, click by click."},
    )
    semi: SemiPolicy = field(
        default_factory=SemiPolicy,
        metadata={WORDS: "The model masks what it is sure of, people add what is missing."},
    )
    retraining: RetrainingPolicy = field(
        default_factory=RetrainingPolicy,
        metadata={WORDS: "When the model is trained again, and how."},
    )
    automatic: AutomaticPolicy = field(
        default_factory=AutomaticPolicy,
        metadata={WORDS: "The model masks everything alone, after the rounds of people."},
    )
    audit: AuditPolicy = field(
        default_factory=AuditPolicy,
        metadata={WORDS: "What the automatic masks must reach before they are released."},
    )
    release: ReleasePolicy = field(
        default_factory=ReleasePolicy, metadata={WORDS: "How a finished data set is released."}
    )

    def __post_init__(self) -> None:
        _check(self, "attempts", 1, 100)
        _check(self, "look_every_minutes", 1, 24 * 60)

    def fitted_to(self, images: int) -> Policy:
        """Return the policy with stages small enough for a workspace of so many images.

        Each of the stages of people takes 30 % of the images at most; the rest stay for the
        automatic stage to be tried on.
        """

        def fitted(stage: _Stage) -> _Stage:
            most = max(1, images * 3 // 10)
            if stage.images <= most:
                return stage
            return replace(stage, images=most, retrainings=min(stage.retrainings, most))

        if images < 1:
            return self
        return replace(self, manual=fitted(self.manual), semi=fitted(self.semi))


_Stage = TypeVar("_Stage", bound=StagePolicy)

_PAPER = Policy(
    preset="paper",
    manual=StagePolicy(images=120_000, retrainings=6),
    semi=SemiPolicy(images=180_000, retrainings=5),
    retraining=RetrainingPolicy(min_new_masks=100_000),
    automatic=AutomaticPolicy(preset="paper", nightly=""),
    audit=AuditPolicy(min_mean_iou=0.0, min_above_90=0.94, min_above_75=0.97, extra_rounds=0),
)

PRESETS: Mapping[str, Policy] = MappingProxyType({"paper": _PAPER, "small": Policy()})
"""The paper's data engine, and one for hundreds of photos."""

SOURCES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "paper": {
            "manual": "Segment Anything (arXiv 2304.02643), section 4: 4.3M masks on 120k images, "
            "the model retrained 6 times.",
            "semi": "Section 4: 5.9M more masks on 180k images, the model retrained 5 times; masks "
            "proposed by a detector trained on the first stage.",
            "retraining": "The paper counts retrainings, not masks: the rounds decide, and the "
            "minimum, which is ours, only keeps a poor round from training.",
            "automatic": "Section 4 and appendix B: 1.1B masks on 11M images, once, at the end.",
            "audit": "Section 5: on 500 images 94 % of the masks have an IoU above .90 with what "
            "professionals made of them, and 97 % above .75; it was audited once, at the end.",
            "release": "Section 5: the automatic masks are what is released.",
        }
    }
)
"""Where a preset's numbers stand, by section of the file."""

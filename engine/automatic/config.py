"""Settings of the automatic stage, under the names that the public SAM generator gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from engine.errors import BadInputError
from model import Sam

_PAPER_RULES = (
    "crop_n_layers",
    "crop_n_points_downscale_factor",
    "min_mask_region_area",
    "max_mask_area_ratio",
    "drop_small_masks",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticConfig:
    """How to prompt an image everywhere and which masks to keep; defaults as in the public code.

    Attributes:
        points_per_side: the grid on the whole image has this many points squared.
        points_per_batch: prompts decoded at once; bounds memory, changes nothing else.
        pred_iou_thresh: masks are kept above this predicted IoU; 0 keeps all.
        stability_score_thresh: and from this stability on; 0 keeps all.
        stability_score_offset: distance of the two stability thresholds from the mask threshold 0.
        box_nms_thresh: within a crop, of two boxes with a larger IoU the better scored stays.
        crop_n_layers: layer i adds 4**i crops, each masked on its own; 0 is the whole image only.
        crop_nms_thresh: the same across crops, where the smaller crop wins.
        crop_overlap_ratio: overlap of the first layer's crops as a share of the short side.
        crop_n_points_downscale_factor: layer i has points_per_side / factor**i points per side.
        min_mask_region_area: islands and holes below this many pixels are removed; 0 leaves them.
        max_mask_area_ratio: masks that fill more of the image are dropped; 1 keeps them (paper:
            0.95).
        drop_small_masks: drop a mask whose largest island is below `min_mask_region_area`, as the
            paper does; the public generator keeps the island.

    Raises:
        BadInputError: a value out of range.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    max_mask_area_ratio: float = 1.0
    drop_small_masks: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("points_per_side", 1, 1024),
            ("points_per_batch", 1, 65536),
            ("pred_iou_thresh", 0, 2),
            ("stability_score_thresh", 0, 1),
            ("stability_score_offset", 0, 1000),
            ("box_nms_thresh", 0, 1),
            ("crop_n_layers", 0, 6),
            ("crop_nms_thresh", 0, 1),
            ("crop_overlap_ratio", 0, 1),
            ("crop_n_points_downscale_factor", 1, 1024),
            ("min_mask_region_area", 0, float("inf")),
            ("max_mask_area_ratio", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInputError(f"{name} must be from {low} to {high}; got {value}")

    @classmethod
    def paper(cls) -> AutomaticConfig:
        """Return the settings that SA-1B was made with: 1 + 4 + 16 crops with 32, 16 and 8 points.

        Source: Segment Anything, appendix B.
        """
        return cls(
            crop_n_layers=2,
            crop_n_points_downscale_factor=2,
            min_mask_region_area=100,
            max_mask_area_ratio=0.95,
            drop_small_masks=True,
        )

    @classmethod
    def recommended(cls, sam: Sam, **explicit: float | int | bool) -> AutomaticConfig:
        """Start from the thresholds that a model carries; explicit values win."""
        return cls(**{**asdict(sam.config.recommended), **explicit})

    @classmethod
    def for_model(
        cls, sam: Sam, explicit: Mapping[str, float | int | bool], preset: str | None = None
    ) -> AutomaticConfig:
        """Combine a preset's crops and area rules, the model's thresholds and what the user set.

        The thresholds come from the model even under a preset: predicted IoUs mean what the model
        that predicts them means. For SAM's own checkpoints they are the paper's.

        Args:
            sam: the model.
            explicit: settings by name; they win.
            preset: ``paper`` or None.

        Raises:
            BadInputError: an unknown preset or setting, or a value out of range.
        """
        return cls.for_thresholds(asdict(sam.config.recommended), explicit, preset)

    @classmethod
    def for_thresholds(
        cls,
        recommended: Mapping[str, float | int],
        explicit: Mapping[str, float | int | bool],
        preset: str | None = None,
    ) -> AutomaticConfig:
        """Do as `for_model` for a model that is not loaded: its record has its thresholds.

        Raises:
            BadInputError: an unknown preset or setting, or a value out of range.
        """
        if preset not in (None, "paper"):
            raise BadInputError(f"unknown preset {preset!r}; expected 'paper'")
        if unknown := sorted(set(explicit) - {f.name for f in fields(cls)}):
            raise BadInputError(f"unknown settings: {', '.join(unknown)}")
        paper = cls.paper()
        rules = {name: getattr(paper, name) for name in _PAPER_RULES} if preset else {}
        return cls(**{**recommended, **rules, **explicit})

    def result_fields(self) -> dict[str, float | int | bool]:
        """Return the settings that decide the result, by name: all but the batch size."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "points_per_batch"}

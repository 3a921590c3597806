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
_FAST_RULES = ("adaptive_cells", "half_precision")


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
        adaptive_cells: 0 prompts every point of the grid. Else a quarter of them is prompted first,
            and the others only near masks whose box is below this many cells of the grid; crops
            that hold no such mask are left out. Fewer cells: faster, and more is missed.
        half_precision: prompts are decoded in bfloat16, where the device computes in it.

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
    adaptive_cells: int = 0
    half_precision: bool = False

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
            ("adaptive_cells", 0, 1024**2),
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
    def fast(cls) -> AutomaticConfig:
        """Return the settings that trade a few masks for speed: how many, `infra/docs/speed.md`."""
        return cls(adaptive_cells=256, half_precision=True)

    @classmethod
    def recommended(cls, sam: Sam, **explicit: float | int | bool) -> AutomaticConfig:
        """Start from the thresholds that a model carries; explicit values win."""
        return cls(**{**asdict(sam.config.recommended), **explicit})

    @classmethod
    def for_model(
        cls, sam: Sam, explicit: Mapping[str, float | int | bool], preset: str | None = None
    ) -> AutomaticConfig:
        """Combine a preset's rules, the model's thresholds and what the user set.

        The thresholds come from the model even under a preset: predicted IoUs mean what the model
        that predicts them means. For SAM's own checkpoints they are the paper's.

        Args:
            sam: the model.
            explicit: settings by name; they win.
            preset: ``paper`` for its crops and area rules, ``fast``, or None.

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
        known = {"paper": (cls.paper, _PAPER_RULES), "fast": (cls.fast, _FAST_RULES)}
        if preset is not None and preset not in known:
            raise BadInputError(f"unknown preset {preset!r}; expected 'paper' or 'fast'")
        if unknown := sorted(set(explicit) - {f.name for f in fields(cls)}):
            raise BadInputError(f"unknown settings: {', '.join(unknown)}")
        rules = {}
        if preset is not None:
            make, names = known[preset]
            rules = {name: getattr(make(), name) for name in names}
        return cls(**{**recommended, **rules, **explicit})

    def result_fields(self) -> dict[str, float | int | bool]:
        """Return the settings that decide the result, by name: all but the batch size.

        Settings younger than the first data sets are left out where they change nothing, so that
        what was masked before them counts as masked with the same settings.
        """
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name != "points_per_batch"
            and not (f.name in _FAST_RULES and getattr(self, f.name) == f.default)
        }

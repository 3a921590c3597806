"""One side of a comparison of mask generators, in a process of its own.

    python -m tests.benchmarks.peers public job.json answer.json

Sides: `ours`; `public`, the segment-anything code, and `fast`, segment-anything-fast, each from a
checkout that the job names; `transformers`, that package's mask-generation pipeline; `float64`, no
peer but the public code in float64: it shows what rounding does to everybody's masks. All load the
same weights and mask the same image with the same settings; the clock runs from the pixels to COCO
run-lengths (transformers: to its own result, which is masks).

torchvision, which the public code imports, is replaced where it is absent, in this process only:
see `torchvision_stand_in`. segment-anything-fast is written for CUDA; where there is none, its
Triton kernel (which it does not use in float32) is left out and memory is not pinned, so that it
runs at all; and since it keeps all logits of a batch of batches, it gets one batch at a time.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic import AutomaticConfig, generate_masks
from engine.masks import encode_runs
from engine.records import Rle
from model import SamConfig, load_sam
from model.checkpoint import read_checkpoint
from model.image_encoder import VitConfig
from tests.automatic.oracle_segmenter import paint_scene
from tests.benchmarks.stopwatch import Spent, Stopwatch
from tests.benchmarks.torchvision_stand_in import install_stand_in

REST = "rest"
Image = NDArray[np.uint8]

# What the public generator knows too; our own settings change nothing by default.
SHARED_SETTINGS = (
    "points_per_side",
    "points_per_batch",
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_n_layers",
    "crop_nms_thresh",
    "crop_overlap_ratio",
    "crop_n_points_downscale_factor",
    "min_mask_region_area",
)


def shared_settings(config: AutomaticConfig) -> dict[str, float]:
    """Return what a job says of a configuration."""
    return {name: getattr(config, name) for name in SHARED_SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every side does.

    Attributes:
        weights: a .safetensors file with its configuration, official names.
        image: an .npy file, (H, W, 3) uint8 RGB.
        settings: by name, see `SHARED_SETTINGS`.
        threads: of torch.
        checkouts: folders by side, for those that are not installed.
    """

    weights: str
    image: str
    settings: dict[str, float]
    threads: int
    checkouts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMask:
    """One mask as a side found it; what a side does not tell is None."""

    rle: Rle
    bbox_xywh: tuple[float, ...]
    predicted_iou: float
    stability_score: float | None = None
    point_xy: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a side took and found.

    Attributes:
        stages: seconds by stage; together all there is.
        peak_bytes: most memory that the process had resident, with interpreter, torch and weights.
        masks: in the side's order.
    """

    stages: dict[str, Spent]
    peak_bytes: int
    masks: list[FoundMask]

    @property
    def wall(self) -> float:
        """Seconds of wall time."""
        return sum(spent.wall for spent in self.stages.values())

    @property
    def processor(self) -> float:
        """Seconds of processor time."""
        return sum(spent.processor for spent in self.stages.values())


Generator = Callable[[Image], list[FoundMask]]


def ours(job: Job, clock: Stopwatch) -> Generator:
    """This project's generator."""
    sam = load_sam(job.weights, device="cpu")
    config = AutomaticConfig(**job.settings)  # type: ignore[arg-type]  # as the job says
    for seam, stage in (("encode", "encode"), ("encode_batch", "encode"), ("score", "decode")):
        clock.wrap(sam, seam, stage)
    clock.wrap(sam, "draw", "decode")

    def generate(image: Image) -> list[FoundMask]:
        return [found(dict(m.to_sa1b())) for m in generate_masks(sam, image, config)]

    return generate


def public(job: Job, clock: Stopwatch) -> Generator:
    """The public segment-anything code."""
    package = from_checkout("segment_anything", job.checkouts["public"])
    return _public_generator(package, job, clock)


def float64(job: Job, clock: Stopwatch) -> Generator:
    """The public code in float64: what float32 rounding does to the masks of every side."""
    package = from_checkout("segment_anything", job.checkouts["public"])
    return _public_generator(package, job, clock, dtype=torch.float64)


def fast(job: Job, clock: Stopwatch) -> Generator:
    """segment-anything-fast, its code as it is: uncompiled float32, for equal results."""
    if not torch.cuda.is_available():
        _leave_out_cuda()
    package = from_checkout("segment_anything_fast", job.checkouts["fast"])
    return _public_generator(package, job, clock, process_batch_size=1)


def transformers(job: Job, clock: Stopwatch) -> Generator:
    """The mask-generation pipeline of the transformers package."""
    import transformers as package
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    from tests.model.transformers_names import transformers_names

    state, config = _weights(job)
    assert isinstance(config.encoder, VitConfig)
    model = package.SamModel(_transformers_config(package, config, config.encoder)).eval()
    model.load_state_dict(transformers_names(state, model.state_dict()))
    side = config.image_size
    processor = SamImageProcessorPil(
        size={"longest_edge": side}, pad_size={"height": side, "width": side}
    )
    pipeline = package.pipeline(
        "mask-generation", model=model, image_processor=processor, device=-1
    )
    if install_stand_in():  # after transformers has looked for torchvision itself
        unchecked = SamImageProcessorPil.post_process_for_mask_generation.__wrapped__
        processor.post_process_for_mask_generation = partial(unchecked, processor)
    for owner, seam, stage in (
        (processor, "preprocess", "encode"),
        (model, "get_image_embeddings", "encode"),
        (model, "get_image_wide_positional_embeddings", "decode"),
        (model.prompt_encoder, "forward", "decode"),
        (model.mask_decoder, "forward", "decode"),
    ):
        clock.wrap(owner, seam, stage)
    s = job.settings
    ask = partial(
        pipeline,
        points_per_crop=s["points_per_side"],
        points_per_batch=s["points_per_batch"],
        pred_iou_thresh=s["pred_iou_thresh"],
        stability_score_thresh=s["stability_score_thresh"],
        stability_score_offset=s["stability_score_offset"],
        crops_n_layers=s["crop_n_layers"],
        crop_overlap_ratio=s["crop_overlap_ratio"],
        crop_n_points_downscale_factor=s["crop_n_points_downscale_factor"],
        crops_nms_thresh=s["crop_nms_thresh"],
        output_rle_mask=True,
        output_bboxes_mask=True,
    )

    def generate(image: Image) -> list[FoundMask]:
        from PIL.Image import fromarray

        answer: Any = ask(fromarray(image))
        masks = []
        for runs, score, box in zip(
            answer["rle_mask"], answer["scores"], answer["bounding_boxes"], strict=True
        ):
            x0, y0, x1, y1 = (float(v) for v in box)
            rle = encode_runs(runs["counts"], *runs["size"])
            masks.append(
                FoundMask(rle=rle, bbox_xywh=(x0, y0, x1 - x0, y1 - y0), predicted_iou=float(score))
            )
        return masks

    return generate


SIDES: Mapping[str, Callable[[Job, Stopwatch], Generator]] = {
    "ours": ours,
    "public": public,
    "float64": float64,
    "fast": fast,
    "transformers": transformers,
}


def found(record: Mapping[str, Any]) -> FoundMask:
    """Read a record of the public generator, or one of ours in SA-1B's form."""
    (height, width), counts = record["segmentation"]["size"], record["segmentation"]["counts"]
    x, y = record["point_coords"][0]
    return FoundMask(
        rle=Rle(height, width, counts),
        bbox_xywh=tuple(float(v) for v in record["bbox"]),
        predicted_iou=record["predicted_iou"],
        stability_score=record["stability_score"],
        point_xy=(x, y),
    )


def answer(side: str, job: Job) -> Answer:
    """Load the side, then mask the image with the clock running."""
    torch.set_num_threads(job.threads)
    clock = Stopwatch()
    generate = SIDES[side](job, clock)
    image = np.load(job.image)
    clock.start(REST)
    masks = generate(image)
    clock.stop()
    return Answer(stages=clock.spent, peak_bytes=peak_bytes(), masks=masks)


def peak_bytes() -> int:
    """Return the most memory that this process has had resident.

    Linux's own figure for the process: `getrusage` would count what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def painted(height: int, width: int, seed: int = 0) -> Image:
    """Paint a scene of any size: a larger one is one with larger pixels."""
    zoom = max(1, -(-height * width // 1_000_000))
    image = paint_scene(seed, -(-height // zoom), -(-width // zoom), 40)
    image = image.repeat(zoom, axis=0).repeat(zoom, axis=1)[:height, :width]
    return np.ascontiguousarray(image)


def _weights(job: Job) -> tuple[dict[str, Tensor], SamConfig]:
    state, config = read_checkpoint(Path(job.weights))
    if config is None:
        raise ValueError(f"{job.weights} does not say its model's sizes; expected a file of ours")
    return state, config


def from_checkout(name: str, folder: str) -> ModuleType:
    """Import a package that is not installed; its code is only run."""
    if not (Path(folder) / name / "__init__.py").is_file():
        raise FileNotFoundError(f"{folder} has no package {name}; expected a checkout of it")
    install_stand_in()
    sys.path.insert(0, folder)
    return importlib.import_module(name)


def _public_generator(
    package: ModuleType,
    job: Job,
    clock: Stopwatch,
    *,
    dtype: torch.dtype = torch.float32,
    **options: int,
) -> Generator:
    """Build the generator of either checkout: they share their classes' names and arguments."""
    state, config = _weights(job)
    model = public_model(package, config)
    model.load_state_dict(state, assign=True)
    positions = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    model.to(dtype)  # but for the positions, which the code computes in float32
    model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix = positions
    generator = package.SamAutomaticMaskGenerator(
        model.eval(), output_mode="coco_rle", **job.settings, **options
    )
    for owner, seam, stage in (
        (generator.predictor, "set_image", "encode"),
        (model.prompt_encoder, "forward", "decode"),
        (model.prompt_encoder, "get_dense_pe", "decode"),
        (model.mask_decoder, "forward", "decode"),
    ):
        clock.wrap(owner, seam, stage)

    def generate(image: Image) -> list[FoundMask]:
        return [found(record) for record in generator.generate(image)]

    return generate


def public_model(package: ModuleType, config: SamConfig) -> Any:
    """Put the public parts together in this configuration's sizes."""
    parts = importlib.import_module(f"{package.__name__}.modeling")
    vit = config.encoder
    assert isinstance(vit, VitConfig)
    grid = config.image_size // vit.patch_size
    return parts.Sam(
        image_encoder=parts.ImageEncoderViT(
            depth=vit.depth,
            embed_dim=vit.width,
            img_size=config.image_size,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=vit.heads,
            patch_size=vit.patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=vit.global_blocks,
            window_size=vit.window_size,
            out_chans=config.dim,
        ),
        prompt_encoder=parts.PromptEncoder(
            embed_dim=config.dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=parts.MaskDecoder(
            num_multimask_outputs=3,
            transformer=parts.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.dim,
                mlp_dim=config.decoder_mlp_dim,
                num_heads=config.decoder_heads,
            ),
            transformer_dim=config.dim,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )


def _transformers_config(package: Any, config: SamConfig, vit: VitConfig) -> Any:
    return package.SamConfig(
        vision_config={
            "hidden_size": vit.width,
            "output_channels": config.dim,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.heads,
            "image_size": config.image_size,
            "window_size": vit.window_size,
            "global_attn_indexes": list(vit.global_blocks),
            "num_pos_feats": config.dim // 2,
        },
        prompt_encoder_config={"hidden_size": config.dim, "image_size": config.image_size},
        mask_decoder_config={
            "hidden_size": config.dim,
            "mlp_dim": config.decoder_mlp_dim,
            "num_attention_heads": config.decoder_heads,
            "layer_norm_eps": 1e-5,  # as in the official code; its own default is 1e-6
        },
    )


def _leave_out_cuda() -> None:
    """Let segment-anything-fast run without CUDA: no Triton kernel, no pinned memory."""

    def as_it_is(function: Callable[..., object]) -> Callable[..., object]:
        return function

    importlib.import_module("torch._dynamo")  # it looks for the real Triton itself
    language = ModuleType("triton.language")
    vars(language)["constexpr"] = object
    triton = ModuleType("triton")
    vars(triton).update(jit=as_it_is, language=language)
    sys.modules.update({"triton": triton, "triton.language": language})
    nested = torch.nested.nested_tensor

    def unpinned(*tensors: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        return nested(*tensors, **options)

    torch.nested.nested_tensor = unpinned


def main() -> None:
    """Answer a job."""
    side, job_file, answer_file = sys.argv[1:]
    job = Job(**json.loads(Path(job_file).read_text()))
    given = answer(side, job)
    Path(answer_file).write_text(json.dumps(asdict(given)))


def read_answer(path: Path) -> Answer:
    """Read what `main` wrote."""
    raw = json.loads(path.read_text())
    return Answer(
        stages={name: Spent(**spent) for name, spent in raw["stages"].items()},
        peak_bytes=raw["peak_bytes"],
        masks=[
            FoundMask(**{**m, "rle": Rle(**m["rle"]), "bbox_xywh": tuple(m["bbox_xywh"])})
            for m in raw["masks"]
        ],
    )


if __name__ == "__main__":
    main()

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import (
    SIZES,
    CheckpointError,
    Prompts,
    RecommendedThresholds,
    Sam,
    build_sam,
    load_sam,
    save_sam,
)
from model import checkpoint as checkpoint_module
from tests.model.small_models import (
    SMALL_COMPACT,
    SMALL_VIT,
    random_image,
    relative_error,
    small_sam,
)

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def official_encoder(width: int, depth: int, heads: int, global_blocks: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {
        "image_encoder.pos_embed": (1, 64, 64, width),
        "image_encoder.patch_embed.proj.weight": (width, 3, 16, 16),
        "image_encoder.patch_embed.proj.bias": (width,),
        "image_encoder.neck.0.weight": (256, width, 1, 1),
        "image_encoder.neck.2.weight": (256, 256, 3, 3),
        **norm("image_encoder.neck.1", 256),
        **norm("image_encoder.neck.3", 256),
    }
    for i in range(depth):
        block = f"image_encoder.blocks.{i}"
        offsets = 127 if i in global_blocks else 27
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width)
        shapes |= linear(f"{block}.attn.proj", width, width)
        shapes |= {f"{block}.attn.rel_pos_{axis}": (offsets, width // heads) for axis in "hw"}
        shapes |= linear(f"{block}.mlp.lin1", 4 * width, width)
        shapes |= linear(f"{block}.mlp.lin2", width, 4 * width)
    return shapes


def official_prompt_encoder() -> Shapes:
    prefix = "prompt_encoder"
    embeddings = [f"point_embeddings.{i}" for i in range(4)] + [
        "not_a_point_embed",
        "no_mask_embed",
    ]
    return {
        f"{prefix}.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        **{f"{prefix}.{name}.weight": (1, 256) for name in embeddings},
        f"{prefix}.mask_downscaling.0.weight": (4, 1, 2, 2),
        f"{prefix}.mask_downscaling.0.bias": (4,),
        **norm(f"{prefix}.mask_downscaling.1", 4),
        f"{prefix}.mask_downscaling.3.weight": (16, 4, 2, 2),
        f"{prefix}.mask_downscaling.3.bias": (16,),
        **norm(f"{prefix}.mask_downscaling.4", 16),
        f"{prefix}.mask_downscaling.6.weight": (256, 16, 1, 1),
        f"{prefix}.mask_downscaling.6.bias": (256,),
    }


def official_attention(name: str, inner: int) -> Shapes:
    shapes = linear(f"{name}.out_proj", 256, inner)
    for part in "qkv":
        shapes |= linear(f"{name}.{part}_proj", inner, 256)
    return shapes


def official_decoder() -> Shapes:
    transformer = "mask_decoder.transformer"
    shapes: Shapes = {
        "mask_decoder.iou_token.weight": (1, 256),
        "mask_decoder.mask_tokens.weight": (4, 256),
        "mask_decoder.output_upscaling.0.weight": (256, 64, 2, 2),
        "mask_decoder.output_upscaling.0.bias": (64,),
        "mask_decoder.output_upscaling.3.weight": (64, 32, 2, 2),
        "mask_decoder.output_upscaling.3.bias": (32,),
        **norm("mask_decoder.output_upscaling.1", 64),
        **norm(f"{transformer}.norm_final_attn", 256),
        **official_attention(f"{transformer}.final_attn_token_to_image", 128),
    }
    for i in range(2):
        layer = f"{transformer}.layers.{i}"
        shapes |= official_attention(f"{layer}.self_attn", 256)
        shapes |= official_attention(f"{layer}.cross_attn_token_to_image", 128)
        shapes |= official_attention(f"{layer}.cross_attn_image_to_token", 128)
        shapes |= linear(f"{layer}.mlp.lin1", 2048, 256) | linear(f"{layer}.mlp.lin2", 256, 2048)
        for n in range(1, 5):
            shapes |= norm(f"{layer}.norm{n}", 256)
    heads = {f"output_hypernetworks_mlps.{i}": 32 for i in range(4)} | {"iou_prediction_head": 4}
    for head, out in heads.items():
        for i, rows in enumerate((256, 256, out)):
            shapes |= linear(f"mask_decoder.{head}.layers.{i}", rows, 256)
    return shapes


@pytest.mark.parametrize(
    ("name", "encoder", "millions"),
    [
        ("vit_b", (768, 12, 12, (2, 5, 8, 11)), 93.7),
        ("vit_l", (1024, 24, 16, (5, 11, 17, 23)), 312.3),
        ("vit_h", (1280, 32, 16, (7, 15, 23, 31)), 641.1),
    ],
)
def test_names_and_shapes_are_those_of_the_official_checkpoints(
    name: str, encoder: tuple[int, int, int, tuple[int, ...]], millions: float
) -> None:
    expected = official_encoder(*encoder) | official_prompt_encoder() | official_decoder()
    with torch.device("meta"):
        state = Sam(SIZES[name]).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected
    total = sum(tensor.numel() for tensor in state.values())
    assert total / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.fixture
def tiny_vit_b(monkeypatch: pytest.MonkeyPatch) -> Sam:
    """A model that the loader knows under the name vit_b, without its 375 MB."""
    monkeypatch.setitem(SIZES, "vit_b", SMALL_VIT)
    return small_sam(SMALL_VIT)


def same_weights(one: Sam, other: Sam) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}])
@pytest.mark.parametrize("name", [None, "vit_b"])
def test_an_official_pth_round_trips(
    tmp_path: Path, tiny_vit_b: Sam, wrap: Callable[[Any], Any], name: str | None
) -> None:
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(wrap(tiny_vit_b.state_dict()), path)
    loaded = load_sam(path, name=name, device="cpu")
    assert same_weights(loaded, tiny_vit_b)
    assert loaded.config == SMALL_VIT
    assert not loaded.training
    assert loaded.model_id() == tiny_vit_b.model_id()


def test_build_sam_loads_a_checkpoint_of_a_named_size(tmp_path: Path, tiny_vit_b: Sam) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tiny_vit_b.state_dict(), path)
    assert same_weights(build_sam("vit_b", path, device="cpu"), tiny_vit_b)


@pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=["vit", "compact"])
def test_safetensors_round_trip_with_the_configuration(tmp_path: Path, config: Any) -> None:
    config = dataclasses.replace(
        config, recommended=RecommendedThresholds(pred_iou_thresh=0.5, min_mask_region_area=20)
    )
    sam = small_sam(config)
    path = tmp_path / "deep" / "model.safetensors"
    save_sam(sam, path)
    loaded = load_sam(path, device="cpu")
    assert loaded.config == config
    assert same_weights(loaded, sam)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_loaded_weights_can_be_trained_on(tmp_path: Path) -> None:
    save_sam(small_sam(SMALL_COMPACT), tmp_path / "m.safetensors")
    loaded = load_sam(tmp_path / "m.safetensors", device="cpu")
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_saving_over_a_model_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for seed in (1, 2):
        save_sam(small_sam(SMALL_COMPACT, seed), path)
    assert same_weights(load_sam(path, device="cpu"), small_sam(SMALL_COMPACT, 2))


def test_missing_unexpected_and_misshapen_weights_are_named(
    tmp_path: Path, tiny_vit_b: Sam
) -> None:
    state = tiny_vit_b.state_dict()
    del state["mask_decoder.iou_token.weight"]
    state["head.bias"] = torch.zeros(3)
    state["image_encoder.neck.1.weight"] = torch.zeros(7)
    state["image_encoder.neck.1.bias"] = state["image_encoder.neck.1.bias"].int()
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_sam(path)
    message = str(caught.value)
    assert "missing: mask_decoder.iou_token.weight;" in message
    assert "unexpected: head.bias;" in message
    assert "of another shape: image_encoder.neck.1.weight;" in message
    assert "integers where floats belong, or the reverse: image_encoder.neck.1.bias" in message


def test_many_missing_weights_are_counted(tmp_path: Path, tiny_vit_b: Sam) -> None:
    state = {k: v for k, v in tiny_vit_b.state_dict().items() if k.startswith("image_encoder")}
    torch.save(state, tmp_path / "m.pth")
    missing = len(tiny_vit_b.state_dict()) - len(state)
    with pytest.raises(CheckpointError, match=f"missing: mask_decoder.* and {missing - 5} more"):
        load_sam(tmp_path / "m.pth")


@pytest.mark.parametrize(
    "content",
    [
        {"layer.weight": torch.zeros(2)},
        {},
        {1: torch.zeros(2), "a": torch.zeros(2)},
        [torch.zeros(2)],
        torch.zeros(2),
        {"model": {"optimizer": {"lr": 0.1}}},
    ],
    ids=["other model", "empty", "keys that are no names", "list", "tensor", "no weights"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        load_sam(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_sam(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        load_sam(tmp_path)


def broken_contents(good: bytes) -> list[bytes]:
    cuts = [good[:length] for length in (0, 1, 10, len(good) // 2, len(good) - 30)]
    pickles = [b"\x80\x02" + bytes([op]) + b"abc\n" for op in range(256) if op not in (0x80,)]
    return [*cuts, b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(100), *pickles]


def test_truncated_and_foreign_bytes_are_refused_as_pth(tmp_path: Path, tiny_vit_b: Sam) -> None:
    path = tmp_path / "bad.pth"
    torch.save(tiny_vit_b.state_dict(), path)
    for content in broken_contents(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad\.pth"):
            load_sam(path)


def test_truncated_and_foreign_bytes_are_refused_as_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    save_sam(small_sam(SMALL_COMPACT), path)
    for content in broken_contents(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
            load_sam(path)


class Attack:
    """Unpickles into a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("write", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, 2))])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    tmp_path: Path, write: Callable[[object, Path], object]
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    pickle.loads(pickle.dumps(Attack(trace)))  # noqa: S301 - the attack works where it is let in
    assert trace.exists()
    trace.unlink()
    write({"image_encoder.pos_embed": Attack(trace)}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        load_sam(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "config",
    [
        "not json",
        "3",
        "[]",
        "{}",
        json.dumps({"encoder_kind": "swin"}),
        json.dumps({"encoder_kind": "vit", "encoder": []}),
        json.dumps({"encoder_kind": "vit", "encoder": {"heads": 0}, "recommended": {}}),
        json.dumps({"encoder_kind": "compact", "encoder": {"colour": 1}, "recommended": {}}),
    ],
)
def test_a_configuration_of_another_version_is_refused(tmp_path: Path, config: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"maskwheel.config": config})
    with pytest.raises(CheckpointError, match="configuration of another version"):
        load_sam(path)


def test_safetensors_without_a_configuration_are_recognised_by_their_weights(
    tmp_path: Path, tiny_vit_b: Sam
) -> None:
    path = tmp_path / "converted.safetensors"
    save_sam(tiny_vit_b, path)
    weights: dict[str, Tensor] = load_file(path)
    save_file(weights, path)
    assert same_weights(load_sam(path, device="cpu"), tiny_vit_b)


def test_a_checkpoint_of_another_size_than_asked_for_is_refused(
    tmp_path: Path, tiny_vit_b: Sam
) -> None:
    torch.save(tiny_vit_b.state_dict(), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="holds a small_vit model; asked for vit_h"):
        load_sam(tmp_path / "m.pth", name="vit_h")


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bundled, vit_b, vit_h, vit_l"):
        build_sam("vit_x")
    with pytest.raises(ValueError, match="bundled, vit_b, vit_h, vit_l"):
        load_sam(tmp_path / "m.pth", name="vit_x")


def test_random_weights_and_the_chosen_device_are_logged(
    tiny_vit_b: Sam, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger=checkpoint_module.__name__):
        sam = build_sam("vit_b")
    assert "random weights" in caplog.text
    assert f"runs on {sam.device.type}" in caplog.text
    assert not sam.training


@pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=["vit", "compact"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.02)], ids=["bf16", "fp16"]
)
def test_half_precision_runs_on_the_cpu_close_to_float32(
    tmp_path: Path, config: Any, dtype: torch.dtype, tolerance: float
) -> None:
    path = tmp_path / "m.safetensors"
    save_sam(small_sam(config), path)
    full = load_sam(path, device="cpu")
    half = load_sam(path, device=torch.device("cpu"), dtype=dtype)
    assert half.dtype == dtype
    assert half.device == torch.device("cpu")
    image = random_image(90, 120)
    side = config.image_size // 4
    shape = (side, side) if config is SMALL_VIT else (96 // 4, side)
    prompts = Prompts(
        points_xy=torch.tensor([[[30.0, 40.0], [50, 60]]]),  # type: ignore[arg-type]
        point_labels=[[1, 0]],  # type: ignore[arg-type]
        boxes_xyxy=[[10, 10, 80, 70]],  # type: ignore[arg-type]
        mask_logits=torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0)),
    )
    wanted = full.predict(full.encode(image), prompts)
    got = half.predict(half.encode(image), prompts)
    assert got.iou_NM.dtype == got.low_res_logits_NMhw.dtype == torch.float32
    assert relative_error(got.low_res_logits_NMhw, wanted.low_res_logits_NMhw) < tolerance
    assert relative_error(got.iou_NM, wanted.iou_NM) < tolerance
    assert not torch.equal(got.iou_NM, wanted.iou_NM)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    sam = small_sam(SMALL_COMPACT)
    with torch.no_grad():
        sam.image_encoder.smooth[2][1].running_var[3] = float("inf")  # type: ignore[index, union-attr]
    with pytest.raises(CheckpointError, match=r"smooth\.2\.1\.running_var"):
        save_sam(sam, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_bundled_weights_are_finite() -> None:
    tensors = build_sam("bundled", device="cpu").state_dict().values()
    assert all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())


def test_loading_draws_nothing_and_so_imports_no_compiler() -> None:
    code = (
        "import sys; from model import build_sam; build_sam('bundled', device='cpu')\n"
        "found = {'torch._dynamo', 'sympy'} & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

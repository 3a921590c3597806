from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

from engine.annotation.decoder_files import (
    EXPORT_VERSION,
    export_decoder_files,
    find_decoder_files,
    read_description,
)
from engine.annotation.embeddings import StoredEmbedding, embedding_bytes, read_embedding
from engine.annotation.onnx_decoder import DecoderPrompts, OnnxDecoder
from engine.errors import BadInputError, WorkspaceError
from model import Prompts, Sam, build_sam
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam

CLICK = DecoderPrompts(points=((60.0, 40.0, 1),))


@pytest.fixture(scope="module")
def sam() -> Sam:
    return small_sam(SMALL_VIT)


@pytest.fixture(scope="module")
def folder(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_decoder_files(sam, tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def decoder(folder: Path) -> OnnxDecoder:
    return OnnxDecoder(folder)


def stored(sam: Sam, image_HWC3: NDArray[np.uint8]) -> StoredEmbedding:
    return read_embedding(embedding_bytes(sam, image_HWC3))


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.mark.parametrize(
    ("prompts", "same"),
    [
        (
            DecoderPrompts(points=((30.5, 20.0, 1), (90.0, 60.0, 0))),
            Prompts(
                points_xy=np.array([[[30.5, 20.0], [90.0, 60.0]]]), point_labels=np.array([[1, 0]])
            ),
        ),
        (
            DecoderPrompts(box=(20.0, 10.0, 70.0, 55.5)),
            Prompts(boxes_xyxy=np.array([[20.0, 10.0, 70.0, 55.5]])),
        ),
        (
            DecoderPrompts(points=((30.5, 20.0, 1),), box=(20.0, 10.0, 70.0, 55.5)),
            Prompts(
                points_xy=np.array([[[30.5, 20.0]]]),
                point_labels=np.array([[1]]),
                boxes_xyxy=np.array([[20.0, 10.0, 70.0, 55.5]]),
            ),
        ),
    ],
    ids=["points", "box", "both"],
)
def test_prompts_in_pixels_of_the_original_are_answered_as_by_the_model(
    sam: Sam, decoder: OnnxDecoder, prompts: DecoderPrompts, same: Prompts
) -> None:
    image = random_image(180, 240)  # twice the model's input: coordinates are scaled
    answer = decoder.decode(decoder.prepare(stored(sam, image)), prompts)
    scored = sam.score(sam.encode(image), same)
    wanted = sam.draw(scored)[0].numpy()
    assert answer.logits_4hw.shape == wanted.shape
    assert overlap(answer.logits_4hw > 0, wanted > 0) > 0.98  # both halves are float16 here
    assert np.abs(answer.iou_4 - scored.iou_N4[0].numpy()).max() < 0.02


def test_an_answer_goes_back_in_as_a_mask_prompt(sam: Sam, decoder: OnnxDecoder) -> None:
    image = random_image(90, 120)
    prepared = decoder.prepare(stored(sam, image))
    first = decoder.decode(prepared, CLICK)
    again = DecoderPrompts(points=CLICK.points, mask_logits=first.logits_4hw[1])
    answer = decoder.decode(prepared, again)
    prompts = Prompts(
        points_xy=np.array([[[60.0, 40.0]]]),
        point_labels=np.array([[1]]),
        mask_logits=torch.from_numpy(first.logits_4hw[1])[None, None],
    )
    wanted = sam.draw(sam.score(sam.encode(image), prompts))[0].numpy()
    assert overlap(answer.logits_4hw > 0, wanted > 0) > 0.98
    assert np.abs(answer.logits_4hw - first.logits_4hw).max() > 0.01


def test_prompts_that_cannot_be_meant_are_refused(sam: Sam, decoder: OnnxDecoder) -> None:
    prepared = decoder.prepare(stored(sam, random_image(90, 120)))
    with pytest.raises(BadInputError, match="a point or a box"):
        DecoderPrompts()
    with pytest.raises(BadInputError, match="labels are 1 or 0"):
        DecoderPrompts(points=((1.0, 1.0, 2),))
    with pytest.raises(BadInputError, match="finite"):
        DecoderPrompts(box=(0.0, 0.0, float("nan"), 1.0))
    wrong = DecoderPrompts(points=CLICK.points, mask_logits=np.zeros((8, 8), np.float32))
    with pytest.raises(BadInputError, match=r"mask_logits must be \(32, 32\); got \(8, 8\)"):
        decoder.decode(prepared, wrong)


def test_an_embedding_of_another_model_is_refused(decoder: OnnxDecoder) -> None:
    other = stored(small_sam(SMALL_COMPACT), random_image(90, 120))
    with pytest.raises(BadInputError, match="small_compact"):
        decoder.prepare(other)


def test_threads_share_a_decoder(sam: Sam, decoder: OnnxDecoder) -> None:
    prepared = decoder.prepare(stored(sam, random_image(90, 120)))
    wanted = decoder.decode(prepared, CLICK).logits_4hw
    answers: list[NDArray[np.float32]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(decoder.decode(prepared, CLICK).logits_4hw))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(np.array_equal(answer, wanted) for answer in answers)


def test_a_decoder_is_exported_once_and_found_again(sam: Sam, tmp_path: Path) -> None:
    model_id = sam.model_id()
    assert find_decoder_files(tmp_path, model_id) is None
    folder = export_decoder_files(sam, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert export_decoder_files(sam, tmp_path, model_id) == folder
    assert find_decoder_files(tmp_path, model_id) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert read_description(folder).model_id == model_id


def structure(path: Path) -> str:
    """Digest what a graph does, whatever its weights: operators, attributes and wiring."""

    def lines(graph: onnx.GraphProto) -> Iterator[str]:
        constants = {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            inputs = ["constant" if name in constants else name for name in node.input]
            yield f"{node.op_type} {inputs} {list(node.output)}"
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from lines(attribute.g)
                else:
                    value = onnx.helper.get_attribute_value(attribute)
                    yield f"{attribute.name} {value!r}"

    text = "\n".join(lines(onnx.load(path).graph))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Of prepare and decode, for plain SAM and for the bundled model.
STRUCTURES = {1: ("269adaabdadf", "c924b6fc730f", "9d9d7ad5fa19", "35a357c04a34")}


def test_graphs_that_change_get_a_new_version_so_that_old_files_are_not_used_again(
    tmp_path: Path,
) -> None:
    found = []
    for config in (SMALL_VIT, SMALL_COMPACT):
        description = read_description(export_decoder_files(small_sam(config), tmp_path))
        found += [structure(description.prepare), structure(description.decode)]
    assert STRUCTURES.get(EXPORT_VERSION) == tuple(found), (
        "the graphs have changed: raise EXPORT_VERSION and write their digests here"
    )


def test_damaged_files_are_named(sam: Sam, tmp_path: Path) -> None:
    folder = export_decoder_files(sam, tmp_path)
    read_description(folder).decode.write_bytes(b"cut off")
    with pytest.raises(WorkspaceError, match="no usable ONNX file"):
        OnnxDecoder(folder)
    (folder / "decoder.json").write_text("{}")
    with pytest.raises(WorkspaceError, match="describes no decoder"):
        OnnxDecoder(folder)


def test_answering_needs_no_torch(sam: Sam, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(embedding_bytes(sam, random_image(90, 120)))
    code = (
        "import sys, pathlib\n"
        "from engine.annotation.embeddings import read_embedding\n"
        "from engine.annotation.onnx_decoder import DecoderPrompts, OnnxDecoder\n"
        f"decoder = OnnxDecoder(pathlib.Path({str(folder)!r}))\n"
        f"data = pathlib.Path({str(tmp_path / 'a.safetensors')!r}).read_bytes()\n"
        "prepared = decoder.prepare(read_embedding(data))\n"
        "answer = decoder.decode(prepared, DecoderPrompts(points=((3.0, 4.0, 1),)))\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else answer.iou_4.shape != (4,))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_masks_of_photos_are_those_of_the_model_in_full_precision(tmp_path: Path) -> None:
    sam = build_sam("bundled", device="cpu")
    decoder = OnnxDecoder(export_decoder_files(sam, tmp_path))
    overlaps = []
    for photo in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        embedding = sam.encode(photo)
        prepared = decoder.prepare(stored(sam, photo))
        height, width = photo.shape[:2]
        for u, v in ((0.3, 0.4), (0.5, 0.5), (0.7, 0.6)):
            x, y = u * width, v * height
            prompts = Prompts(points_xy=np.array([[[x, y]]]), point_labels=np.array([[1]]))
            wanted = sam.draw(sam.score(embedding, prompts))[0].numpy() > 0
            answer = decoder.decode(prepared, DecoderPrompts(points=((x, y, 1),)))
            got = answer.logits_4hw > 0
            overlaps += [overlap(a, b) for a, b in zip(got, wanted, strict=True) if b.sum() > 50]
    assert len(overlaps) > 30
    assert np.mean(overlaps) > 0.99

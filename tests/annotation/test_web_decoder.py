"""The decoder in a real browser: its masks are those of `Sam.predict`, with threads and without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from engine.masks import decode_mask
from engine.records import Rle
from model import ImageEmbedding, Prompts, Sam, build_sam
from model.export import embedding_tensors, export_decoder
from model.types import ImageFeatures
from tests.click_page import Clicks, MissingToolError, build_click_page, click_page

HEIGHT, WIDTH = 300, 420
# The browser computes in another order: logits next to 0 may fall on its other side.
FLIPS_PER_MASK = 5


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model and the image that it has encoded, as precise as it travels."""

    sam: Sam
    embedding: ImageEmbedding


@pytest.fixture(scope="module")
def model() -> Model:
    sam = build_sam("bundled", device="cpu")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[np.hypot(y - 150, x - 120) < 80] = (200, 60, 40)
    image[80:220, 260:380] = (60, 180, 90)
    embedding = sam.encode(image)
    features = embedding.features
    travelled = ImageFeatures(
        features.coarse_BCHW.half().float(),
        tuple(level.half().float() for level in features.fine_BCHW),
    )
    return Model(sam, ImageEmbedding(travelled, embedding.frame))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    folder = tmp_path_factory.mktemp("site")
    try:
        build_click_page(folder)
    except MissingToolError as error:
        pytest.skip(str(error))
    export_decoder(model.sam, folder / "model", half_weights=False)
    tensors = embedding_tensors(model.embedding.features)
    save_file(tensors, folder / "model" / "embedding.safetensors")
    return folder


def _points(*points: tuple[int, int, int], mask_logits: torch.Tensor | None = None) -> Prompts:
    return Prompts(
        points_xy=np.array([[point[:2] for point in points]], np.float64),
        point_labels=np.array([[point[2] for point in points]]),
        mask_logits=mask_logits,
    )


def _predicted(model: Model, prompts: Prompts) -> tuple[list[NDArray[np.bool_]], torch.Tensor]:
    """Return the masks in the order in which the page offers them, and the logits of the first."""
    several = model.sam.predict(model.embedding, prompts, multimask=True)
    order = several.iou_NM[0].argsort(descending=True).tolist()
    masks = [several.masks_NMHW[0, i].numpy() for i in order]
    logits = several.low_res_logits_NMhw[:, order[0]]
    points = 0 if prompts.points_xy is None else prompts.points_xy.shape[1]
    if points == 1 and prompts.boxes_xyxy is None and prompts.mask_logits is None:
        return masks, logits
    single = model.sam.predict(model.embedding, prompts, multimask=False)
    return [single.masks_NMHW[0, 0].numpy(), *masks], single.low_res_logits_NMhw[:, 0]


def test_clicks_boxes_and_corrections_give_the_masks_of_predict(site: Path, model: Model) -> None:
    with click_page(site) as page:
        assert page.fact("isolated") is True
        decoder, _ = page.start(kind="ours", folder="model", width=WIDTH, height=HEIGHT, threads=2)

        found = page.click(decoder, Clicks(points=((120, 150, 1),))).masks
        first, logits = _predicted(model, _points((120, 150, 1)))
        _expect_alike(found, first)

        found = page.click(decoder, Clicks(points=((120, 150, 1), (300, 100, 0)), after=0)).masks
        corrected, _ = _predicted(
            model,
            _points((120, 150, 1), (300, 100, 0), mask_logits=logits[:, None]),
        )
        _expect_alike(found, corrected)

        found = page.click(decoder, Clicks(box=(255, 75, 385, 225))).masks
        boxed, _ = _predicted(model, Prompts(boxes_xyxy=np.array([[255.0, 75, 385, 225]])))
        _expect_alike(found, boxed)


def test_a_page_that_is_not_isolated_decodes_with_one_thread(site: Path, model: Model) -> None:
    with click_page(site, isolated=False) as page:
        assert page.fact("isolated") is False
        decoder, _ = page.start(kind="ours", folder="model", width=WIDTH, height=HEIGHT, threads=1)
        found = page.click(decoder, Clicks(points=((320, 150, 1),))).masks
    predicted, _ = _predicted(model, _points((320, 150, 1)))
    _expect_alike(found, predicted)


def _expect_alike(found: list[Rle], predicted: list[NDArray[np.bool_]]) -> None:
    assert len(found) == len(predicted)
    for rle, wanted_HW in zip(found, predicted, strict=True):
        assert wanted_HW.any()
        assert int((decode_mask(rle) != wanted_HW).sum()) <= FLIPS_PER_MASK

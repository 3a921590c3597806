"""The two graphs of an exported decoder, for plain SAM and for the bundled model.

`prepare_graph` holds what depends on the image alone, `decode_graph` what a prompt needs. Outputs
of the first are inputs of the second by name.

Shapes: P image tokens as h w rows, C channels; see `model.folded_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from model.compact_encoder import CompactConfig, FineFeatures
from model.folded_decoder import (
    Decoded,
    ImageTokens,
    SharedImage,
    brushes,
    first_block,
    predicted_iou,
    shared_image,
    transform,
    two_way_block,
)
from model.folded_guidance import (
    GuidedImage,
    foreground_mean,
    guidance,
    probes,
    sample,
    terrain,
)
from model.folded_prompts import (
    TOKEN_STRIDE,
    GraphPrompt,
    dense_change,
    image_positions,
    prompt_inputs,
    sparse_tokens,
    squeezed,
)
from model.graph_layers import (
    convolution,
    doubled,
    layers_of,
    linear,
    norm,
    project_rows,
    to_pixels,
    to_squares,
)
from model.guidance import GUIDANCE_STRIDE, GuidedMaskDecoder, GuidedPromptEncoder
from model.layers import LayerNorm2d
from model.mask_decoder import MaskDecoder
from model.onnx_graph import Graph, Value
from model.sam import Sam
from model.two_way_transformer import TwoWayBlock
from model.types import ImageFeatures

COARSE = "coarse"
_FINE = tuple(name.rpartition("_")[0] for name in FineFeatures._fields)
_SHARED = ("keys", "values", "queries")


def named_features(features: ImageFeatures) -> dict[str, Tensor]:
    """Name the tensors of one image's features as `prepare` takes them."""
    if not features.fine_BCHW:
        return {COARSE: features.coarse_BCHW}
    fine = dict(zip(_FINE, features.fine_BCHW, strict=True))
    return {COARSE: features.coarse_BCHW, **fine}


def embedding_shapes(sam: Sam) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of an embedding's tensors; None where they depend on the image."""
    config = sam.config
    channels = {COARSE: config.dim}
    if isinstance(config.encoder, CompactConfig):
        affinity, barriers = config.encoder.affinity_dim, config.encoder.barriers
        widths = (affinity, affinity, config.dim // 4, config.dim // 8, barriers)
        channels.update(zip(_FINE, widths, strict=True))
    return {name: (1, count, None, None) for name, count in channels.items()}


def prepare_graph(sam: Sam, *, half_weights: bool) -> Graph:
    """Write the graph that runs once per image."""
    graph = Graph("prepare", half_weights=half_weights)
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    given = {
        name: graph.input(name, np.float16, shape).cast(np.float32)
        for name, shape in embedding_shapes(sam).items()
    }
    coarse = given[COARSE]
    dim, height, width = sam.config.dim, coarse.size(2), coarse.size(3)
    image_hwC = coarse.reshape(dim, height, width).transpose(1, 2, 0)
    positions_hwC = image_positions(graph, encoder, height, width)
    if isinstance(encoder, GuidedPromptEncoder):
        _guided_outputs(graph, sam, given)
    else:
        image_hwC = image_hwC + graph.weight(encoder.no_mask_embed.weight.view(-1))
        plain, placed = (x.reshape(-1, dim) for x in (image_hwC, image_hwC + positions_hwC))
        shared = shared_image(graph, decoder, ImageTokens(plain, placed))
        values = (shared.keys_HdP, shared.values_HPd, shared.queries_HPd)
        for name, value, shape in zip(_SHARED, values, _shared_shapes(decoder), strict=True):
            graph.output(name, value, shape)
    graph.output("image", image_hwC, (None, None, dim))
    graph.output("positions", positions_hwC, (None, None, dim))
    return graph


def _shared_shapes(decoder: MaskDecoder) -> tuple[tuple[int | None, ...], ...]:
    attention = first_block(decoder).cross_attn_token_to_image
    heads, per_head = attention.heads, attention.q_proj.out_features // attention.heads
    return (heads, per_head, None), (heads, None, per_head), (heads, None, per_head)


def decode_graph(sam: Sam, *, half_weights: bool) -> Graph:
    """Write the graph that answers one prompt."""
    graph = Graph("decode", half_weights=half_weights)
    dim, decoder = sam.config.dim, sam.mask_decoder
    image_hwC = graph.input("image", np.float32, (None, None, dim))
    positions_PC = graph.input("positions", np.float32, (None, None, dim)).reshape(-1, dim)
    height, width = image_hwC.size(0), image_hwC.size(1)
    prompt = prompt_inputs(graph)
    size_xy = graph.concat([width, height], axis=0).cast(np.float32) * float(TOKEN_STRIDE)
    scene = _Scene(image_hwC.reshape(-1, dim), positions_PC, height, width, size_xy)
    if isinstance(decoder, GuidedMaskDecoder):
        decoded, logits = _guided(graph, sam, prompt, scene)
    else:
        decoded, logits = _plain(graph, sam, prompt, scene)
    iou = predicted_iou(graph, decoder, decoded.tokens_5C, sigmoid=sam.config.iou_sigmoid)
    graph.output("iou", iou, (1, 4))
    graph.output("logits", logits, (1, 4, None, None))
    return graph


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """The image in a decoding graph.

    Attributes:
        image_PC: image tokens.
        positions_PC: their positional encoding.
        height: rows of image tokens, (1,).
        width: columns of image tokens, (1,).
        size_xy: (width, height) of the padded input, float32 (2,).
    """

    image_PC: Value
    positions_PC: Value
    height: Value
    width: Value
    size_xy: Value


def _plain(graph: Graph, sam: Sam, prompt: GraphPrompt, scene: _Scene) -> tuple[Decoded, Value]:
    """Decode as SAM does; without a mask prompt the first layer's projections are shared."""
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    keys, values, queries = (
        graph.input(name, np.float32, shape)
        for name, shape in zip(_SHARED, _shared_shapes(decoder), strict=True)
    )
    image = SharedImage(scene.image_PC, keys, values, queries)

    def first_layer(block: TwoWayBlock, tokens_TC: Value) -> tuple[Value, Value]:
        def with_mask() -> Sequence[Value]:
            change = dense_change(graph, encoder, prompt, scene.height, scene.width)
            return two_way_block(graph, block, tokens_TC, tokens_TC, replace(image, change=change))

        def without() -> Sequence[Value]:
            return two_way_block(graph, block, tokens_TC, tokens_TC, image)

        queries_TC, image_PC = graph.either(prompt.has_mask, with_mask, without)
        return queries_TC, image_PC

    sparse_TC = sparse_tokens(graph, encoder, prompt, scene.size_xy)
    decoded = transform(graph, decoder, sparse_TC, scene.positions_PC, first_layer)
    to_stride8, to_stride4 = layers_of(decoder.output_upscaling, nn.ConvTranspose2d)
    (middle_norm,) = layers_of(decoder.output_upscaling, LayerNorm2d)
    rows = doubled(graph, to_stride8, decoded.image_PC).reshape(-1, to_stride8.out_channels)
    rows = graph.op("Gelu", norm(graph, middle_norm, rows))
    rows = graph.op("Gelu", doubled(graph, to_stride4, rows)).reshape(-1, to_stride4.out_channels)
    drawn = graph.op("Gemm", brushes(graph, decoder, decoded.tokens_5C), rows, transB=1)
    return decoded, to_pixels(drawn, scene.height, scene.width, levels=2)


def _guided(graph: Graph, sam: Sam, prompt: GraphPrompt, scene: _Scene) -> tuple[Decoded, Value]:
    """Decode as the bundled model does, with the prompt drawn as maps too."""
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    if not isinstance(encoder, GuidedPromptEncoder) or not isinstance(decoder, GuidedMaskDecoder):
        raise TypeError("the guided decoder belongs to the guided prompt encoder")
    image, coarse, canvas8, canvas4 = _guided_inputs(graph, sam, scene)
    found = probes(graph, prompt)
    maps = guidance(graph, prompt, found, image)
    maps_rows = to_squares(
        maps, decoder.from_guidance.in_channels, scene.height, scene.width, levels=2
    )
    *_, project = layers_of(encoder.mask_downscaling, nn.Conv2d)
    squeezed_PM = squeezed(graph, encoder.mask_downscaling, maps_rows)
    dense_PC = project_rows(graph, project, squeezed_PM)
    under_QC = sample(graph, coarse, found.places_Q2, scene.size_xy)
    clicked_QC = linear(graph, encoder.click_feature, under_QC)
    sparse_TC = sparse_tokens(graph, encoder, prompt, scene.size_xy)
    sparse_TC = sparse_TC + foreground_mean(graph, clicked_QC, found)

    def first_layer(block: TwoWayBlock, tokens_TC: Value) -> tuple[Value, Value]:
        image_PC = scene.image_PC + dense_PC
        tokens = ImageTokens(image_PC, image_PC + scene.positions_PC)
        return two_way_block(graph, block, tokens_TC, tokens_TC, tokens)

    decoded = transform(graph, decoder, sparse_TC, scene.positions_PC, first_layer)
    to_stride8, to_stride4 = layers_of(decoder.output_upscaling, nn.ConvTranspose2d)
    rows = doubled(graph, to_stride8, decoded.image_PC).reshape(-1, to_stride8.out_channels)
    rows = doubled(graph, to_stride4, graph.op("Relu", rows + canvas8))
    rows = rows.reshape(-1, to_stride4.out_channels) + canvas4
    rows = graph.op("Relu", rows + project_rows(graph, decoder.from_guidance, maps_rows))
    canvas = to_pixels(rows.transpose(1, 0), scene.height, scene.width, levels=2)
    refined = convolution(graph, decoder.refine, canvas)
    canvas = graph.op("Relu", canvas + refined)
    channels = decoder.refine.out_channels
    drawn = brushes(graph, decoder, decoded.tokens_5C) @ canvas.reshape(channels, -1)
    return decoded, drawn.reshape(1, 4, canvas.size(2), canvas.size(3))


def _guided_inputs(
    graph: Graph, sam: Sam, scene: _Scene
) -> tuple[GuidedImage, Value, Value, Value]:
    """Declare what `_guided_outputs` prepared: guidance, coarse features and the two canvases."""
    shapes = embedding_shapes(sam)
    channels = {name: shape[1] for name, shape in shapes.items()}
    coarse, affinity8, affinity4 = (
        graph.input(f"{name}_maps", np.float32, shapes[name])
        for name in (COARSE, "affinity8", "affinity4")
    )
    canvas8, canvas4 = (
        graph.input(f"{name}_rows", np.float32, (None, channels[name]))
        for name in ("canvas8", "canvas4")
    )
    kinds = channels["barriers"]
    image = GuidedImage(
        affinity8=affinity8,
        affinity4=affinity4,
        rows_Kwh=graph.input("cost_along_rows", np.float32, (kinds, None, None)),
        columns_Khw=graph.input("cost_along_columns", np.float32, (kinds, None, None)),
        size_xy=scene.size_xy,
        longest=-(-sam.config.image_size // GUIDANCE_STRIDE),
    )
    return image, coarse, canvas8, canvas4


def _guided_outputs(graph: Graph, sam: Sam, given: dict[str, Value]) -> None:
    """Prepare what guided prompts and the upscaling read."""
    shapes = embedding_shapes(sam)
    height, width = given[COARSE].size(2), given[COARSE].size(3)
    for name in (COARSE, "affinity8", "affinity4"):
        graph.output(f"{name}_maps", given[name], shapes[name])
    for name, levels in (("canvas8", 1), ("canvas4", 2)):
        channels = int(shapes[name][1] or 0)
        rows = to_squares(given[name], channels, height, width, levels=levels)
        graph.output(f"{name}_rows", rows, (None, channels))
    rows_Kwh, columns_Khw = terrain(graph, given["barriers"])
    kinds = shapes["barriers"][1]
    graph.output("cost_along_rows", rows_Kwh, (kinds, None, None))
    graph.output("cost_along_columns", columns_Khw, (kinds, None, None))

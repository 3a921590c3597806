"""Images of every format, mode and orientation, made here and compared with what Pillow shows."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.errors import BadInputError, ImageError
from engine.images import (
    ImageInfo,
    ImageLimits,
    ImageReason,
    connected_components,
    content_id,
    decode_image,
    encode_jpeg,
    encode_png,
    probe_image,
    read_image_bytes,
    resize_to_fit,
)

REASONS = get_args(ImageReason)
WIDTH, HEIGHT = 53, 37


def gradient_array(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry: a wrong turn or mirror changes every corner."""
    x = np.linspace(0, 255, width)[np.newaxis, :]
    y = np.linspace(0, 255, height)[:, np.newaxis]
    return np.stack([x + 0 * y, y + 0 * x, (x + y) / 3], axis=-1).astype(np.uint8)


def gradient() -> Image.Image:
    return Image.fromarray(gradient_array())


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def with_alpha() -> Image.Image:
    """Alpha runs from 0 to 255 along the rows; the hidden colours are vivid."""
    image = gradient().convert("RGBA")
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image.putalpha(Image.fromarray(ramp))
    return image


def orientation_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def png_chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png_file(
    width: int, height: int, bits: int, colour: int, rows: bytes, *between: bytes
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(between)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def as_pillow_shows(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def reason_of(data: bytes, read: Callable[[bytes], object] = decode_image) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    assert caught.value.reason in REASONS
    assert len(str(caught.value)) > 10
    return caught.value.reason


def decoded_or_reason(
    data: bytes, limits: ImageLimits | None = None
) -> tuple[NDArray[np.uint8] | None, str]:
    try:
        return decode_image(data, limits or ImageLimits()), ""
    except ImageError as error:
        return None, error.reason


# Format, mode of the image and options of the writer; no transparency, 8 bits.
OPAQUE: dict[str, tuple[str, str, dict[str, object]]] = {
    "jpeg": ("JPEG", "RGB", {"quality": 90}),
    "jpeg 4:4:4": ("JPEG", "RGB", {"quality": 95, "subsampling": 0}),
    "jpeg stored as RGB": ("JPEG", "RGB", {"quality": 95, "keep_rgb": True}),
    "jpeg progressive": ("JPEG", "RGB", {"progressive": True}),
    "jpeg grey": ("JPEG", "L", {"quality": 90}),
    "jpeg CMYK": ("JPEG", "CMYK", {"quality": 95}),
    "jpeg restart markers": ("JPEG", "RGB", {"restart_marker_rows": 1}),
    "png": ("PNG", "RGB", {}),
    "png grey": ("PNG", "L", {}),
    "png palette": ("PNG", "P", {}),
    "png two colours": ("PNG", "1", {}),
    "webp": ("WEBP", "RGB", {"quality": 90}),
    "webp lossless": ("WEBP", "RGB", {"lossless": True}),
    "tiff": ("TIFF", "RGB", {}),
    "tiff grey": ("TIFF", "L", {}),
    "tiff palette": ("TIFF", "P", {}),
    "tiff CMYK": ("TIFF", "CMYK", {}),
    "tiff lzw": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "tiff deflate": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "tiff jpeg": ("TIFF", "RGB", {"compression": "jpeg"}),
    "tiff fax": ("TIFF", "1", {"compression": "group4"}),
    "tiff big": ("TIFF", "RGB", {"big_tiff": True}),
    "bmp": ("BMP", "RGB", {}),
    "bmp grey": ("BMP", "L", {}),
    "bmp palette": ("BMP", "P", {}),
    "gif": ("GIF", "P", {}),
    "gif grey": ("GIF", "L", {}),
}
LOSSY_BY_CV2 = {"jpeg", "jpeg 4:4:4", "jpeg stored as RGB", "jpeg progressive", "jpeg grey"}


def opaque(case: str, **more: object) -> bytes:
    image_format, mode, options = OPAQUE[case]
    return encoded(gradient().convert(mode), image_format, **options, **more)


@pytest.mark.parametrize("case", OPAQUE)
def test_every_format_and_mode_decodes_to_the_pixels_that_pillow_shows(case: str) -> None:
    data = opaque(case)
    image_HWC3 = decode_image(data)
    assert image_HWC3.shape == (HEIGHT, WIDTH, 3)
    assert image_HWC3.dtype == np.uint8
    assert image_HWC3.flags.c_contiguous
    assert image_HWC3.flags.writeable
    tolerance = 3 if case.startswith("jpeg") else 0
    np.testing.assert_allclose(image_HWC3.astype(int), as_pillow_shows(data), atol=tolerance)
    np.testing.assert_array_equal(image_HWC3, decode_image(data))
    assert probe_image(data) == ImageInfo(WIDTH, HEIGHT, case.split()[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "case", ["jpeg", "jpeg grey", "jpeg CMYK", "png", "png palette", "webp", "tiff", "tiff lzw"]
)
def test_every_orientation_is_turned_upright(case: str, orientation: int) -> None:
    data = opaque(case, exif=orientation_exif(orientation))
    expected = as_pillow_shows(data)
    image_HWC3 = decode_image(data)
    assert image_HWC3.flags.c_contiguous
    np.testing.assert_allclose(image_HWC3.astype(int), expected, atol=3)
    info = probe_image(data)
    assert (info.height, info.width) == expected.shape[:2]
    assert (info.width > info.height) == (orientation <= 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_matches_what_the_eight_values_mean(orientation: int) -> None:
    """Independent of Pillow: row 0 and column 0 of the stored picture are these sides."""
    stored = gradient_array()
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]
    data = encoded(Image.fromarray(stored), "PNG", exif=orientation_exif(orientation))
    np.testing.assert_array_equal(decode_image(data), turned)


@pytest.mark.parametrize("where", ["before the pixels", "behind the pixels"])
def test_png_orientation_is_found_on_either_side_of_the_pixels(where: str) -> None:
    chunk = png_chunk(b"eXIf", orientation_exif(6).removeprefix(b"Exif\x00\x00"))
    plain = png_file(3, 2, 8, 0, bytes(2 * 4))
    at = plain.index(b"IDAT" if where == "before the pixels" else b"IEND") - 4
    data = plain[:at] + chunk + plain[at:]
    assert decode_image(data).shape == (3, 2, 3)
    assert probe_image(data) == ImageInfo(2, 3, "png", orientation=6)


@pytest.mark.parametrize("exif", [b"Exif\x00\x00MM\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
@pytest.mark.parametrize("case", ["jpeg", "webp"])
def test_a_broken_exif_block_does_not_cost_the_image(case: str, exif: bytes) -> None:
    data = opaque(case, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow tells the user
        assert decode_image(data).shape == (HEIGHT, WIDTH, 3)
        assert probe_image(data).width == WIDTH


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist_count_as_upright(orientation: int) -> None:
    data = opaque("jpeg", exif=orientation_exif(orientation))
    assert decode_image(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_blended_with_white(image_format: str) -> None:
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    image = with_alpha()
    rgba = np.asarray(image).astype(float)
    alpha = rgba[:, :, 3:] / 255
    expected = rgba[:, :, :3] * alpha + 255 * (1 - alpha)
    decoded = decode_image(encoded(image, image_format, **options))
    np.testing.assert_allclose(decoded, expected, atol=1)
    assert (decoded[:, 0] == 255).all()


def test_grey_with_alpha_is_blended_with_white() -> None:
    decoded = decode_image(encoded(with_alpha().convert("LA"), "PNG"))
    assert (decoded[:, 0] == 255).all()
    assert (decoded[:, -1, 0] == decoded[:, -1, 2]).all()


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_the_hidden_colour_of_a_transparent_palette_entry_does_not_leak(image_format: str) -> None:
    image = Image.new("P", (4, 1), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    decoded = decode_image(encoded(image, image_format, transparency=0))
    assert decoded[0].tolist() == [[255, 255, 255]] + [[0, 0, 255]] * 3


def test_palette_entries_may_be_half_transparent() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.putpixel((1, 0), 1)
    decoded = decode_image(encoded(image, "PNG", transparency=b"\x80\xff"))
    assert decoded[0].tolist() == [[127, 127, 127], [0, 0, 0]]


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (9, 8, 7))])
def test_a_transparent_colour_key_shows_white(mode: str, key: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((0, 0), key)
    decoded = decode_image(encoded(image, "PNG", transparency=key))
    assert decoded[0].tolist() == [[255, 255, 255], [0, 0, 0]]


def test_a_transparent_16_bit_grey_key_shows_white_and_its_neighbour_does_not() -> None:
    rows = b"\x00" + struct.pack(">HH", 0x1234, 0x1235)
    data = png_file(2, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert decode_image(data)[0].tolist() == [[255] * 3, [0x12] * 3]


def test_a_transparent_16_bit_colour_key_shows_white() -> None:
    rows = b"\x00" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0)
    key = png_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert decode_image(png_file(2, 1, 16, 2, rows, key))[0].tolist() == [[255] * 3, [255, 0, 0]]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_samples_keep_their_high_byte(suffix: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    data = bytes(cv2.imencode(suffix, samples[:, :, ::-1])[1])
    expected = np.broadcast_to((samples >> 8).astype(np.uint8), (HEIGHT, WIDTH, 3))
    np.testing.assert_array_equal(decode_image(data), expected)


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_16_bit_grey_tiff_of_either_byte_order_keeps_its_high_byte(byte_order: str) -> None:
    samples = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 33
    mode = "I;16" if byte_order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (WIDTH, HEIGHT), samples.astype(byte_order).tobytes())
    decoded = decode_image(encoded(image, "TIFF"))
    np.testing.assert_array_equal(decoded[:, :, 1], (samples >> 8).astype(np.uint8))


def test_16_bit_alpha_is_blended_with_white() -> None:
    rows = b"\x00" + struct.pack(">8H", 0xFFFF, 0, 0, 0, 0, 0, 0xFFFF, 0xFFFF)
    decoded = decode_image(png_file(2, 1, 16, 6, rows))
    assert decoded[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_cmyk_jpegs_show_the_colours_that_were_meant() -> None:
    rgb = gradient_array()
    ink = np.dstack([255 - rgb, np.zeros_like(rgb[:, :, :1])])
    data = encoded(Image.frombytes("CMYK", (WIDTH, HEIGHT), ink.tobytes()), "JPEG", quality=95)
    assert b"Adobe" in data
    np.testing.assert_allclose(decode_image(data).astype(int), rgb, atol=12)


def test_cmyk_jpegs_without_adobes_marker_are_read_alike() -> None:
    data = opaque("jpeg CMYK")
    at = data.index(b"\xff\xee")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    unmarked = data[:at] + data[at + 2 + length :]
    assert b"Adobe" not in unmarked
    np.testing.assert_array_equal(decode_image(unmarked), decode_image(data))


@pytest.mark.parametrize("image_format", ["TIFF", "GIF", "WEBP", "PNG"])
def test_only_the_first_page_or_frame_is_decoded(image_format: str) -> None:
    first, second = Image.new("RGB", (9, 5), (0, 0, 255)), Image.new("RGB", (9, 5), (255, 0, 0))
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(first, image_format, save_all=True, append_images=[second], **options)
    decoded = decode_image(data)
    assert decoded.shape == (5, 9, 3)
    assert (decoded == [0, 0, 255]).all()


def test_an_image_appended_behind_a_jpeg_is_ignored() -> None:
    data = opaque("jpeg")
    np.testing.assert_array_equal(decode_image(data + opaque("jpeg grey")), decode_image(data))


@pytest.mark.parametrize("case", OPAQUE)
def test_one_pixel_is_an_image(case: str) -> None:
    image_format, mode, options = OPAQUE[case]
    data = encoded(Image.new("RGB", (1, 1), (255, 255, 255)).convert(mode), image_format, **options)
    assert decode_image(data).shape == (1, 1, 3)
    assert decode_image(data).min() > 250


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("size", [(60_000, 10), (10, 60_000)])
def test_panoramas_decode_and_turn(image_format: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(gradient_array(*size))
    exif = {} if image_format == "BMP" else {"exif": orientation_exif(6)}
    data = encoded(image, image_format, **exif)
    width, height = size if image_format == "BMP" else size[::-1]
    decoded = decode_image(data)
    assert decoded.shape == (height, width, 3)
    np.testing.assert_allclose(decoded.astype(int), as_pillow_shows(data), atol=3)


@pytest.mark.parametrize("warnings_are", ["error", "ignore"])
@pytest.mark.parametrize("case", OPAQUE)
def test_a_cut_file_is_refused_wherever_it_is_cut(
    case: str, warnings_are: Literal["error", "ignore"]
) -> None:
    rng = np.random.default_rng(0)
    image_format, mode, options = OPAQUE[case]
    noise = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    data = encoded(noise.convert(mode), image_format, **options)
    whole = decode_image(data)
    length = len(data)
    fractions = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
    for kept in {1, 5, 12, 20, *(int(length * f) for f in fractions), *range(length - 9, length)}:
        with warnings.catch_warnings():
            warnings.simplefilter(warnings_are)
            decoded, reason = decoded_or_reason(data[:kept])
        if decoded is None:
            assert reason == "truncated" or (reason == "not-an-image" and kept <= 20), kept
        else:
            # Some formats end with bytes that carry no pixels; what is returned must be all of it.
            assert length - kept <= 20
            assert not case.startswith("jpeg")
            np.testing.assert_array_equal(decoded, whole)


@pytest.mark.parametrize("case", ["jpeg", "jpeg progressive", "jpeg CMYK", "png", "gif"])
def test_a_download_that_was_filled_up_with_zeros_is_refused(case: str) -> None:
    data = opaque(case, exif=orientation_exif(1)) if case != "gif" else opaque(case)
    half = len(data) * 3 // 4
    assert reason_of(data[:half] + bytes(len(data) - half)) == "truncated"


def test_a_thumbnails_end_does_not_pass_for_the_images_end() -> None:
    thumbnail = opaque("jpeg")
    data = opaque("jpeg", comment=thumbnail)
    assert decode_image(data).shape == (HEIGHT, WIDTH, 3)
    assert reason_of(data[:-40]) == "truncated"


def test_a_png_with_one_flipped_bit_in_its_pixels_is_refused() -> None:
    data = bytearray(opaque("png"))
    data[data.index(b"IDAT") + 40] ^= 4
    assert reason_of(bytes(data)) == "corrupt"


def test_a_jpeg_without_its_tables_is_refused() -> None:
    data = opaque("jpeg")
    start, frame = data.index(b"\xff\xdb"), data.index(b"\xff\xc0")
    assert reason_of(data[:start] + data[frame:]) == "corrupt"


def test_no_bytes_are_empty() -> None:
    assert reason_of(b"") == "empty"
    assert reason_of(b"", probe_image) == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"hello world, this is text",
        b"<html><body>404</body></html>",
        b"BMW is a car",
        b"GIF",
    ],
)
def test_other_files_are_not_images(data: bytes) -> None:
    assert reason_of(data) == "not-an-image"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x20ftypheic" + bytes(40),
        b"\x00\x00\x00\x20ftypavif" + bytes(40),
        b"8BPS\x00\x01" + bytes(40),
        b"%PDF-1.7\n",
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    ],
)
def test_known_formats_that_are_not_read_are_named(data: bytes) -> None:
    assert reason_of(data) == "unsupported"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_without_agreed_black_and_white_are_unsupported(mode: str) -> None:
    assert reason_of(encoded(Image.new(mode, (5, 5)), "TIFF")) == "unsupported"


def test_a_tiff_whose_first_page_is_a_thumbnail_is_unsupported() -> None:
    data = encoded(gradient(), "TIFF", tiffinfo={254: 1})
    assert reason_of(data) == "unsupported"
    assert reason_of(data, probe_image) == "unsupported"


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(opaque("jpeg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_that_claims(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4)


BOMBS = {
    "png": png_file(100_000, 100_000, 8, 2, b""),
    "png one bit": png_file(100_000, 100_000, 1, 0, b""),
    "jpeg": jpeg_that_claims(65_500, 65_500),
    "gif": b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;",
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 90_000, 90_000, 1, 24, *[0] * 6),
    "tiff": tiff_that_claims(100_000, 100_000),
    "webp": b"RIFF\x24\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xfe\x3f\x00\xfe\x3f\x00"
    b"VP8L\x06\x00\x00\x00\x2f\xfe\xbf\xff\x0f\x00",
}


@pytest.mark.parametrize("case", BOMBS)
@pytest.mark.parametrize("read", [decode_image, probe_image])
def test_decompression_bombs_are_refused_from_their_header(
    case: str, read: Callable[[bytes], object]
) -> None:
    assert reason_of(BOMBS[case], read) == "too-large"


def test_limits_hold_exactly() -> None:
    data = opaque("png")
    assert decode_image(data, ImageLimits(WIDTH * HEIGHT, len(data))).shape[1] == WIDTH
    for limits in (
        ImageLimits(max_pixels=WIDTH * HEIGHT - 1),
        ImageLimits(max_bytes=len(data) - 1),
    ):
        for read in (decode_image, probe_image):
            with pytest.raises(ImageError) as caught:
                read(data, limits)
            assert caught.value.reason == "too-large"


def test_images_above_pillows_warning_size_decode_in_silence() -> None:
    data = encoded(Image.new("1", (9_500, 9_500), 1), "PNG")
    assert probe_image(data).width == 9_500


SEEDS = {
    "jpeg": opaque("jpeg", exif=orientation_exif(6)),
    "progressive": opaque("jpeg progressive"),
    "cmyk": opaque("jpeg CMYK"),
    "png": encoded(with_alpha(), "PNG", exif=orientation_exif(5)),
    "webp": encoded(with_alpha(), "WEBP", exif=orientation_exif(7)),
    "tiff": opaque("tiff", exif=orientation_exif(8)),
    "tiff lzw": opaque("tiff lzw"),
    "tiff jpeg": opaque("tiff jpeg"),
    "bmp": opaque("bmp palette"),
    "gif": opaque("gif"),
}
FUZZ_LIMITS = ImageLimits(max_pixels=2_000_000)


def decodes_or_raises_an_image_error(data: bytes) -> None:
    decoded, reason = decoded_or_reason(data, FUZZ_LIMITS)
    if decoded is None:
        assert reason in REASONS
        with contextlib.suppress(ImageError):
            probe_image(data, FUZZ_LIMITS)
    else:
        info = probe_image(data, FUZZ_LIMITS)
        assert decoded.shape == (info.height, info.width, 3)
        assert decoded.dtype == np.uint8


@given(st.binary(max_size=400))
@settings(max_examples=100)
def test_random_bytes_raise_nothing_but_image_errors(data: bytes) -> None:
    decodes_or_raises_an_image_error(data)


@pytest.mark.parametrize("case", SEEDS)
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
def test_damaged_files_raise_nothing_but_image_errors(case: str, data: st.DataObject) -> None:
    damaged = bytearray(SEEDS[case])
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers are short: half of the hits go there.
        end = data.draw(st.sampled_from([min(200, len(damaged)), len(damaged)]))
        at = data.draw(st.integers(0, end - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    decodes_or_raises_an_image_error(bytes(damaged))
    with warnings.catch_warnings():
        # As in production, where Pillow's warnings do not interrupt it.
        warnings.simplefilter("ignore")
        decodes_or_raises_an_image_error(bytes(damaged))


def test_the_content_id_is_63_bits_of_the_sha256() -> None:
    for data in (b"", b"a", *(bytes([n]) for n in range(60))):
        image_id, sha256 = content_id(data)
        assert sha256 == hashlib.sha256(data).hexdigest()
        assert image_id == int(sha256, 16) >> (256 - 63)
        assert 0 <= image_id < 2**63


def test_files_are_read_by_path_and_by_uri(tmp_path: Path) -> None:
    path = tmp_path / "a photo #1 50%.jpg"
    path.write_bytes(b"bytes")
    assert read_image_bytes(str(path)) == b"bytes"
    assert read_image_bytes(path.as_uri()) == b"bytes"
    assert read_image_bytes(path.as_uri().replace("file://", "file://localhost")) == b"bytes"


def test_missing_files_folders_and_devices_are_told_apart(tmp_path: Path) -> None:
    def read(uri: str) -> str:
        with pytest.raises(ImageError) as caught:
            read_image_bytes(uri)
        return caught.value.reason

    assert read(str(tmp_path / "none.jpg")) == "not-found"
    assert read(str(tmp_path)) == "unreadable"
    assert read("a\x00b.jpg") == "unreadable"
    assert read(str(tmp_path / ("x" * 5000))) == "unreadable"
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert read(str(pipe)) == "unreadable"


def test_files_over_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.jpg"
    path.write_bytes(bytes(11))
    assert len(read_image_bytes(str(path), ImageLimits(max_bytes=11))) == 11
    with pytest.raises(ImageError) as caught:
        read_image_bytes(str(path), ImageLimits(max_bytes=10))
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize("uri", ["gopher://old/a.jpg", "file://server/share/a.jpg"])
def test_other_schemes_are_bad_input_that_names_what_is_supported(uri: str) -> None:
    with pytest.raises(BadInputError, match="file:///"):
        read_image_bytes(uri)


@given(
    hnp.arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
        ),
    )
)
@settings(max_examples=50)
def test_a_png_gives_back_the_pixels_that_it_was_made_of(image: NDArray[np.uint8]) -> None:
    decoded = decode_image(encode_png(image))
    expected = image if image.ndim == 3 else np.repeat(image[:, :, np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(decoded, expected)


def test_a_jpeg_is_close_to_what_it_was_made_of_and_keeps_its_colours_in_order() -> None:
    image_HWC3 = gradient_array()[:, ::-1]
    decoded = decode_image(encode_jpeg(image_HWC3, quality=95))
    assert np.abs(decoded.astype(int) - image_HWC3).mean() < 3
    assert len(encode_jpeg(image_HWC3, quality=30)) < len(encode_jpeg(image_HWC3, quality=95))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_that_are_no_image_are_bad_input(image: NDArray[np.uint8]) -> None:
    for use in (encode_jpeg, encode_png, lambda array: resize_to_fit(array, 2)):
        with pytest.raises(BadInputError, match="expected uint8"):
            use(image)


def test_jpegs_refuse_sides_and_qualities_that_do_not_exist() -> None:
    with pytest.raises(BadInputError, match="encode_png"):
        encode_jpeg(np.zeros((1, 65_536, 3), np.uint8))
    with pytest.raises(BadInputError, match="quality"):
        encode_jpeg(np.zeros((1, 1, 3), np.uint8), quality=0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100, 200, 3), (25, 50, 3)),
        ((200, 100), (50, 25)),
        ((60_000, 10, 3), (50, 1, 3)),
        ((50, 50, 3), (50, 50, 3)),
        ((3, 2, 3), (3, 2, 3)),
    ],
)
def test_resizing_fits_the_longer_side_and_never_enlarges(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert resize_to_fit(np.zeros(shape, np.uint8), 50).shape == expected


def test_shrinking_averages_areas() -> None:
    chequers = np.indices((64, 64)).sum(axis=0) % 2 * 200
    shrunk = resize_to_fit(chequers.astype(np.uint8), 32)
    assert (shrunk == 100).all()
    with pytest.raises(BadInputError, match="max_side"):
        resize_to_fit(shrunk, 0)


def test_components_touching_at_a_corner_are_one() -> None:
    mask_HW = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    labels_HW, areas = connected_components(mask_HW)
    assert labels_HW.dtype == np.int32
    assert areas.dtype == np.int64
    assert labels_HW[0, 0] == labels_HW[1, 1]
    assert sorted(areas[1:].tolist()) == [1, 1, 2]
    assert areas[0] == 8


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(np.bool_), np.dtype(np.uint8)]),
        st.tuples(st.integers(0, 12), st.integers(0, 12)),
    )
)
@settings(max_examples=80)
def test_labels_cover_the_foreground_and_areas_count_them(mask_HW: NDArray[np.uint8]) -> None:
    labels_HW, areas = connected_components(mask_HW.T)
    assert labels_HW.shape == mask_HW.T.shape
    np.testing.assert_array_equal(labels_HW > 0, mask_HW.T != 0)
    np.testing.assert_array_equal(areas, np.bincount(labels_HW.ravel(), minlength=len(areas)))


def test_components_of_other_arrays_are_bad_input() -> None:
    with pytest.raises(BadInputError, match="bool or uint8"):
        connected_components(np.zeros((2, 2), np.float32))  # type: ignore[arg-type]

"""What a file's bytes alone say; whole decodes are tested in test_images.py."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.errors import ImageError
from engine.image_formats import ends_early, identify_format, jpeg_has_end, png_exif


def encoded(image_format: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=image_format, **options)
    return buffer.getvalue()


FILES = {
    "jpeg": encoded("JPEG"),
    "png": encoded("PNG"),
    "webp": encoded("WEBP"),
    "tiff": encoded("TIFF"),
    "tiff lzw": encoded("TIFF", compression="tiff_lzw"),
    "tiff big": encoded("TIFF", big_tiff=True),
    "gif": encoded("GIF"),
    "bmp": encoded("BMP"),
}


@pytest.mark.parametrize("case", FILES)
def test_formats_are_told_by_their_first_bytes(case: str) -> None:
    assert identify_format(FILES[case]) == case.split()[0]


@pytest.mark.parametrize("case", FILES)
def test_whole_files_do_not_end_early_and_cut_ones_do(case: str) -> None:
    data, image_format = FILES[case], case.split()[0]
    assert not ends_early(data, image_format)
    for kept in (30, len(data) // 2, len(data) - 9):
        assert ends_early(data[:kept], image_format)


def test_every_text_is_told_from_an_image() -> None:
    for text in (b"BM", b"BMBMBMBMBMBMBMBMBMBM", b"II", b"RIFF....WAVE", b"\xff\xd8", b"\x89PNG"):
        with pytest.raises(ImageError) as caught:
            identify_format(text)
        assert caught.value.reason == "not-an-image"


def test_the_end_marker_of_a_jpeg_is_found_only_outside_its_segments() -> None:
    data = encoded("JPEG", comment=b"\xff\xd9 inside a comment", progressive=True)
    assert jpeg_has_end(data)
    assert jpeg_has_end(data + b"trailing bytes")
    assert not jpeg_has_end(data[:-1])
    assert not jpeg_has_end(data[:-2] + bytes(500))


def test_stuffed_and_restart_bytes_are_not_markers() -> None:
    scan = b"\xff\xd8\xff\xda\x00\x02" + b"\xff\x00\xff\xd0\xff\xff\x00" * 50
    assert not jpeg_has_end(scan)
    assert jpeg_has_end(scan + b"\xff\xff\xd9")


def test_a_png_without_exif_has_none() -> None:
    assert png_exif(FILES["png"]) is None
    exif = Image.Exif()
    exif[0x0112] = 6
    found = png_exif(encoded("PNG", exif=exif))
    assert found is not None
    assert exif.tobytes().endswith(found)

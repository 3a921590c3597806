"""Inputs in buckets and on the web, against real servers on loopback."""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.dataset.inputs import ListedImage, expand_inputs
from engine.errors import BadInputError, ImageError
from engine.images import ImageLimits, read_image_bytes
from engine.objects import open_store
from tests.engine.http_server import http_site

Put = Callable[..., None]


@pytest.fixture
def put(s3_address: str) -> Put:
    """Write objects, empty ones by default, into the test's bucket."""

    def write(*keys: str, body: bytes = b"") -> None:
        for key in keys:
            open_store(s3_address).put_if_absent(key, body)

    return write


def uris(*inputs: str) -> list[str]:
    return [image.uri for image in expand_inputs(inputs)]


def test_a_prefix_gives_its_images_sorted(put: Put, s3_address: str) -> None:
    put("2024/b.jpg", "2024/a.PNG", "2024/deep/er/c.webp", "2024/notes.txt", "2023/x.jpg")
    expected = [f"{s3_address}/2024/{name}" for name in ("a.PNG", "b.jpg", "deep/er/c.webp")]
    assert uris(f"{s3_address}/2024/") == expected
    assert uris(f"{s3_address}/2024") == expected
    assert uris(f"{s3_address}") == [f"{s3_address}/2023/x.jpg", *expected]


def test_a_prefix_ends_at_a_slash(put: Put, s3_address: str) -> None:
    put("2024/a.jpg", "2024-raw/b.jpg")
    assert uris(f"{s3_address}/2024") == [f"{s3_address}/2024/a.jpg"]


def test_hidden_names_and_workspaces_in_a_prefix_are_left_out(put: Put, s3_address: str) -> None:
    put("in/a.jpg", "in/.trash/b.jpg", "in/._c.jpg")
    put("in/birds/overlays/d.jpg", "in/birds/workspace.json", "in/birds-2/e.jpg")
    assert uris(f"{s3_address}/in/") == [f"{s3_address}/in/a.jpg", f"{s3_address}/in/birds-2/e.jpg"]


def test_an_image_counts_by_its_suffix_or_when_it_is_there(put: Put, s3_address: str) -> None:
    put("scan", "scans/a.jpg")
    assert uris(f"{s3_address}/gone.jpg") == [f"{s3_address}/gone.jpg"]  # reported by the ingest
    assert uris(f"{s3_address}/scan") == [f"{s3_address}/scan"]


def test_globs_match_names_part_by_part(put: Put, s3_address: str) -> None:
    put("a/1.jpg", "a/2.png", "a/b/1.jpg", "a/b/c/1.jpg", "d/1.jpg", "a/[1].jpg")
    assert uris(f"{s3_address}/a/*.jpg") == [f"{s3_address}/a/1.jpg", f"{s3_address}/a/[1].jpg"]
    assert uris(f"{s3_address}/*/1.jpg") == [f"{s3_address}/a/1.jpg", f"{s3_address}/d/1.jpg"]
    assert len(uris(f"{s3_address}/a/**")) == 5
    assert uris(f"{s3_address}/a/**/c/?.jpg") == [f"{s3_address}/a/b/c/1.jpg"]
    assert uris(f"{s3_address}/a/[1].jpg") == [f"{s3_address}/a/[1].jpg"]


def test_lists_in_a_bucket_count_from_where_they_are(put: Put, s3_address: str) -> None:
    put("in/list.txt", body=b"a.jpg\n../b.jpg\n/local/c.jpg\ns3://other/d.jpg\nhttps://x.org/e.jpg")
    put("in/list.csv", body=b"uri,split\na.jpg,train\n")
    parquet = io.BytesIO()
    pq.write_table(pa.table({"uri": ["deep/a.jpg"], "license": ["CC0"]}), parquet)
    put("list.parquet", body=parquet.getvalue())
    assert uris(f"{s3_address}/in/list.txt") == [
        f"{s3_address}/in/a.jpg",
        f"{s3_address}/b.jpg",
        "/local/c.jpg",
        "s3://other/d.jpg",
        "https://x.org/e.jpg",
    ]
    assert expand_inputs([f"{s3_address}/in/list.csv", f"{s3_address}/list.parquet"]) == [
        ListedImage(f"{s3_address}/in/a.jpg", None, "train"),
        ListedImage(f"{s3_address}/deep/a.jpg", "CC0", None),
    ]


def test_lists_on_the_web_count_from_where_they_are() -> None:
    with http_site() as site:
        body = b"uri\na.jpg\n/b.jpg\nhttps://x.org/c.jpg\n"
        address = site.serve("/in/list.csv?v=2", lambda exchange, number: exchange.send(body))
        assert uris(address) == [
            f"{site.address}/in/a.jpg",
            f"{site.address}/b.jpg",
            "https://x.org/c.jpg",
        ]


def test_addresses_of_unknown_kinds_are_refused_when_named_and_kept_in_lists(
    put: Put, s3_address: str
) -> None:
    with pytest.raises(BadInputError, match=r"begins with s3://, https://"):
        expand_inputs(["gs://photos/2024/"])
    put("list.txt", body=b"gs://photos/a.jpg\n")
    assert uris(f"{s3_address}/list.txt") == ["gs://photos/a.jpg"]


def test_prefixes_and_lists_that_cannot_be_used_are_named(put: Put, s3_address: str) -> None:
    put("docs/readme.md", "above.txt", body=b"../../a.jpg")
    for address, complaint in (
        (f"{s3_address}/docs/", rf"the prefix '{s3_address}/docs/', which has no images"),
        (
            f"{s3_address}/docs/*.jpg",
            rf"the pattern '{s3_address}/docs/\*.jpg', which has no images",
        ),
        (f"{s3_address}/gone.csv", rf"the list {s3_address}/gone.csv cannot be read: there is no"),
        (f"{s3_address}/above.txt", "above its bucket"),
        ("s3:///a.jpg", "expected s3://bucket"),
    ):
        with pytest.raises(BadInputError, match=complaint):
            expand_inputs([address])


def test_images_are_read_from_buckets_within_their_limits(put: Put, s3_address: str) -> None:
    put("a photo #1 50%.jpg", body=b"pixels" * 50_000)
    uri = f"{s3_address}/a photo #1 50%.jpg"
    assert read_image_bytes(uri) == b"pixels" * 50_000
    reasons = {}
    for address, limit in ((uri, 10), (f"{s3_address}/gone.jpg", 10), ("s3://nowhere/a.jpg", 10)):
        with pytest.raises(ImageError) as caught:
            read_image_bytes(address, ImageLimits(max_bytes=limit))
        reasons[address] = caught.value.reason
    assert list(reasons.values()) == ["too-large", "not-found", "forbidden"]
    with pytest.raises(BadInputError, match="names a bucket"):
        read_image_bytes(f"{s3_address}")

"""Downloads from a real server that cuts, stalls, lies and recovers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from engine.errors import BadInputError, ImageError
from engine.images import ImageLimits, read_image_bytes
from engine.images.web import Patience, download
from tests.engine.http_server import Answer, Exchange, Site, http_site

BODY = bytes(range(256)) * 4096  # a megabyte
LIMIT = len(BODY)
PATIENCE = Patience(
    tries=3, connect_seconds=2, silent_seconds=0.3, total_seconds=20, backoff_seconds=0.001
)


@pytest.fixture
def site() -> Iterator[Site]:
    with http_site() as running:
        yield running


def failure(url: str, limit: int = LIMIT, patience: Patience = PATIENCE) -> ImageError:
    with pytest.raises(ImageError) as caught:
        download(url, limit, patience)
    return caught.value


def then_whole(first: Answer) -> Answer:
    """Fail the first request as told; answer the others."""
    return lambda exchange, number: first(exchange, 0) if number == 0 else exchange.send(BODY)


def test_a_file_comes_whole_and_says_who_asks(site: Site) -> None:
    agents: list[str] = []

    def answer(exchange: Exchange, number: int) -> None:
        agents.append(exchange.headers["User-Agent"])
        exchange.send(BODY)

    url = site.serve("/a photo.jpg?size=full#top", answer)
    site.answers["/a%20photo.jpg?size=full"] = answer
    assert download(url, LIMIT, PATIENCE) == BODY
    assert agents[0].startswith("maskwheel/")


def test_files_of_one_server_share_a_connection(site: Site) -> None:
    ports: list[int] = []

    def answer(exchange: Exchange, number: int) -> None:
        ports.append(exchange.client_address[1])
        exchange.send(BODY)

    url = site.serve("/x.jpg", answer)
    for _ in range(3):
        download(url, LIMIT, PATIENCE)
    assert len(ports) == 3
    assert len(set(ports)) == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "not-found"),
        (410, "not-found"),
        (401, "forbidden"),
        (403, "forbidden"),
        (400, "unreadable"),
        (204, "unreadable"),
    ],
)
def test_final_answers_are_not_asked_for_twice(site: Site, status: int, reason: str) -> None:
    url = site.serve("/x.jpg", lambda exchange, number: exchange.send(b"", status))
    error = failure(url)
    assert (error.reason, site.requests["/x.jpg"]) == (reason, 1)
    assert str(status) in str(error)
    assert url in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_for_again(site: Site, status: int) -> None:
    url = site.serve("/x.jpg", then_whole(lambda e, number: e.send(b"busy", status)))
    assert download(url, LIMIT, PATIENCE) == BODY
    assert site.requests["/x.jpg"] == 2


def test_what_does_not_pass_is_unreachable_after_a_few_tries(site: Site) -> None:
    url = site.serve("/x.jpg", lambda exchange, number: exchange.send(b"", 503))
    error = failure(url)
    assert (error.reason, site.requests["/x.jpg"]) == ("unreachable", 3)
    assert "answers 503; it is tried again by the next run" in str(error)


def test_the_server_says_how_long_to_wait(site: Site) -> None:
    waited: list[float] = []
    url = site.serve("/x.jpg", then_whole(lambda e, number: e.send(b"", 429, Retry_After="7")))
    assert download(url, LIMIT, PATIENCE, sleep=waited.append) == BODY
    assert waited == [7.0]


def test_a_wait_beyond_all_patience_is_not_begun(site: Site) -> None:
    url = site.serve("/x.jpg", lambda e, number: e.send(b"", 503, Retry_After="3600"))
    assert "asks to wait 3600 s" in str(failure(url))
    assert site.requests["/x.jpg"] == 1


def test_a_date_to_wait_for_and_nonsense_are_both_understood(site: Site) -> None:
    said = ["Wed, 21 Oct 2015 07:28:00 GMT", "soon"]

    def answer(exchange: Exchange, number: int) -> None:
        if number < len(said):
            exchange.send(b"", 503, Retry_After=said[number])
        else:
            exchange.send(BODY)

    assert download(site.serve("/x.jpg", answer), LIMIT, PATIENCE) == BODY


def test_a_cut_download_goes_on_where_it_broke(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        exchange.send_range(BODY, '"v1"', upto=300_000 if number < 3 else None)

    # More cuts than tries: each brings the file forward.
    assert download(site.serve("/x.jpg", answer), LIMIT, PATIENCE) == BODY
    starts = [int(asked.removeprefix("bytes=")[:-1]) for asked in site.ranges if asked]
    assert len(starts) == 3
    assert starts == sorted(set(starts))


def test_a_cut_download_of_a_file_that_changed_starts_anew(site: Site) -> None:
    other = BODY[::-1]

    def answer(exchange: Exchange, number: int) -> None:
        if number == 0:
            exchange.send_range(BODY, '"v1"', upto=300_000)
        else:
            exchange.send_range(other, '"v2"')

    assert download(site.serve("/x.jpg", answer), LIMIT, PATIENCE) == other


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_version_a_cut_download_starts_anew(site: Site, etag: str | None) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        headers = {} if etag is None else {"ETag": etag}
        if number == 0:
            exchange.send(BODY[:5000], Content_Length=str(len(BODY)), **headers)
            exchange.cut()
        else:
            exchange.send(BODY, **headers)

    assert download(site.serve("/x.jpg", answer), LIMIT, PATIENCE) == BODY
    assert site.ranges == [None, None]


def test_a_server_that_goes_on_elsewhere_is_not_believed(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        if number == 1:
            wrong = {"Content_Range": f"bytes 7-{len(BODY) - 1}/{len(BODY)}"}
            exchange.send(BODY[7:], 206, **wrong)
        else:
            exchange.send_range(BODY, '"v1"', upto=300_000 if number == 0 else None)

    assert download(site.serve("/x.jpg", answer), LIMIT, PATIENCE) == BODY


def test_a_file_shorter_than_its_length_never_passes(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        exchange.send(BODY[:1000], Content_Length="1001")
        exchange.cut()

    assert failure(site.serve("/x.jpg", answer)).reason == "unreachable"


def test_a_chunked_file_needs_its_end(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        exchange.send_response(200)
        exchange.send_header("Transfer-Encoding", "chunked")
        exchange.end_headers()
        exchange.wfile.write(b"400\r\n" + BODY[:1024] + b"\r\n")
        if number == 0:
            exchange.cut()
        else:
            exchange.wfile.write(b"3\r\nend\r\n0\r\n\r\n")

    assert download(site.serve("/x.jpg", answer), LIMIT, PATIENCE) == BODY[:1024] + b"end"


def test_a_silent_server_is_given_up(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        exchange.connection.settimeout(5)
        exchange.rfile.read(1)  # until the client hangs up

    assert failure(site.serve("/x.jpg", answer)).reason == "unreachable"


def test_bytes_that_trickle_for_ever_are_given_up(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        exchange.send(b"", Content_Length="1000000")
        for _ in range(1000):
            exchange.wfile.write(b"x")

    assert (
        failure(
            site.serve("/x.jpg", answer),
            patience=Patience(total_seconds=0.0, silent_seconds=5),
        ).reason
        == "unreachable"
    )


def test_a_connection_that_breaks_at_once_is_tried_again(site: Site) -> None:
    url = site.serve("/x.jpg", then_whole(lambda exchange, number: exchange.cut()))
    assert download(url, LIMIT, PATIENCE) == BODY


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        error = failure(f"http://127.0.0.1:{taken.getsockname()[1]}/x.jpg")
    assert error.reason == "unreachable"


def test_a_file_over_the_limit_is_refused_by_its_length(site: Site) -> None:
    url = site.serve("/x.jpg", lambda e, number: e.send(b"", Content_Length=str(10**12)))
    assert failure(url).reason == "too-large"
    assert site.requests["/x.jpg"] == 1


def test_a_file_over_the_limit_is_refused_without_its_length(site: Site) -> None:
    def answer(exchange: Exchange, number: int) -> None:
        exchange.send_response(200)
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.wfile.write(BODY)
        exchange.close_connection = True

    url = site.serve("/x.jpg", answer)
    assert failure(url, limit=len(BODY) - 1).reason == "too-large"
    assert download(url, len(BODY), PATIENCE) == BODY


def test_redirects_are_followed_but_not_for_ever(site: Site) -> None:
    site.serve("/end.jpg", lambda exchange, number: exchange.send(BODY))
    url = site.serve("/a.jpg", lambda e, n: e.send(b"", 302, Location="/end.jpg"))
    assert download(url, LIMIT, PATIENCE) == BODY
    loop = site.serve("/loop.jpg", lambda e, n: e.send(b"", 302, Location="/loop.jpg"))
    error = failure(loop)
    assert (error.reason, site.requests["/loop.jpg"]) == ("unreadable", 6)
    assert "redirects more than 5 times" in str(error)


@pytest.mark.parametrize("url", ["http://", "http://[::1/x.jpg", f"http://{'a' * 300}.b/x.jpg"])
def test_what_is_no_address_is_bad_input(url: str) -> None:
    with pytest.raises(BadInputError, match="no URL"):
        download(url, LIMIT, PATIENCE)


def test_images_are_read_from_the_web_within_their_limits(site: Site) -> None:
    url = site.serve("/x.jpg", lambda exchange, number: exchange.send(BODY))
    assert read_image_bytes(url) == BODY
    assert read_image_bytes(url.replace("http", "HTTP", 1)) == BODY
    with pytest.raises(ImageError) as caught:
        read_image_bytes(url, ImageLimits(max_bytes=10))
    assert caught.value.reason == "too-large"

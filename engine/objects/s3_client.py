"""Requests to S3: the client of this process, what is tried again, and errors in plain words.

    client = s3_client(options)
    head = send(lambda: client.head_object(Bucket=b, Key=k), "look up", f"s3://{b}/{k}", options)

boto3 and botocore are imported here only, with the first request. botocore's own retries are
off: it does not resume bodies, and two loops would multiply.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from engine.errors import (
    BadInputError,
    EngineError,
    MissingObjectError,
    TransientError,
    WorkspaceError,
)

__all__ = [
    "Answer",
    "Backoff",
    "Retries",
    "S3Client",
    "S3Object",
    "S3Options",
    "TryAgainError",
    "refusal_status",
    "request_errors",
    "s3_client",
    "send",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

Answer: TypeAlias = dict[str, Any]  # boto3's, by S3's names

_CONNECTIONS = 64
_PASSING_CODES = frozenset(
    {
        "BadDigest",  # damaged on its way to the server
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_REGION_CODES = frozenset(
    {
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or sign in (`aws sso login`)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often a request is tried, and how long the waits grow (each is random below its limit).

    Attributes:
        attempts: tries in a row without progress.
        first_seconds: limit of the first wait; it doubles.
        longest_seconds: where it stops to double.
    """

    attempts: int = 10
    first_seconds: float = 0.1
    longest_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to reach S3 and how to talk to it; region and credentials come from the usual places.

    Attributes:
        endpoint: address of a server other than AWS's; None: by AWS_ENDPOINT_URL, or AWS.
        addressing: whether the bucket is in the path or in the host's name.
        backoff: what happens when a request fails for now.
        connect_seconds: until a connection must be there.
        read_seconds: until a silent connection counts as lost.
        multipart_bytes: larger files are uploaded in parts.
        part_bytes: size of a part (S3 wants at least 5 MiB, and at most 10,000 parts).
    """

    endpoint: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    backoff: Backoff = field(default_factory=Backoff)
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    multipart_bytes: int = 64 * 1024 * 1024
    part_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object, there or to come, and how to reach it."""

    bucket: str
    key: str
    options: S3Options

    @property
    def uri(self) -> str:
        """Its address."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def place(self) -> dict[str, str]:
        """The bucket and key, as requests want them."""
        return {"Bucket": self.bucket, "Key": self.key}


class S3Client(Protocol):
    """boto3's client: a method per request, with the request's parts as keywords."""

    def __getattr__(self, name: str) -> Callable[..., Answer]: ...


class TryAgainError(Exception):
    """An answer that calls for the same request again."""


class Retries:
    """Counts the failures of one act, and waits between its attempts.

    Args:
        what: the act, for messages: "read".
        uri: its object.
        options: how often, and the endpoint that messages name.
    """

    def __init__(self, what: str, uri: str, options: S3Options) -> None:
        self._what, self._uri, self._options = what, uri, options
        self._failures = 0

    def progress(self) -> None:
        """Forget the failures so far."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            TransientError: it was the last one.
            WorkspaceError: another would fail just so; MissingObjectError for an absent object.
        """
        backoff = self._options.backoff
        if not _is_passing(error):
            raise _explain(error, self._what, self._uri, self._options) from error
        self._failures += 1
        log.debug("%s %s: attempt %d: %s", self._what, self._uri, self._failures, error)
        if self._failures >= backoff.attempts:
            raise TransientError(
                f"could not {self._what} {self._uri} in {self._failures} attempts ({error}); check "
                f"that {_server(self._options)} can be reached, then run the command again"
            ) from error
        limit = min(backoff.first_seconds * 2 ** (self._failures - 1), backoff.longest_seconds)
        time.sleep(random.uniform(0, limit))  # noqa: S311  (spreads rivals; no secret)


def send(call: Callable[[], T], what: str, uri: str, options: S3Options) -> T:
    """Call until it succeeds; see `Retries` for the arguments and what is raised."""
    retries = Retries(what, uri, options)
    while True:
        try:
            return call()
        except request_errors() as error:
            retries.failed(error)


def request_errors() -> tuple[type[Exception], ...]:
    """Return what a request, or the reading of its answer, may raise."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, ResponseParserError, HTTPError, TryAgainError


def refusal_status(error: Exception) -> int | None:
    """Return the HTTP status when the error is the server's answer."""
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
        return None
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None if status is None else int(status)


# By process, for a connection must not be used on both sides of a fork.
_clients: dict[tuple[int, S3Options], S3Client] = {}
_locks: dict[int, threading.Lock] = {}


def s3_client(options: S3Options) -> S3Client:
    """Return this process's client, for all of its threads.

    Raises:
        BadInputError: an endpoint or a setting that cannot be used.
        WorkspaceError: a profile that does not exist, or credentials that are cut short.
    """
    process = os.getpid()
    key = (process, options)
    if (known := _clients.get(key)) is not None:
        return known
    with _locks.setdefault(process, threading.Lock()):
        if (known := _clients.get(key)) is None:
            known = _clients[key] = _make_client(options)
        return known


def _make_client(options: S3Options) -> S3Client:
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    config = Config(
        connect_timeout=options.connect_seconds,
        read_timeout=options.read_seconds,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        signature_version="s3v4",  # else links are signed the old way, which newer regions refuse
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": options.addressing},
        # Servers other than AWS's refuse the newer checksums; every upload carries its MD5.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="maskwheel",
    )
    try:
        # A session of our own: boto3's default one must not be shared by threads.
        session = boto3.session.Session()
        client: S3Client = session.client("s3", endpoint_url=options.endpoint, config=config)
        return client
    except ValueError as error:
        raise BadInputError(
            f"S3 cannot be set up: {error}; check MASKWHEEL_S3_ENDPOINT (expected https://host or "
            "http://host:port), AWS_ENDPOINT_URL and AWS_REGION"
        ) from error
    except request_errors() as error:
        raise _explain(error, "set up", "S3", options) from error


def _is_passing(error: Exception) -> bool:
    from botocore import exceptions  # type: ignore[import-untyped]
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if (status := refusal_status(error)) is not None:
        passing = status in (408, 429) or (status >= 500 and status != 501)
        return passing or _code(error) in _PASSING_CODES
    if isinstance(error, exceptions.SSLError) and "CERTIFICATE" in str(error):
        return False
    lost = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ChecksumError,
    )
    return isinstance(error, (*lost, ResponseParserError, HTTPError, TryAgainError))


def _code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _server(options: S3Options) -> str:
    return options.endpoint or "S3"


def _explain(error: Exception, what: str, uri: str, options: S3Options) -> EngineError:
    """Return our error for one that another attempt would meet again."""
    from botocore import exceptions

    code, status, server = _code(error), refusal_status(error), _server(options)
    failed = f"could not {what} {uri}"
    if code == "NoSuchBucket":
        return WorkspaceError(
            f"{failed}: {server} has no such bucket; create it, or check its name and "
            "MASKWHEEL_S3_ENDPOINT"
        )
    if status == 404:
        return MissingObjectError(
            f"{uri} is missing: something outside Maskwheel removed it, or the address is wrong; "
            "restore it"
        )
    credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.ProfileNotFound,
        exceptions.NoAuthTokenError,
        exceptions.TokenRetrievalError,
    )
    if isinstance(error, credentials) or code in _CREDENTIAL_CODES:
        return WorkspaceError(f"{failed}: credentials that {server} takes: {error}; {_CREDENTIALS}")
    if code in _REGION_CODES or status in (301, 307):
        return WorkspaceError(
            f"{failed}: the bucket is in another region ({error}); set AWS_REGION to the bucket's"
        )
    if code == "RequestTimeTooSkewed":
        return WorkspaceError(f"{failed}: this machine's clock is wrong ({error}); set it")
    if status in (401, 403):
        return WorkspaceError(
            f"{failed}: {server} forbids it ({code}); the credentials need s3:GetObject, "
            "s3:PutObject, s3:DeleteObject and s3:ListBucket (without the last one, a missing "
            "object looks forbidden too)"
        )
    if status == 412:
        return WorkspaceError(
            f"{failed}: it was rewritten while it was read, and objects are written once; find "
            "what writes to the bucket beside Maskwheel"
        )
    if isinstance(error, exceptions.ParamValidationError):
        return BadInputError(f"{failed}: {error}")
    return WorkspaceError(f"{failed}: {server} answered: {error}")

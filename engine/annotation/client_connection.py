"""The connection of a client to the annotation service: a session, and calls that are repeated.

    connection = Connection("http://127.0.0.1:8420", Patience())
    connection.request("POST", "/api/session", body={"token": token})

Every call is sent again while the service cannot be reached, restarts or says that it is busy,
until `Patience` is over.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from engine.annotation.client_errors import UnreachableError, refusal

__all__ = ["Call", "Connection", "Patience"]

_BUSY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a call is repeated.

    Attributes:
        seconds: from the first failure on; 0: never.
        first_pause: before the first repetition; doubles each time, with up to as much again by
            chance, so that many clients do not come back at the same moment.
        longest_pause: its limit.
        timeout: of one attempt.
    """

    seconds: float = 60.0
    first_pause: float = 0.2
    longest_pause: float = 5.0
    timeout: float = 30.0

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        pause = min(self.longest_pause, self.first_pause * 2.0 ** (failures - 1))
        return pause * (1 + secrets.SystemRandom().random())


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt of a call, for whoever measures.

    Attributes:
        route: e.g. ``"POST /api/tasks/{id}/submit"``.
        status: of the answer; None: there was none.
        seconds: until the whole answer was there.
    """

    route: str
    status: int | None
    seconds: float


class Connection:
    """A pool of connections with the cookie of one session; threads may share it."""

    def __init__(
        self,
        address: str,
        patience: Patience,
        on_call: Callable[[Call], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take an address; nothing is sent yet.

        Args:
            address: of the service, without a path.
            patience: how long to repeat calls.
            on_call: told every attempt of every call.
            sleep: waits between attempts; may raise to stop.
        """
        self._http = httpx.Client(
            base_url=address,
            headers={"X-Maskwheel": "1"},
            timeout=patience.timeout,
            trust_env=False,
        )
        self._patience = patience
        self._on_call = on_call or (lambda call: None)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        route: str | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> httpx.Response:
        """Send a request until it is answered for good.

        Args:
            method: of HTTP.
            path: below the address.
            route: what the call is known as, if not by method and path.
            body: becomes JSON.
            headers: besides the usual ones.
            once: do not send it again where it may have arrived.

        Raises:
            UnreachableError: the patience is over.
            EngineError: what the service refused it with, see `client_errors.refusal`.
        """
        route = route or f"{method} {path}"
        request = self._http.build_request(method, path, json=body, headers=headers)
        failures, gives_up_at = 0, float("inf")
        while True:
            problem: Exception
            try:
                answer = self._send(request, route)
            except httpx.TransportError as error:
                if once and not isinstance(error, httpx.ConnectError):
                    raise UnreachableError(f"no answer to {route}: {error!r}") from error
                problem, pause = error, 0.0
            else:
                if answer.is_success:
                    return answer
                problem, pause = refusal(answer, route), _retry_after(answer)
                if answer.status_code not in _BUSY:
                    raise problem
            failures += 1
            now = time.monotonic()
            gives_up_at = min(gives_up_at, now + self._patience.seconds)
            pause = max(pause, self._patience.pause(failures))
            if now + pause > gives_up_at:
                raise UnreachableError(
                    f"{self._http.base_url} did not answer {route} in {failures} attempts: "
                    f"{problem!r}; is the service running?"
                ) from problem
            self._sleep(pause)

    def _send(self, request: httpx.Request, route: str) -> httpx.Response:
        begun, status = time.monotonic(), None
        try:
            answer = self._http.send(request)
            status = answer.status_code
        finally:
            self._on_call(Call(route, status, time.monotonic() - begun))
        return answer


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0

"""The page that a simulated person sits at: what the browser does for them, against the same API.

    page = SimulatedPage(client, lease, clock, pace, decoder, frame)
    page.act("click", "click", "a1", {"x": 320.5, "y": 240.5, "label": 1})
    shown = page.ask(prompts, None)
    receipt = page.submit(content)

It logs events with the person's clock, sends them every few seconds, saves the draft after each
change, prolongs the lease and hands in the work, as `engine/annotation/web/src/lib/sync` does.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.annotation.client import AnnotationClient
from engine.annotation.client_values import AcknowledgedSubmission, DecodedMasks, TaskLease
from engine.annotation.errors import DraftConflictError, LeaseLostError
from engine.annotation.records import (
    DecoderKind,
    DraftContent,
    Event,
    MaskObject,
    PointPrompt,
    Prompt,
)
from engine.annotation.simulation.answers import Candidate, anchored, candidates
from engine.annotation.simulation.timing import Action, Pace, SimulatedClock
from model.types import Frame

__all__ = ["PromptDecoder", "ServerDecoder", "SimulatedPage", "TaskService"]

_SEND_EVENTS_AFTER_MS = 3_000
# A lease is prolonged when a third of it is over: two heartbeats may fail before it is lost.
_HEARTBEATS_PER_LEASE = 3


class PromptDecoder(Protocol):
    """Whoever answers prompts about one image.

    Attributes:
        kind: where it runs; goes into the objects.
    """

    @property
    def kind(self) -> DecoderKind:
        """Where it runs."""
        ...

    def decode(
        self, prompts: Sequence[Prompt], mask_logits_hw: NDArray[np.float32] | None
    ) -> DecodedMasks:
        """Answer the prompts for one mask."""
        ...


class TaskService(Protocol):
    """What the page needs of the service; `AnnotationClient` is it."""

    def heartbeat(self, lease: TaskLease) -> None:
        """Prolong the lease."""
        ...

    def save_draft(self, lease: TaskLease, content: DraftContent, version: int) -> int:
        """Save what is not finished."""
        ...

    def send_events(self, lease: TaskLease, page_id: str, events: Sequence[Event]) -> None:
        """Append to the log."""
        ...

    def submit(
        self,
        lease: TaskLease,
        objects: Iterable[MaskObject],
        *,
        deleted: Iterable[str] = (),
        exhaustive: bool = False,
        page_id: str | None = None,
        last_seq: int = 0,
        events: Sequence[Event] = (),
        submission_id: str | None = None,
    ) -> AcknowledgedSubmission:
        """Hand in a finished task."""
        ...

    def give_back(self, lease: TaskLease) -> None:
        """Let somebody else have the task."""
        ...


class ServerDecoder:
    """The service's own decoder."""

    kind: DecoderKind = "server"

    def __init__(self, client: AnnotationClient, lease: TaskLease) -> None:
        """Ask about a task's image."""
        self._client, self._lease = client, lease

    def decode(
        self, prompts: Sequence[Prompt], mask_logits_hw: NDArray[np.float32] | None
    ) -> DecodedMasks:
        """See `AnnotationClient.decode`."""
        return self._client.decode(self._lease, prompts, mask_logits_hw)


class SimulatedPage:
    """One person at one task."""

    def __init__(
        self,
        client: TaskService,
        lease: TaskLease,
        clock: SimulatedClock,
        pace: Pace,
        decoder: PromptDecoder,
        frame: Frame,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the page of a task.

        Args:
            client: the person's.
            lease: of the task.
            clock: the person's.
            pace: the person's.
            decoder: answers about the task's image.
            frame: how the image was laid into the model's input.
            monotonic: real seconds, for the lease.
        """
        self.lease, self.clock, self.pace, self.frame = lease, clock, pace, frame
        self._client, self._decoder, self._monotonic = client, decoder, monotonic
        self._page_id = str(uuid.uuid4())
        self._unsent: list[Event] = []
        self._last_seq = 0
        self._draft_version = lease.draft_version
        self._content = DraftContent()
        self._renewed_at = monotonic()

    @property
    def decoder_kind(self) -> DecoderKind:
        """Where the answers come from."""
        return self._decoder.kind

    def log(
        self, kind: str, object_id: str | None = None, data: Mapping[str, object] | None = None
    ) -> None:
        """Write down that something was done now."""
        self._last_seq += 1
        self._unsent.append(
            Event(
                seq=self._last_seq,
                at_ms=self.clock.now_ms,
                kind=kind,
                object_id=object_id,
                data=json.dumps(data or {}),
            )
        )

    def act(
        self,
        action: Action,
        kind: str,
        object_id: str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Take the time for an action, then write it down; TimeIsUpError if none is left."""
        self.spend(self.pace.seconds(action))
        self.log(kind, object_id, data)

    def spend(self, seconds: float) -> None:
        """Let time pass, and do what the page does meanwhile."""
        self.clock.spend(seconds)
        if self._monotonic() - self._renewed_at > self.lease.seconds / _HEARTBEATS_PER_LEASE:
            self._client.heartbeat(self.lease)
            self._renewed_at = self._monotonic()
        if self._unsent and self.clock.now_ms - self._unsent[0].at_ms >= _SEND_EVENTS_AFTER_MS:
            self._client.send_events(self.lease, self._page_id, self._unsent)
            self._unsent = []

    def ask(
        self,
        prompts: Sequence[Prompt],
        mask_logits_hw: NDArray[np.float32] | None,
    ) -> tuple[Candidate, ...]:
        """Ask the decoder; the trusted candidate comes first."""
        asked = anchored(prompts, mask_logits_hw, self.frame)
        with self.clock.waiting():
            answer = self._decoder.decode(asked, mask_logits_hw)
        alone = len(prompts) == 1 and isinstance(prompts[0], PointPrompt)
        several = not alone or mask_logits_hw is not None
        return candidates(answer, self.frame, several_prompts=several)

    def begin(self, content: DraftContent) -> None:
        """Take what is there already: the draft, or the proposals."""
        self._content = content

    def save_current(self, current: MaskObject) -> None:
        """Save the draft with an object that is not finished."""
        self.save(replace(self._content, current=current))

    def save(self, content: DraftContent) -> None:
        """Save the draft.

        A conflict means that the answer to an earlier save was lost: nobody else has the lease.
        """
        self._content = content
        try:
            self._draft_version = self._client.save_draft(self.lease, content, self._draft_version)
        except DraftConflictError as conflict:
            self._draft_version = self._client.save_draft(self.lease, content, conflict.version)

    def submit(self, content: DraftContent) -> AcknowledgedSubmission:
        """Hand in the work, with the events that were not sent yet."""
        return self._client.submit(
            self.lease,
            content.objects,
            deleted=content.deleted,
            exhaustive=content.exhaustive,
            page_id=self._page_id,
            last_seq=self._last_seq,
            events=self._unsent,
        )

    def leave(self, content: DraftContent) -> None:
        """Close the page in the middle: what there is stays as the draft."""
        try:
            if self._unsent:
                self._client.send_events(self.lease, self._page_id, self._unsent)
            self.save(content)
            self._client.give_back(self.lease)
        except LeaseLostError:  # it ran out meanwhile; the draft that was saved last stays
            return

"""A client of the annotation service: what a person does in the browser, from Python.

    with AnnotationClient.join("http://127.0.0.1:8420/join#token=...") as me:
        lease = me.next("birds")
        answer = me.decode(lease, [PointPrompt(320.0, 240.0, 1)])
        me.submit(lease, [MaskObject(object_id="a", rle=rle)], exhaustive=True)

Calls that fail in passing (a lost connection, a service that restarts, "busy") are repeated until
`Patience` is over. All calls may be repeated safely: leases and submissions are the same ones when
they are asked for again, events and drafts are numbered.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from engine.annotation.client_connection import Call, Connection, Patience
from engine.annotation.client_errors import ServiceAnswerError
from engine.annotation.client_values import (
    AcknowledgedSubmission,
    CampaignSummary,
    DecodedMasks,
    Invited,
    PublishedDecoder,
    TaskLease,
    draft_json,
    event_json,
    object_json,
    prompt_json,
    read_campaign,
    read_decoder,
    read_lease,
    verdict_json,
)
from engine.annotation.records import (
    DraftContent,
    Event,
    MaskObject,
    NothingToDo,
    Prompt,
    Role,
    StrokePrompt,
    Verdict,
)
from engine.errors import BadInputError

__all__ = ["AnnotationClient"]


class AnnotationClient:
    """One person at an annotation service; threads may share it.

    Attributes:
        name: of the person.
        role: ``"annotator"``, ``"reviewer"`` or ``"admin"``.
    """

    def __init__(self, connection: Connection, name: str, role: str) -> None:
        """Take a connection with a session; `join` makes one."""
        self._connection = connection
        self.name, self.role = name, role

    @classmethod
    def join(
        cls,
        address: str,
        token: str | None = None,
        *,
        patience: Patience | None = None,
        on_call: Callable[[Call], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Sign in.

        Args:
            address: an invite link, which holds the token, or the service's address.
            token: of the invitation.
            patience: how long to repeat calls that fail in passing.
            on_call: told every attempt of every call.
            sleep: waits between attempts; may raise to stop.

        Raises:
            BadInputError: no token, or not an address.
            NotSignedInError: the service does not know the token.
            UnreachableError: nobody answers.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BadInputError(f"expected an address like http://host:8420, got {address!r}")
        token = token or "".join(parse_qs(parts.fragment).get("token", [])[:1])
        if not token:
            raise BadInputError(
                f"{parts.scheme}://{parts.netloc} needs the token of an invitation: give the whole "
                "link of it, or its token"
            )
        connection = Connection(
            f"{parts.scheme}://{parts.netloc}", patience or Patience(), on_call, sleep
        )
        try:
            me = connection.request("POST", "/api/session", body={"token": token}).json()
        except BaseException:
            connection.close()
            raise
        return cls(connection, me["name"], me["role"])

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
        """Close the connections; the session stays valid until it runs out."""
        self._connection.close()

    def campaigns(self) -> tuple[CampaignSummary, ...]:
        """List the campaigns, newest first."""
        return tuple(read_campaign(item) for item in self._call("GET", "/api/campaigns").json())

    def campaign(self, name: str) -> CampaignSummary:
        """Find a campaign by its name or id.

        Raises:
            BadInputError: there is none.
        """
        found = self.campaigns()
        for campaign in found:
            if name in (campaign.name, campaign.campaign_id):
                return campaign
        names = ", ".join(campaign.name for campaign in found) or "none"
        raise BadInputError(f"there is no campaign {name!r}; the service has: {names}")

    def next(self, campaign_id: str) -> TaskLease | NothingToDo:
        """Take the next task; the one that this person has already, if there is one."""
        return self._lease(self._call("POST", "/api/campaigns/{id}/next", {}, id=campaign_id))

    def next_review(self, campaign_id: str) -> TaskLease | NothingToDo:
        """Take the next submission to review.

        Raises:
            NotAllowedError: this person is no reviewer.
        """
        answer = self._call("POST", "/api/campaigns/{id}/next-review", {}, id=campaign_id)
        return self._lease(answer)

    @staticmethod
    def _lease(answer: httpx.Response) -> TaskLease | NothingToDo:
        value = answer.json()
        if "nothing" in value:
            return NothingToDo(reason=value["nothing"], message=value.get("message", ""))
        return read_lease(value)

    def heartbeat(self, lease: TaskLease) -> None:
        """Prolong a lease.

        Raises:
            LeaseLostError: somebody else has the task now. So do all calls that take a lease.
        """
        self._work("POST", "/api/tasks/{id}/heartbeat", lease, {})

    def save_draft(self, lease: TaskLease, content: DraftContent, version: int) -> int:
        """Save what is not finished; return its version, which the next save must name.

        Raises:
            DraftConflictError: another version is there, perhaps because an answer was lost.
        """
        body, match = draft_json(content, version), f'"{version}"'
        answer = self._work("PUT", "/api/tasks/{id}/draft", lease, body, {"If-Match": match})
        return int(answer.json()["version"])

    def send_events(self, lease: TaskLease, page_id: str, events: Sequence[Event]) -> None:
        """Append to the log of what was done; an event that is there already stays as it is."""
        body = {"page_id": page_id, "events": [event_json(event) for event in events]}
        self._work("POST", "/api/tasks/{id}/events", lease, body)

    def decode(
        self,
        lease: TaskLease,
        prompts: Iterable[Prompt],
        mask_logits_hw: NDArray[np.float32] | None = None,
    ) -> DecodedMasks:
        """Ask the service's decoder.

        Args:
            lease: the task whose image is asked about.
            prompts: clicks, and at most one box; strokes are left out.
            mask_logits_hw: of the mask to improve on.
        """
        asked = [prompt_json(p) for p in prompts if not isinstance(p, StrokePrompt)]
        body: dict[str, object] = {"prompts": asked}
        if mask_logits_hw is not None:
            body["mask_logits"] = base64.b64encode(
                np.ascontiguousarray(mask_logits_hw, dtype="<f2").tobytes()
            ).decode("ascii")
        answer = self._work("POST", "/api/tasks/{id}/decode", lease, body)
        try:
            tensors = load_tensors(answer.content)
            iou, logits = tensors["iou"].reshape(-1), tensors["logits"]
        except (SafetensorError, KeyError) as error:
            raise ServiceAnswerError(f"the decoder's answer cannot be read: {error!r}") from error
        return DecodedMasks(
            iou.astype(np.float32), logits.reshape(-1, *logits.shape[-2:]).astype(np.float32)
        )

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
        """Hand in a finished task; once however often it is repeated.

        Args:
            lease: of the task.
            objects: every mask, kept proposals among them.
            deleted: ids of proposals that are wrong; each proposal is here or among the objects.
            exhaustive: nothing is left to annotate.
            page_id: under which events were sent.
            last_seq: of the last of them; 0: there was none.
            events: those that may not be there yet.
            submission_id: a UUID to repeat a submission with, e.g. from another process; made up
                by default.
        """
        body = {
            "submission_id": submission_id or str(uuid.uuid4()),
            "objects": [object_json(item) for item in objects],
            "deleted": list(deleted),
            "exhaustive": exhaustive,
            "page_id": page_id or str(uuid.uuid4()),
            "last_seq": last_seq,
            "events": [event_json(event) for event in events],
        }
        value = self._work("POST", "/api/tasks/{id}/submit", lease, body).json()
        return AcknowledgedSubmission(
            submission_id=value["submission_id"],
            task_id=str(value["task_id"]),
            objects=value["objects"],
            state=value["state"],
        )

    def skip(self, lease: TaskLease, reason: str) -> None:
        """Say that the image cannot be annotated."""
        self._work("POST", "/api/tasks/{id}/skip", lease, {"reason": reason})

    def give_back(self, lease: TaskLease) -> None:
        """Let somebody else have the task."""
        self._work("POST", "/api/tasks/{id}/give-back", lease, {})

    def judge(
        self,
        lease: TaskLease,
        verdicts: Iterable[Verdict],
        *,
        reason: str = "",
        review_id: str | None = None,
    ) -> str:
        """Hand in a review; return the task's state: ``"accepted"`` or ``"returned"``."""
        body = {
            "submission_id": review_id or str(uuid.uuid4()),
            "verdicts": [verdict_json(verdict) for verdict in verdicts],
            "reason": reason or None,
        }
        answer = self._work("POST", "/api/tasks/{id}/verdicts", lease, body)
        return str(answer.json()["state"])

    def pixels(self, lease: TaskLease, *, preview: bool = False) -> bytes:
        """Load the image's file as browsers show it, or a smaller one."""
        path = lease.image.preview if preview else lease.image.pixels
        return self._fetch("GET /api/images/{id}/pixels", path)

    def embedding(self, lease: TaskLease) -> bytes:
        """Load what the decoder needs of the image: safetensors."""
        return self._fetch("GET /api/images/{id}/embedding", lease.image.embedding)

    def decoder_description(self, lease: TaskLease) -> PublishedDecoder:
        """Load what there is to know of the decoder: its files, the model's input."""
        return read_decoder(self._fetch("GET /api/models/{id}/decoder", lease.decoder))

    def decoder_file(self, lease: TaskLease, name: str) -> bytes:
        """Load one of the decoder's files."""
        folder = lease.decoder.rpartition("/")[0]
        return self._fetch("GET /api/models/{id}/{file}", f"{folder}/{name}")

    def _fetch(self, route: str, path: str) -> bytes:
        return self._connection.request("GET", path, route=route).content

    def invite(self, name: str, role: Role = "annotator") -> Invited:
        """Let somebody in. Not repeated when the answer is lost: the name is taken then.

        Raises:
            NotAllowedError: this person is no admin.
        """
        body = {"name": name, "role": role}
        value = self._connection.request("POST", "/api/annotators", body=body, once=True).json()
        return Invited(annotator_id=value["id"], name=value["name"], token=value["token"])

    def revoke(self, annotator_id: str) -> None:
        """Shut somebody out; what they did stays.

        Raises:
            NotAllowedError: this person is no admin.
        """
        self._call("DELETE", "/api/annotators/{id}", id=annotator_id)

    def figures(self, campaign_id: str) -> str:
        """Return a campaign's figures as JSON; see `engine.annotation.figure_values`.

        Raises:
            NotAllowedError: this person is no reviewer.
        """
        return self._call("GET", "/api/campaigns/{id}/figures", id=campaign_id).text

    def _work(
        self,
        method: Literal["POST", "PUT"],
        template: str,
        lease: TaskLease,
        body: dict[str, Any],
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        headers = {"X-Lease": lease.lease_id, **(headers or {})}
        return self._call(method, template, body, headers, id=lease.task_id)

    def _call(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        template: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        **names: str,
    ) -> httpx.Response:
        path, route = template.format(**names), f"{method} {template}"
        return self._connection.request(method, path, route=route, body=body, headers=headers)

"""What came of a request at one gateway, and how the outcomes at two gateways differ."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import text_format
from google.protobuf.message import Message


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = _Nothing()
"""Where one gateway has a value and the other has none."""


@dataclass(frozen=True)
class Outcome:
    """What a client got, and what the gRPC server got.

    kind: content type without parameters.
    answer: parsed JSON; for streams a list of records; bytes for what is neither.
    rpc, request: what was called with what; None if nothing was, or if the request could not be read.
    """

    status: int
    kind: str
    answer: Any
    rpc: str | None
    request: Message | None

    @property
    def ok(self) -> bool:
        """Whether the answer is a good one."""
        return self.status < 300

    @property
    def called(self) -> str:
        """The method that was called, and whether with a request that can be read."""
        return "nothing" if self.rpc is None else f"{self.rpc}{'' if self.request is not None else ', unreadable'}"

    @property
    def code(self) -> int | None:
        """The gRPC code in an error's body; None if it has not the form of a Status."""
        return self.answer.get("code") if isinstance(self.answer, dict) else None

    @property
    def shown(self) -> str:
        """In a few words."""
        request = "" if self.rpc is None else f" got {{{_one_line(self.request)}}}"
        return f"{self.status} {self.kind}{request}"


def parsed(body: bytes, kind: str, *, stream: bool) -> Any:
    """Return the answer in a body, in the form that Outcome has it."""
    if stream and not body:
        return []
    try:
        if kind == "text/event-stream":
            return list(_events(body.decode()))
        if stream and kind in ("application/json", "application/x-ndjson"):
            return [json.loads(line) for line in body.splitlines() if line]
        return json.loads(body)
    except ValueError:
        return body


def _events(text: str) -> Iterator[dict[str, Any]]:
    for block in text.split("\n\n")[:-1]:
        event = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        yield {**event, "data": json.loads(event["data"])}


@dataclass(frozen=True)
class Difference:
    """One thing in which our outcome differs from another gateway's.

    about: `status`, `call` (which method the server was asked for), `request` (with what), `code`, `type` or `answer`.
    path: where in the answer, such as `parent.number` or `[0].result`.
    ours, theirs: what differs: numbers, messages, or pieces of JSON.
    """

    about: str
    path: str
    ours: Any
    theirs: Any


def differences(ours: Outcome, theirs: Outcome) -> list[Difference]:
    """Return in what two outcomes of one request differ.

    What follows from a difference is not listed beside it: where one gateway refuses, the answers differ too.
    """
    if ours.status != theirs.status:
        return [Difference("status", "", ours.status, theirs.status)]
    found = []
    if ours.rpc != theirs.rpc or (ours.request is None) != (theirs.request is None):
        found.append(Difference("call", "", ours.called, theirs.called))
    elif _form(ours.request) != _form(theirs.request):
        found.append(Difference("request", "", ours.request, theirs.request))
    if ours.ok and ours.kind != theirs.kind:
        found.append(Difference("type", "", ours.kind, theirs.kind))
    if not ours.ok and ours.code != theirs.code:
        found.append(Difference("code", "", ours.code, theirs.code))
    if not found or [difference.about for difference in found] == ["type"]:
        own_words = ours.rpc is None and not ours.ok
        found += [] if own_words else _json_differences("", ours.answer, theirs.answer)
    return found


def _form(request: Message | None) -> str | None:
    """Return what does not depend on how a message was written down, nor on which NaN is in it."""
    return None if request is None else text_format.MessageToString(request)


def _json_differences(path: str, ours: Any, theirs: Any) -> Iterator[Difference]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            yield from _json_differences(f"{path}.{key}", ours.get(key, NOTHING), theirs.get(key, NOTHING))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (our_item, their_item) in enumerate(zip(ours, theirs, strict=True)):
            yield from _json_differences(f"{path}[{index}]", our_item, their_item)
    elif type(ours) is bool or type(theirs) is bool:
        if ours is not theirs:
            yield Difference("answer", path, ours, theirs)
    elif ours != theirs:
        yield Difference("answer", path, ours, theirs)


def _one_line(message: Message | None) -> str:
    return "what cannot be read" if message is None else text_format.MessageToString(message, as_one_line=True)[:200]

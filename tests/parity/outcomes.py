"""What a call came to, in a form in which gRPC and REST must not differ."""

import asyncio
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.message import Message

from tests.support.calls import Caller, Reply
from tests.support.http_rules import SERVICE

# The second form is in etags.
_ID = re.compile(r"\b([0-9a-f]{32}|[0-9a-f]{8}(?=-\d))\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_MARK = (("x-request-id", "parity"),)


@dataclass(frozen=True)
class Outcome:
    """Messages in order (of a unary call one, or none), what came with them, and the error, if there was one."""

    messages: Sequence[Message]
    reply: Reply
    error: ChatSessionError | None

    @property
    def reason(self) -> str:
        """The reason of the error; empty if there was none."""
        return self.error.reason if self.error else ""

    def exact(self) -> str:
        """Everything, as text. Where deltas and files were cut is a matter of time, as are heartbeats: not in it."""
        metadata = {key: value for key, value in self.reply.metadata.items() if not key.startswith("grpc-")}
        if not self.messages or isinstance(self.messages[0], pb.TurnEvent):
            # grpc.aio's client takes the initial metadata for empty where the status of a stream comes first of the two
            # that it waits for, as with a short one under load. tests/e2e/test_documented_api.py sees them sent.
            metadata.pop("turn-id", None)
        return json.dumps(
            {
                "messages": [_plain(message) for message in _joined(self.messages)],
                "metadata": metadata,
                "status": self.reply.status and _plain(self.reply.status),
            },
            indent=1,
            sort_keys=True,
        )

    def masked(self) -> str:
        """The same for calls that did the same in sessions of their own: ids by order of appearance, no times."""
        names: dict[str, str] = {}
        text = _ID.sub(lambda found: names.setdefault(found[0], f"id {len(names) + 1}"), self.exact())
        return _TIME.sub("a time", text)


async def outcome_of(caller: Caller, method: str, request: Message, *, begun: asyncio.Event | None = None) -> Outcome:
    """Make a call of any kind to its end. begun: set when the first message of a stream has come."""
    messages: list[Message] = []
    reply, error = Reply(), None
    try:
        kind = SERVICE.methods_by_name[method]
        if kind.client_streaming:
            messages.append(await caller.upload(method, [request], metadata=_MARK, reply=reply))
        elif kind.server_streaming:
            async for message in caller.events(method, request, metadata=_MARK, reply=reply):
                messages.append(message)
                if begun is not None:
                    begun.set()
        else:
            messages.append(await caller.unary(method, request, metadata=_MARK, reply=reply))
    except ChatSessionError as caught:
        if reply.status is None:
            raise  # the connection broke
        error = caught
    return Outcome(messages, reply, error)


async def begin(callers: Sequence[Caller], method: str, request: Message) -> list["asyncio.Task[Outcome]"]:
    """Make the same streaming call each way at once; return when each has its first message."""
    events = [asyncio.Event() for _ in callers]
    calls = [
        asyncio.create_task(outcome_of(caller, method, request, begun=begun))
        for caller, begun in zip(callers, events, strict=True)
    ]
    await asyncio.gather(*(begun.wait() for begun in events))
    return calls


def agree(outcomes: Iterable[str]) -> None:
    """Check that several outcomes, as text, are equal."""
    first, *others = outcomes
    assert others
    for other in others:
        assert other == first, "\n".join(unified_diff(first.splitlines(), other.splitlines(), lineterm=""))


def _plain(message: Message) -> Any:
    if isinstance(message, HttpBody):
        return [message.content_type, *message.data.decode().splitlines()]
    plain = json_format.MessageToDict(message)
    if isinstance(message, pb.TurnEvent):
        cursor = message.cursor
        plain["cursor"] = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    return plain


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Leave heartbeats out, and make one delta of each row of them, and one file of its pieces."""
    joined: list[Message] = []
    for message in messages:
        kind = message.WhichOneof("event") if isinstance(message, pb.TurnEvent) else ""
        if kind == "delta" and joined and joined[-1].WhichOneof("event") == "delta":
            text = joined.pop().delta.text + message.delta.text
            joined.append(pb.TurnEvent(cursor=message.cursor, delta=pb.TextDelta(text=text)))
        elif isinstance(message, HttpBody) and joined:
            joined.append(HttpBody(content_type=message.content_type, data=joined.pop().data + message.data))
        elif kind != "heartbeat":
            joined.append(message)
    return joined

"""Workers that send messages through whatever happens, and the check of the histories against what they were told."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from chatsession.errors import ChatSessionError, Retry
from chatsession.status import from_status
from chatsession.v1 import chat_session_pb2 as pb

from tests.support.calls import Caller, Events, Seen, send_request, whole_history
from tests.support.door import Door
from tests.support.waiting import until

_CALL_TIMEOUT_S = 6.0
_RETRY_S = 0.15

# Each model, and what it answers to a text; answers are cut short where a server was lost.
MODELS: dict[str, Callable[[str], str]] = {
    "demo/echo": lambda text: text,
    "demo/slow:chunks=10,delay_ms=40": lambda _: "".join(f"word{n} " for n in range(1, 11)),
    "demo/slow:chunks=16,delay_ms=100": lambda _: "".join(f"word{n} " for n in range(1, 17)),
    "demo/slow:chunks=3,delay_ms=10,first_ms=700": lambda _: "word1 word2 word3 ",
    "demo/cut:chunks=3": lambda _: "word1 word2 word3 ",
    "demo/error-400": lambda _: "",
}
_WEIGHTS = (4, 4, 3, 2, 1, 1)


@dataclass
class Told:
    """One send, and what its caller was told in the end."""

    session_id: str
    text: str
    model: str
    request_id: str
    started: float
    tries: int = 0
    answered: float = 0.0
    turn_id: str = ""
    response: str = ""
    reason: str = ""


@dataclass
class Ledger:
    """All that was told."""

    sends: list[Told] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)


class Worker:
    """Sends one message after the other, each until its outcome is known."""

    def __init__(
        self, name: str, doors: Callable[[], Sequence[Door]], sessions: Sequence[str], ledger: Ledger, seed: int
    ) -> None:
        self._name = name
        self._doors = doors
        self._sessions = sessions
        self._ledger = ledger
        self._random = random.Random(f"{seed}-{name}")

    async def run(self, until: float) -> None:
        """Send until a time of the steady clock, and finish what was begun."""
        number = 0
        while time.monotonic() < until:
            number += 1
            [model] = self._random.choices(list(MODELS), _WEIGHTS)
            text = f"{self._name} message {number}"
            told = Told(self._random.choice(self._sessions), text, model, f"{self._name}-{number}", time.monotonic())
            self._ledger.sends.append(told)
            await self._send(told)

    async def _send(self, told: Told) -> None:
        """Repeat the send, as the errors allow, until its outcome is known."""
        seen = Seen()
        while not told.answered:
            told.tries += 1
            try:
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    await self._try(told, seen)
                told.answered = time.monotonic()
            except TimeoutError:
                continue
            except ChatSessionError as error:
                self._take(told, error)
                await asyncio.sleep(min(error.retry_delay_s or 0.0, _RETRY_S) or _RETRY_S / 3)

    async def _try(self, told: Told, seen: Seen) -> None:
        caller = self._random.choice(self._doors()).by(self._random.choice(("grpc", "rest")))
        request = send_request(told.session_id, told.text, model=told.model, request_id=told.request_id)
        if seen.turn_id and self._random.random() < 0.8:
            await self._watch(caller.attach(told.session_id, seen.turn_id, seen.cursor), told, seen)
        elif self._random.random() < 0.5:
            fresh = Seen()
            try:
                await self._watch(caller.stream(request), told, fresh)
            finally:
                seen.__dict__.update(fresh.__dict__)
        else:
            response = await caller.send(request)
            told.turn_id, told.response = response.turn.turn_id, response.response

    async def _watch(self, events: Events, told: Told, seen: Seen) -> None:
        """Read a stream to its end; sometimes leave in the middle, as a broken connection would."""
        leave_at = self._random.randrange(40)
        try:
            async for event in events:
                seen.take(event)
                if len(seen.kinds) == leave_at:
                    break
        finally:
            await events.aclose()
        if seen.ended is None:
            raise ChatSessionError("left, or the stream ended early")
        if seen.text != seen.ended.response:
            self._ledger.surprises.append(f"{told.request_id}: {seen.text!r} was shown of {seen.ended.response!r}")
        told.turn_id, told.response = seen.turn_id, seen.ended.response
        if seen.ended.state == pb.Turn.FAILED:
            told.reason = from_status(seen.ended.error).reason

    def _take(self, told: Told, error: ChatSessionError) -> None:
        """Go on after an error that allows a repeat; write down one that is the outcome."""
        if error.retry is Retry.SAME_REQUEST or not error.reason or error.retry is None:
            if error.reason in ("INTERNAL_ERROR", "REQUEST_ID_REUSED", "TURN_NOT_FOUND", "SESSION_NOT_FOUND"):
                self._ledger.surprises.append(f"{told.request_id}: {error} {error.metadata}")
            return
        if error.committed is not True:
            self._ledger.surprises.append(f"{told.request_id}: {error} {error.metadata}")
        told.turn_id, told.reason, told.answered = error.turn_id or "", error.reason, time.monotonic()


async def all_settled(caller: Caller, sessions: Sequence[str], *, timeout_s: float) -> None:
    """Return when no turn runs in any of these sessions."""

    async def look() -> bool:
        return all([await _is_settled(caller, session_id) for session_id in sessions])

    await until(look, timeout_s=timeout_s)


async def _is_settled(caller: Caller, session_id: str) -> bool:
    page = await caller.history(
        pb.GetHistoryRequest(session_id=session_id, view=pb.FULL, order_by="seq desc", page_size=1)
    )
    return not page.active_turn_id


async def faults_in(caller: Caller, ledger: Ledger, calls: Callable[[str], int]) -> list[str]:
    """Compare the histories, read after all turns have ended, with what was told; returns what is wrong.

    calls: how often the provider was asked with a text as the newest message.
    """
    faults = list(ledger.surprises)
    by_session: dict[str, list[Told]] = {}
    for told in ledger.sends:
        by_session.setdefault(told.session_id, []).append(told)
    for session_id, sends in by_session.items():
        history = await whole_history(caller, session_id)
        faults += _faults_of_form(session_id, history) + _faults_of_order(sends, history)
        for told in sends:
            faults += await _faults_of_send(caller, told, history, calls)
        unknown = {m.content for m in history if m.role == "user"} - {told.text for told in sends}
        faults += [f"{session_id}: nobody sent {text!r}" for text in unknown]
    return faults


def _faults_of_form(session_id: str, history: list[pb.Message]) -> list[str]:
    faults = []
    seqs = [message.seq for message in history]
    if seqs != sorted(set(seqs)):
        faults.append(f"{session_id}: numbers {seqs}")
    roles = [(message.turn_id, message.role) for message in history]
    for turn_id, count in Counter(turn_id for turn_id, _ in roles).items():
        of_turn = [role for other, role in roles if other == turn_id]
        if of_turn not in (["user"], ["user", "assistant"]):
            faults.append(f"{session_id}: turn {turn_id} has {count} messages: {of_turn}")
    for before, after in pairwise(history):
        if after.role == "assistant" and before.turn_id != after.turn_id:
            faults.append(f"{session_id}: answer {after.seq} does not follow its question")
    return faults


def _faults_of_order(sends: list[Told], history: list[pb.Message]) -> list[str]:
    """A send that began when another had been answered stands behind it."""
    places = {message.content: message.seq for message in history if message.role == "user"}
    faults = []
    newest, newest_started = None, 0.0
    for message in history:
        told = next((told for told in sends if message.role == "user" and told.text == message.content), None)
        if told is None:
            continue
        if newest is not None and told.answered < newest_started:
            faults.append(f"{told.request_id} at {places[told.text]} stands behind {newest.request_id}")
        if told.started > newest_started:
            newest, newest_started = told, told.started
    return faults


async def _faults_of_send(
    caller: Caller, told: Told, history: list[pb.Message], calls: Callable[[str], int]
) -> list[str]:
    questions = [message for message in history if message.role == "user" and message.content == told.text]
    if len(questions) != 1:
        return [f"{told.request_id}: is {len(questions)} times in the history; told {told}"]
    answers = [m.content for m in history if m.role == "assistant" and m.turn_id == questions[0].turn_id]
    faults = []
    if questions[0].turn_id != told.turn_id:
        faults.append(f"{told.request_id}: told turn {told.turn_id}, is {questions[0].turn_id}")
    turn = await caller.get_turn(told.session_id, questions[0].turn_id)
    whole = MODELS[told.model](told.text)
    expected = [turn.response] if turn.response or turn.state == pb.Turn.COMPLETED else []
    if answers != expected or (not told.reason and [told.response] != answers):
        faults.append(f"{told.request_id}: told {told.response!r} {told.reason}, is {answers}, turn {turn.response!r}")
    if not whole.startswith(turn.response) or (turn.state == pb.Turn.COMPLETED and turn.response != whole):
        faults.append(f"{told.request_id}: {turn.response!r} is not what {told.model} says")
    if calls(told.text) > turn.attempt:
        faults.append(f"{told.request_id}: {calls(told.text)} calls of the provider in {turn.attempt} attempts")
    return faults

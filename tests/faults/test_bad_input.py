"""Wrong ids, cursors and numbers are refused by the name of the field, and leave the session as it was."""

import dataclasses
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable

import grpc
import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError, InvalidField, SessionNotFound, TurnNotFound
from chatsession.v1 import chat_session_pb2 as pb

from tests.faults.conftest import Pair
from tests.support.calls import Caller, Events, Seen, send_request, whole_history

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOO_LONG = "x" * 65
NO_IDS = [TOO_LONG, "-", "-abc", "a b", "ä", "a.b", "a%2Fb"]


@dataclasses.dataclass
class Known:
    """A session with one ended turn, and another turn with its cursor in another session."""

    caller: Caller
    session_id: str
    turn_id: str
    foreign_turn_id: str
    foreign_cursor: str


@pytest_asyncio.fixture(loop_scope="session")
async def known(pair: Pair, transport: str) -> Known:
    caller = pair[0].by(transport)
    session_id, other_id = await caller.create_session(), await caller.create_session()
    turn = (await caller.send(send_request(session_id, "hello", model="demo/echo"))).turn
    seen = await Seen().read(pair[1].by(transport).stream(send_request(other_id, "hello", model="demo/echo")))
    return Known(caller, session_id, turn.turn_id, seen.turn_id, seen.cursor)


async def _read(events: Events) -> None:
    async for _ in events:
        pass


def _attach(known: Known, session_id: str, turn_id: str) -> Awaitable[object]:
    return _read(known.caller.attach(session_id, turn_id))


def _get(known: Known, session_id: str, turn_id: str) -> Awaitable[object]:
    return known.caller.get_turn(session_id, turn_id)


def _cancel(known: Known, session_id: str, turn_id: str) -> Awaitable[object]:
    return known.caller.cancel_turn(session_id, turn_id)


Call = Callable[[Known, str, str], Awaitable[object]]
of_a_turn = pytest.mark.parametrize("call", [_attach, _get, _cancel], ids=["attach", "get", "cancel"])


async def _refused(calling: Awaitable[object]) -> ChatSessionError:
    with pytest.raises(ChatSessionError) as caught:
        await calling
    return caught.value


@of_a_turn
async def test_an_unknown_turn_is_not_found(known: Known, call: Call) -> None:
    for turn_id in ("nosuchturn", known.foreign_turn_id):
        error = await _refused(call(known, known.session_id, turn_id))
        assert isinstance(error, TurnNotFound)
        assert error.code is grpc.StatusCode.NOT_FOUND


@of_a_turn
async def test_an_unknown_session_is_not_found(known: Known, call: Call) -> None:
    error = await _refused(call(known, "nosuchsession", known.turn_id))
    assert isinstance(error, SessionNotFound)
    assert error.code is grpc.StatusCode.NOT_FOUND


@of_a_turn
async def test_a_turn_id_of_a_wrong_form_is_named(known: Known, call: Call, transport: str) -> None:
    for turn_id in NO_IDS[: None if transport == "grpc" else 2]:
        error = await _refused(call(known, known.session_id, turn_id))
        assert isinstance(error, InvalidField)
        assert list(error.field_violations) == ["turn_id"]


@of_a_turn
async def test_a_session_id_of_a_wrong_form_is_named(known: Known, call: Call, transport: str) -> None:
    for session_id in NO_IDS[: None if transport == "grpc" else 2]:
        error = await _refused(call(known, session_id, known.turn_id))
        assert isinstance(error, InvalidField)
        assert list(error.field_violations) == ["session_id"]


def _forged(plain: str) -> str:
    return urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _malformed(turn_id: str) -> list[str]:
    return [
        "!",
        "A",
        "x" * 10_000,
        _forged("hello"),
        _forged(f"9.{turn_id}.1.0.0"),
        _forged(f"1.{turn_id}.1.0"),
        _forged(f"1.{turn_id}.-1.0.0"),
        _forged(f"1.{turn_id}.1.-1.0"),
        _forged(f"1.{turn_id}.1.0.2"),
        _forged(f"1.{turn_id}.1.{2**60}.0"),
        _forged(f"1.{turn_id}.1.0.0") + "==",
        _forged(f"1.{turn_id}.1.0.0.0"),
    ]


async def test_a_malformed_cursor_is_named(known: Known) -> None:
    for cursor in _malformed(known.turn_id):
        error = await _refused(_read(known.caller.attach(known.session_id, known.turn_id, cursor)))
        assert isinstance(error, InvalidField), cursor
        assert list(error.field_violations) == ["after_cursor"]


async def test_a_cursor_of_another_turn_is_named(known: Known) -> None:
    error = await _refused(_read(known.caller.attach(known.session_id, known.turn_id, known.foreign_cursor)))
    assert isinstance(error, InvalidField)
    assert list(error.field_violations) == ["after_cursor"]


async def test_a_cursor_beyond_the_text_gets_a_snapshot(known: Known) -> None:
    for fence, offset in ((1, 10_000), (77, 3)):
        cursor = _forged(f"1.{known.turn_id}.{fence}.{offset}.0")
        seen = await Seen().read(known.caller.attach(known.session_id, known.turn_id, cursor))
        assert (seen.text, seen.ended is not None) == ("hello", True)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("after_seq", {"after_seq": -1}),
        ("page_size", {"page_size": -1}),
        ("page_token", {"page_token": "!"}),
        ("page_token", {"page_token": "abc"}),
        ("page_token", {"page_token": _forged('["x",0,false,1]')}),
        ("order_by", {"order_by": "size"}),
    ],
)
async def test_a_wrong_field_of_a_history_is_named(known: Known, field: str, values: dict[str, object]) -> None:
    request = pb.GetHistoryRequest(session_id=known.session_id, **values)  # type: ignore[arg-type]
    error = await _refused(known.caller.history(request))
    assert isinstance(error, InvalidField)
    assert list(error.field_violations) == [field]


async def test_a_page_token_of_another_session_is_named(known: Known) -> None:
    await known.caller.send(send_request(known.session_id, "more", model="demo/echo"))
    page = await known.caller.history(pb.GetHistoryRequest(session_id=known.session_id, page_size=1))
    assert page.next_page_token
    for other in (
        pb.GetHistoryRequest(session_id=await known.caller.create_session(), page_token=page.next_page_token),
        pb.GetHistoryRequest(session_id=known.session_id, page_token=page.next_page_token, after_seq=1),
        pb.GetHistoryRequest(session_id=known.session_id, page_token=page.next_page_token, order_by="seq desc"),
    ):
        error = await _refused(known.caller.history(other))
        assert list(error.field_violations) == ["page_token"]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("request_id", {"request_id": "x" * 129}),
        ("request_id", {"request_id": "a b"}),
        ("expected_last_seq", {"expected_last_seq": -1}),
        ("message", {"message": ""}),
        ("session_id", {"session_id": TOO_LONG}),
        ("on_busy", {"on_busy": 9}),
        ("on_disconnect", {"on_disconnect": 9}),
        ("settings.temperature", {"settings": pb.ModelSettings(temperature=9)}),
        ("settings.model", {"settings": pb.ModelSettings(model="")}),
    ],
)
async def test_a_wrong_field_of_a_send_is_named_and_nothing_is_saved(
    pair: Pair, field: str, values: dict[str, object]
) -> None:
    caller = pair[0].grpc
    session_id = await caller.create_session()
    request = pb.SendMessageRequest(**{"session_id": session_id, "message": "hello", **values})  # type: ignore[arg-type]
    for calling in (caller.send(request), _read(caller.stream(request))):
        error = await _refused(calling)
        assert isinstance(error, InvalidField)
        assert list(error.field_violations) == [field]
    assert await whole_history(caller, session_id) == []


async def test_refused_calls_write_nothing(known: Known) -> None:
    before = (
        await whole_history(known.caller, known.session_id),
        await known.caller.get_turn(known.session_id, known.turn_id),
    )
    for call in (_attach, _get, _cancel):
        await _refused(call(known, known.session_id, known.foreign_turn_id))
        await _refused(call(known, known.session_id, TOO_LONG))
    await _refused(_read(known.caller.attach(known.session_id, known.turn_id, "!")))
    after = (
        await whole_history(known.caller, known.session_id),
        await known.caller.get_turn(known.session_id, known.turn_id),
    )
    assert after == before

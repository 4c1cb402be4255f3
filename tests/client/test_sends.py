"""A send happens once, and is repeated only where that is of use."""

import asyncio
import time
from datetime import timedelta

import chatsession
import grpc
import pytest
from chatsession import AsyncChatClient
from chatsession.v1 import chat_session_pb2 as pb

from .conftest import QUICK
from .scripted import BREAK, SESSION, TURN, Refusal, Scripted, a_turn, busy_store

HELLO = pb.SendMessageResponse(response="Hello", turn=a_turn(pb.Turn.COMPLETED, "Hello"))


async def test_returns_text_and_turn(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    answer = await client.send(SESSION, "hi")
    assert (answer.text, answer.turn, answer.is_complete) == ("Hello", HELLO.turn, True)


async def test_every_argument_arrives(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    settings = chatsession.ModelSettings(model="m", temperature=0)
    await client.send(
        SESSION,
        "hi",
        request_id="r1",
        on_busy="REJECT",
        on_disconnect="CANCEL",
        expected_last_seq=0,
        settings=settings,
    )
    assert server.requests("SendMessage") == [
        pb.SendMessageRequest(
            session_id=SESSION,
            message="hi",
            request_id="r1",
            on_busy=pb.REJECT,
            on_disconnect=pb.CANCEL,
            expected_last_seq=0,
            settings=settings,
            view=pb.FULL,
        )
    ]
    assert server.requests("SendMessage")[0].HasField("expected_last_seq")


async def test_repeats_carry_the_same_request_id(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [busy_store()], [BREAK], [HELLO])
    await client.send(SESSION, "hi")
    first, *others = server.requests("SendMessage")
    assert others == [first, first]
    assert len(first.request_id) == 36


async def test_two_sends_have_two_request_ids(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [HELLO], [HELLO])
    await client.send(SESSION, "hi")
    await client.send(SESSION, "hi")
    assert len({request.request_id for request in server.requests("SendMessage")}) == 2


async def test_waits_as_long_as_the_server_asks(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [busy_store(0.3)], [HELLO])
    begin_s = time.monotonic()
    await client.send(SESSION, "hi")
    assert time.monotonic() - begin_s >= 0.3


async def test_does_not_wait_for_what_the_deadline_forbids(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [busy_store(3600)])
    async with asyncio.timeout(60):
        with pytest.raises(chatsession.Unavailable):
            await client.send(SESSION, "hi")


async def test_gives_up_after_the_policys_attempts(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", *[[busy_store()]] * 10)
    with pytest.raises(chatsession.Unavailable) as caught:
        await client.send(SESSION, "hi", request_id="r1")
    assert len(server.calls) == QUICK.max_attempts
    assert (caught.value.committed, caught.value.request_id) == (None, "r1")


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(grpc.StatusCode.UNAVAILABLE, "TURN_LOST", metadata={"retry": "NEW_REQUEST_ID"}), chatsession.TurnLost),
        (Refusal(grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE", metadata={"retry": "NO"}), chatsession.ModelFailed),
        (Refusal(grpc.StatusCode.ABORTED, "SESSION_BUSY", metadata={"retry": "SAME_REQUEST"}), chatsession.SessionBusy),
        (Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "CALLER_DEADLINE_EXCEEDED"), chatsession.DeadlineExceeded),
        (Refusal(grpc.StatusCode.INTERNAL, "INTERNAL_ERROR"), chatsession.ServerFault),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), chatsession.InvalidField),
        (Refusal(grpc.StatusCode.UNAUTHENTICATED), chatsession.ChatSessionError),
    ],
    ids=lambda value: getattr(value, "reason", "") or None,
)
async def test_what_is_not_repeated(
    client: AsyncChatClient, server: Scripted, refusal: Refusal, kind: type[chatsession.ChatSessionError]
) -> None:
    server.on("SendMessage", [refusal], [HELLO])
    with pytest.raises(kind):
        await client.send(SESSION, "hi")
    assert len(server.calls) == 1


async def test_the_deadline_names_the_turn_that_goes_on(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [("turn-id", TURN), asyncio.Event()])
    with pytest.raises(chatsession.DeadlineExceeded) as caught:
        await client.send(SESSION, "hi", timeout_s=0.2)
    assert (caught.value.turn_id, caught.value.committed) == (TURN, True)


async def test_an_unreachable_server_is_unavailable() -> None:
    async with AsyncChatClient("127.0.0.1:1", retry=QUICK) as client:
        with pytest.raises(chatsession.Unavailable) as caught:
            await client.send(SESSION, "hi")
    assert caught.value.reason == ""
    assert caught.value.committed is None


async def test_a_cancelled_task_cancels_the_call(client: AsyncChatClient, server: Scripted) -> None:
    server.on("SendMessage", [asyncio.Event()])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.send(SESSION, "hi")
    async with asyncio.timeout(30):
        await server.cancelled.wait()


async def test_create_session_repeats_with_its_request_id(client: AsyncChatClient, server: Scripted) -> None:
    session = pb.Session(session_id=SESSION, title="T")
    server.on("CreateSession", [BREAK], [pb.CreateSessionResponse(session_id=SESSION, session=session)])
    assert await client.create_session(title="T", ttl=timedelta(hours=1)) == session
    first, second = server.requests("CreateSession")
    assert first == second
    assert (len(first.request_id), first.session.ttl.seconds) == (36, 3600)


async def test_a_chosen_session_id_needs_no_request_id(client: AsyncChatClient, server: Scripted) -> None:
    server.on("CreateSession", [pb.CreateSessionResponse(session_id="mine")])
    assert (await client.create_session("mine")).session_id == "mine"
    assert server.requests("CreateSession") == [pb.CreateSessionRequest(session_id="mine", view=pb.FULL)]


async def test_metadata_goes_with_every_call(server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    async with AsyncChatClient(server.target, metadata=[("x-tenant", "acme")]) as client:
        await client.send(SESSION, "hi")
    assert server.metadata[0]["x-tenant"] == "acme"
    assert server.metadata[0]["user-agent"].startswith("chatsession-python/")


async def test_a_closed_client_says_so(client: AsyncChatClient) -> None:
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.send(SESSION, "hi")

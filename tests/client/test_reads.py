"""What only reads is retried by gRPC, and pages are followed."""

import asyncio

import chatsession
import grpc
import pytest
from chatsession import AsyncChatClient, ChatClient
from chatsession.v1 import chat_session_pb2 as pb

from .scripted import BREAK, SESSION, TURN, Scripted, a_turn, accepted, delta, ended


def page(*contents: str, token: str | None = None) -> pb.GetHistoryResponse:
    messages = [pb.Message(role="user", content=content) for content in contents]
    return pb.GetHistoryResponse(session_id=SESSION, history=messages, next_page_token=token, last_seq=9)


async def test_history_follows_the_pages(client: AsyncChatClient, server: Scripted) -> None:
    server.on("GetHistory", [page("a", "b", token="p2")], [page("c")])
    messages = [message.content async for message in client.history(SESSION, page_size=2, after_seq=4)]
    assert messages == ["a", "b", "c"]
    first, second = server.requests("GetHistory")
    assert (first.page_token, second.page_token) == ("", "p2")
    assert (first.page_size, first.after_seq) == (second.page_size, second.after_seq) == (2, 4)


async def test_history_pages_say_what_runs(client: AsyncChatClient, server: Scripted) -> None:
    server.on("GetHistory", [page()])
    assert [(p.last_seq, len(p.history)) async for p in client.history_pages(SESSION)] == [(9, 0)]


async def test_sessions_follow_the_pages(client: AsyncChatClient, server: Scripted) -> None:
    server.on(
        "ListSessions",
        [pb.ListSessionsResponse(sessions=[pb.Session(session_id="a")], next_page_token="p2")],
        [pb.ListSessionsResponse(sessions=[pb.Session(session_id="b")])],
    )
    assert [session.session_id async for session in client.list_sessions()] == ["a", "b"]


async def test_reads_are_retried_by_grpc(client: AsyncChatClient, server: Scripted) -> None:
    server.on("GetTurn", [BREAK], [BREAK], [a_turn()])
    assert await client.get_turn(SESSION, TURN) == a_turn()
    assert len(server.calls) == 3


async def test_session_settings_round_trip(client: AsyncChatClient, server: Scripted) -> None:
    session = pb.Session(session_id=SESSION, title="T", etag='W/"1"')
    for method in ("GetSession", "UpdateSession", "DeleteSession"):
        server.on(method, [session])
    assert await client.get_session(SESSION) == session
    assert await client.update_session(session, update_mask=["title"]) == session
    assert await client.delete_session(SESSION, etag=session.etag) == session
    assert server.requests("UpdateSession")[0].update_mask.paths == ["title"]


async def test_cancel_turn_returns_the_turn(client: AsyncChatClient, server: Scripted) -> None:
    server.on("CancelTurn", [a_turn(pb.Turn.CANCELLED, "Hel")])
    assert (await client.cancel_turn(SESSION, TURN)).state == pb.Turn.CANCELLED


async def test_the_raw_stub_raises_what_can_be_translated(client: AsyncChatClient, server: Scripted) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.GetSession(pb.GetSessionRequest(session_id=SESSION))
    assert isinstance(chatsession.from_rpc_error(caught.value), chatsession.ChatSessionError)


async def test_the_blocking_client_does_the_same(server: Scripted) -> None:
    server.on("CreateSession", [pb.CreateSessionResponse(session_id=SESSION)])
    server.on("SendMessage", [pb.SendMessageResponse(response="Hello", turn=a_turn(pb.Turn.COMPLETED, "Hello"))])
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), BREAK])
    server.on("AttachTurn", [delta("lo", "c2"), ended("Hello")], [accepted(), ended("Hello")])
    server.on("GetHistory", [page("a", token="p2")], [page("b")])

    def talk() -> None:
        with ChatClient(server.target) as client:
            assert client.create_session().session_id == SESSION
            assert client.send(SESSION, "hi").text == "Hello"
            with client.stream(SESSION, "hi") as stream:
                assert list(stream) == ["Hel", "lo"]
                assert stream.turn_id == TURN
            assert client.attach(SESSION, TURN).answer().text == "Hello"
            assert [message.content for message in client.history(SESSION)] == ["a", "b"]

    await asyncio.to_thread(talk)

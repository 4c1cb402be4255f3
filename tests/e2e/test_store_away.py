"""MongoDB that is not there, goes away, hangs, and comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pymongo.uri_parser import parse_uri

from tests.e2e.conftest import Settings
from tests.e2e.refusals import check_refused
from tests.e2e.starting import free_port
from tests.e2e.waiting import until_logged
from tests.support.calls import Caller, send_request
from tests.support.door import connect
from tests.support.grpc_calls import GrpcCaller
from tests.support.mongo import NoMongo, start_mongo
from tests.support.proxy import Proxy
from tests.support.rest_calls import RestCaller
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import until

module_loop = pytest.mark.asyncio(loop_scope="module")

_HANGS_S = 30.0
_BACK_WITHIN_S = 20.0
_SERVICE = "chatsession.v1.ChatSessionService"
_SLOW = "demo/slow:chunks=20,delay_ms=100"
_SLOW_TEXT = "".join(f"word{number} " for number in range(1, 21))

_CALLS: dict[str, Callable[[Caller], Awaitable[Any]]] = {
    "create": lambda face: face.create_session(),
    "send": lambda face: face.ask("some-session", "hi"),
    "stream": lambda face: anext(face.stream(send_request("some-session", "hi"))),
    "history": lambda face: face.said("some-session"),
}


async def unavailable(call: Awaitable[Any]) -> ChatSessionError:
    """Make a call and check that it is told that the store is away."""
    async with asyncio.timeout(_HANGS_S):
        with pytest.raises(ChatSessionError) as caught:
            await call
    check_refused(caught.value, "UNAVAILABLE", "STORE_UNAVAILABLE")
    assert caught.value.retry_delay_s is not None
    return caught.value


async def readiness(rest: RestCaller) -> int:
    return (await rest.call("GET", "/readyz"))[0]


async def until_ready(server: ServerProcess, ready: int = 200) -> None:
    """Wait until /readyz answers so."""

    async def is_so() -> bool:
        return await readiness(rest) == ready

    async with RestCaller(server) as rest:
        await until(is_so, timeout_s=_BACK_WITHIN_S)


# A port where nobody listens


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def away(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A service whose database is not there."""
    settings = {"MONGO_URI": f"mongodb://127.0.0.1:{free_port()}"}
    async with running_server(tmp_path_factory.mktemp("away"), **settings) as server:
        yield server


@module_loop
async def test_without_its_database_the_service_starts_and_says_so(away: ServerProcess) -> None:
    assert away.health == "NOT_SERVING"
    assert (await until_logged(away, "store does not answer"))["level"] == "warning"


@module_loop
@pytest.mark.parametrize("name", ["", _SERVICE])
async def test_without_its_database_grpc_health_is_not_serving(away: ServerProcess, name: str) -> None:
    async with GrpcCaller(away) as stubs:
        health = health_pb2_grpc.HealthStub(stubs.channel)
        response = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    assert response.status == health_pb2.HealthCheckResponse.NOT_SERVING


@module_loop
async def test_without_its_database_the_service_lives_and_is_not_ready(away: ServerProcess) -> None:
    async with RestCaller(away) as rest:
        assert await readiness(rest) == 503
        assert (await rest.call("GET", "/healthz"))[0] == 200


@module_loop
@pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)
async def test_without_its_database_calls_are_refused_in_time(
    away: ServerProcess, face_name: str, call: Callable[[Caller], Awaitable[Any]]
) -> None:
    async with connect(face_name, away) as face:
        await unavailable(call(face))


@module_loop
async def test_a_refused_send_says_that_nothing_was_saved(away: ServerProcess, face_name: str) -> None:
    async with connect(face_name, away) as face:
        refused = await unavailable(face.ask("some-session", "hi"))
    assert (refused.metadata["committed"], refused.metadata["retry"]) == ("false", "SAME_REQUEST")


async def test_the_service_recovers_when_the_database_comes(tmp_path: Path, mongo_uri: str) -> None:
    port = free_port()
    async with running_server(tmp_path, MONGO_URI=f"mongodb://127.0.0.1:{port}") as server:
        try:
            database = await asyncio.to_thread(start_mongo, own=True, port=port)
        except NoMongo as exc:
            pytest.skip(str(exc).upper())
        with database:
            await until_ready(server)
            for name in ("grpc", "rest"):
                async with connect(name, server) as face:
                    session_id = await face.create_session()
                    answer = await face.ask(session_id, "hi")
                    assert await face.said(session_id) == [("user", "hi"), ("assistant", answer)]


# A database that goes away and comes back


@pytest.fixture
async def proxy(mongo_uri: str) -> AsyncIterator[Proxy]:
    """The way to the database, which can be cut."""
    host, port = parse_uri(mongo_uri)["nodelist"][0]
    async with Proxy(host, port) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(proxy: Proxy, mongo_database: str) -> Settings:
    return {"MONGO_URI": f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true", "MONGO_DATABASE": mongo_database}


async def test_between_turns_the_database_may_go_and_come(proxy: Proxy, behind_proxy: Settings, tmp_path: Path) -> None:
    async with running_server(tmp_path, **behind_proxy) as server, connect("grpc", server) as face:
        session_id = await face.create_session()
        told = [("user", "one"), ("assistant", await face.ask(session_id, "one"))]
        await proxy.down()
        # Before the service knows, a send may be under way in a connection that is dead: then nobody knows its fate.
        await until_ready(server, 503)
        refused = await unavailable(face.ask(session_id, "lost"))
        assert refused.metadata["committed"] == "false"
        await unavailable(face.said(session_id))
        await proxy.up()
        await until_ready(server)
        assert await face.said(session_id) == told
        assert "I see 2 user message(s)" in await face.ask(session_id, "two")


async def test_in_a_stream_the_database_may_go_and_come(proxy: Proxy, behind_proxy: Settings, tmp_path: Path) -> None:
    async with running_server(tmp_path, **behind_proxy) as server, connect("rest", server) as face:
        session_id = await face.create_session()
        text = ""
        async with aclosing(face.stream(send_request(session_id, "hi", model=_SLOW))) as events:
            async for event in events:
                text += event.delta.text
                if text == "word1 ":
                    await proxy.down()
                    await until_logged(server, "health", status="NOT_SERVING")
                    await proxy.up()
        assert (text, event.ended.turn.state) == (_SLOW_TEXT, pb.Turn.COMPLETED)
        assert await face.said(session_id) == [("user", "hi"), ("assistant", _SLOW_TEXT)]


async def test_a_database_that_hangs_does_not_hang_callers(
    proxy: Proxy, behind_proxy: Settings, tmp_path: Path
) -> None:
    async with running_server(tmp_path, **behind_proxy) as server, connect("rest", server) as face:
        session_id = await face.create_session()
        proxy.hold()
        await unavailable(face.ask(session_id, "hi"))
        await unavailable(face.said(session_id))
        proxy.let_go()
        # A caller that keeps trying gets through by itself.
        await until(lambda: is_answered(face, session_id), timeout_s=_BACK_WITHIN_S)
        assert ("user", "again") in await face.said(session_id)


async def is_answered(face: Caller, session_id: str) -> bool:
    try:
        return bool(await face.ask(session_id, "again"))
    except ChatSessionError as refused:
        check_refused(refused, "UNAVAILABLE", "STORE_UNAVAILABLE")
        return False


async def test_a_session_whose_last_answer_met_an_outage_goes_on(
    proxy: Proxy, behind_proxy: Settings, tmp_path: Path
) -> None:
    """The caller has left; the answer ends while the database is away."""
    async with running_server(tmp_path, **behind_proxy) as server, connect("rest", server) as face:
        session_id = await face.create_session()
        async with aclosing(
            face.stream(send_request(session_id, "hi", model="demo/slow:chunks=5,delay_ms=100"))
        ) as events:
            await anext(events)
            await proxy.down()
        await until_ready(server, 503)
        await proxy.up()
        await until_ready(server)
        assert "I see 2 user message(s)" in await face.ask(session_id, "again")
        assert [content for role, content in await face.said(session_id) if role == "user"] == ["hi", "again"]

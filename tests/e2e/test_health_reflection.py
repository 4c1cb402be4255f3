"""What tools ask of a gRPC server: health, reflection through the real grpcurl, keepalive."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.e2e.grpcurl import NoGrpcurlError, find_grpcurl, run_grpcurl
from tests.e2e.http2 import ACK, GOAWAY, PING, Frame, http2_connection
from tests.support.calls import send_request
from tests.support.grpc_calls import GrpcCaller
from tests.support.server import ServerProcess, running_server

# Building grpcurl is part of the first test that needs it.
pytestmark = pytest.mark.timeout(300)
module_loop = pytest.mark.asyncio(loop_scope="module")

_SERVICE = "chatsession.v1.ChatSessionService"
_Status = health_pb2.HealthCheckResponse
_SERVICES = [
    _SERVICE,
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]
_METHODS = [
    *("AttachTurn", "CancelTurn", "CreateSession", "DeleteSession", "EraseOwner", "ExportSession", "GetErasure"),
    *("GetHistory", "GetSession", "GetTurn", "ImportSession", "ListSessions", "SearchMessages", "SendMessage"),
    *("StreamMessage", "UndeleteSession", "UpdateSession"),
]
_ENHANCE_YOUR_CALM = 11


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("tools")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def stubs(server: ServerProcess) -> AsyncIterator[GrpcCaller]:
    async with GrpcCaller(server) as stubs:
        yield stubs


@pytest.fixture(scope="module")
def grpcurl() -> Path:
    try:
        return find_grpcurl()
    except NoGrpcurlError as exc:
        pytest.skip(str(exc).upper())


# Health


@module_loop
@pytest.mark.parametrize("name", ["", _SERVICE])
async def test_health_check_says_serving(stubs: GrpcCaller, name: str) -> None:
    health = health_pb2_grpc.HealthStub(stubs.channel)
    response = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    assert response.status == _Status.SERVING


@module_loop
async def test_health_check_of_an_unknown_service_is_not_found(stubs: GrpcCaller) -> None:
    health = health_pb2_grpc.HealthStub(stubs.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@module_loop
async def test_health_watch_of_an_unknown_service_says_so(stubs: GrpcCaller) -> None:
    watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
    assert (await watch.read()).status == _Status.SERVICE_UNKNOWN
    watch.cancel()


async def test_health_watch_tells_of_a_stop_while_answers_are_finished(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, GrpcCaller(server) as stubs:
        watch = health_pb2_grpc.HealthStub(stubs.channel).Watch
        watches = [watch(health_pb2.HealthCheckRequest(service=name), timeout=20) for name in ("", _SERVICE)]
        assert [(await watch.read()).status for watch in watches] == [_Status.SERVING] * 2
        session_id = await stubs.create_session()
        async with aclosing(
            stubs.stream(send_request(session_id, "hi", model="demo/slow:chunks=10,delay_ms=100"))
        ) as events:
            await anext(events)
            server.send_signal(signal.SIGTERM)
            assert [(await watch.read()).status for watch in watches] == [_Status.NOT_SERVING] * 2
            last = [event async for event in events][-1]
        assert last.ended.turn.state == pb.Turn.COMPLETED


# Reflection


@module_loop
async def test_grpcurl_lists_the_services(grpcurl: Path, server: ServerProcess) -> None:
    listed = await run_grpcurl(grpcurl, server.grpc_target, "list")
    assert (listed.code, listed.stdout.split()) == (0, _SERVICES), listed.stderr


@module_loop
async def test_grpcurl_lists_the_methods(grpcurl: Path, server: ServerProcess) -> None:
    listed = await run_grpcurl(grpcurl, server.grpc_target, "list", _SERVICE)
    assert listed.stdout.split() == [f"{_SERVICE}.{method}" for method in _METHODS], listed.stderr


@module_loop
@pytest.mark.parametrize("name", [*_SERVICES, "chatsession.v1.SendMessageRequest", "chatsession.v1.Turn.State"])
async def test_grpcurl_describes(grpcurl: Path, server: ServerProcess, name: str) -> None:
    described = await run_grpcurl(grpcurl, server.grpc_target, "describe", name)
    assert described.code == 0, described.stderr
    assert described.stdout.startswith(f"{name} is a")


@module_loop
async def test_grpcurl_describes_all_that_is_listed(grpcurl: Path, server: ServerProcess) -> None:
    described = await run_grpcurl(grpcurl, server.grpc_target, "describe")
    assert described.code == 0, described.stderr


@module_loop
async def test_grpcurl_calls(grpcurl: Path, server: ServerProcess, stubs: GrpcCaller) -> None:
    created = await run_grpcurl(grpcurl, server.grpc_target, f"{_SERVICE}/CreateSession")
    session_id = next(iter(json.loads(created.stdout).values()))
    data = json.dumps({"session_id": session_id, "message": "hi"})
    sent = await run_grpcurl(grpcurl, server.grpc_target, f"{_SERVICE}/SendMessage", data=data)
    assert (created.code, sent.code) == (0, 0), created.stderr + sent.stderr
    assert [content for _, content in await stubs.said(session_id)] == ["hi", json.loads(sent.stdout)["response"]]


@module_loop
async def test_grpcurl_shows_the_details_of_an_error(grpcurl: Path, server: ServerProcess) -> None:
    data = json.dumps({"session_id": "nobody", "message": "hi"})
    sent = await run_grpcurl(grpcurl, server.grpc_target, f"{_SERVICE}/SendMessage", data=data)
    assert sent.code != 0
    assert "SESSION_NOT_FOUND" in sent.stderr


@module_loop
async def test_grpcurl_calls_reflection_v1alpha(grpcurl: Path, server: ServerProcess) -> None:
    method = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    asked = await run_grpcurl(grpcurl, server.grpc_target, method, data='{"list_services":""}')
    assert asked.code == 0, asked.stderr
    assert all(name in asked.stdout for name in _SERVICES)


@module_loop
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_either_version_of_reflection_gives_the_contract(stubs: GrpcCaller, version: str) -> None:
    """The messages of the two versions are the same on the wire."""
    ask = stubs.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(timeout=5)
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=_SERVICE))
    response = await call.read()
    await call.done_writing()
    files = [FileDescriptorProto.FromString(wire) for wire in response.file_descriptor_response.file_descriptor_proto]
    contract = next(file for file in files if file.name == "chatsession/v1/chat_session.proto")
    assert sorted(method.name for method in contract.service[0].method) == _METHODS


# Keepalive


@module_loop
async def test_a_keepalive_ping_without_calls_is_answered(server: ServerProcess) -> None:
    async with http2_connection(server.grpc_target) as connection:
        await connection.send(Frame(PING, 0, b"12345678"))
        assert await connection.receive(PING) == Frame(PING, ACK, b"12345678")


@module_loop
async def test_pings_more_often_than_every_ten_seconds_end_the_connection(server: ServerProcess) -> None:
    async with http2_connection(server.grpc_target) as connection:
        for _ in range(5):
            await connection.send(Frame(PING, 0, b"12345678"))
        goaway = await connection.receive(GOAWAY)
    assert int.from_bytes(goaway.payload[4:8], "big") == _ENHANCE_YOUR_CALM
    assert goaway.payload[8:] == b"too_many_pings"


@module_loop
async def test_one_connection_that_ends_does_not_touch_another(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    answer = asyncio.ensure_future(stubs.ask(session_id, "hi", "demo/slow:chunks=5,delay_ms=50"))
    async with http2_connection(server.grpc_target) as connection:
        for _ in range(5):
            await connection.send(Frame(PING, 0, b"12345678"))
        await connection.receive(GOAWAY)
    assert await answer

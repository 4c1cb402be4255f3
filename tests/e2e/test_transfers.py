"""Sessions as files: out of one kind of store and into the other; and the erasing of all of them, through kills."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody

from tests.e2e.conftest import Settings, store_and_face
from tests.e2e.faces import (
    CALL_LIMIT_S,
    Face,
    GrpcFace,
    Refused,
    RestFace,
    check_refused,
    connect,
    grpc_face,
    refuse_json,
    refuse_rpc,
    rest_face,
)
from tests.e2e.test_real_conversations import conversations, converse
from tests.support.server import ServerProcess, running_server, start_server
from tests.support.waiting import until

NDJSON = "application/x-ndjson"
_AT_ONCE = 8
_ECHO = "demo/echo"
_MIB = 1024 * 1024


async def export(face: Face, session_id: str) -> bytes:
    """Export a session over either face."""
    if isinstance(face, GrpcFace):
        call = face.stub.ExportSession(pb.ExportSessionRequest(session_id=session_id), timeout=CALL_LIMIT_S)
        try:
            return b"".join([body.data async for body in call])
        except grpc.aio.AioRpcError as error:
            refuse_rpc(error)
    assert isinstance(face, RestFace)
    async with face.http.get(f"/v1/sessions/{session_id}:export") as response:
        body = await response.read()
        if response.status != 200:
            refuse_json(body, response.status)
        assert response.headers["Content-Type"] == NDJSON
        return body


async def import_file(face: Face, file: bytes, session_id: str = "", piece: int = 100_000) -> dict[str, Any]:
    """Import a file over either face, in pieces."""
    pieces = [file[at : at + piece] for at in range(0, len(file), piece)]
    if isinstance(face, GrpcFace):
        requests = [pb.ImportSessionRequest(session_id=session_id, file=HttpBody(content_type=NDJSON))]
        requests += [pb.ImportSessionRequest(file=HttpBody(data=data)) for data in pieces]
        try:
            session = await face.stub.ImportSession(iter(requests), timeout=CALL_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            refuse_rpc(error)
        return {"sessionId": session.session_id, "lastSeq": session.last_seq}
    assert isinstance(face, RestFace)

    async def chunks() -> AsyncIterator[bytes]:
        for data in pieces:
            yield data

    query = f"?sessionId={session_id}" if session_id else ""
    headers = {"Content-Type": NDJSON}
    async with face.http.post(f"/v1/sessions:import{query}", data=chunks(), headers=headers) as response:
        answer = await response.read()
        if response.status != 200:
            refuse_json(answer, response.status)
        session = json.loads(answer)
        return {name: session[name] for name in ("sessionId", "lastSeq")}


@pytest.fixture
def both_stores(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Settings]:
    mongo = {
        "MONGO_URI": request.getfixturevalue("mongo_uri"),
        "MONGO_DATABASE": request.getfixturevalue("mongo_database"),
    }
    return {"sqlite": {"SQLITE_PATH": str(tmp_path / "sessions.db")}, "mongo": mongo}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("source", "target"), [("sqlite", "mongo"), ("mongo", "sqlite")])
async def test_80_conversations_go_to_the_other_kind_of_store_byte_for_byte(
    both_stores: dict[str, Settings], source: str, target: str, face_name: str, tmp_path: Path
) -> None:
    places = asyncio.Semaphore(_AT_ONCE)

    async def move(messages: list[str]) -> None:
        async with places, connect(face_name, here) as one, connect(face_name, there) as other:
            session_id, told = await converse(one, messages)
            file = await export(one, session_id)
            imported = await import_file(other, file)
            assert imported == {"sessionId": session_id, "lastSeq": 4}
            assert await other.history(session_id) == told
            assert await other.turns(session_id) == await one.turns(session_id)
            assert (await export(other, session_id)) == file

    async with (
        running_server(tmp_path, **both_stores[source]) as here,
        running_server(tmp_path, **both_stores[target]) as there,
    ):
        await asyncio.gather(*map(move, conversations()))
        async with connect(face_name, there) as other:
            session_id, _ = await converse(other, ["one"])
            answer = await other.send(session_id, "two")
        assert "I see 2 user message(s)" in answer


async def test_an_imported_session_goes_on_where_the_exported_one_was(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id, told = await converse(face, ["one", "two"])
        await face.send(session_id, "three", _ECHO, request_id="once")
        await import_file(face, await export(face, session_id), "copy")
        assert "I see 4 user message(s)" in await face.send("copy", "four")
        assert (await face.history("copy"))[:4] == told
        before = len(await face.history("copy"))
        assert await face.send("copy", "three", _ECHO, request_id="once") == "three"
        assert len(await face.history("copy")) == before


async def test_an_export_while_turns_run_holds_what_has_ended(store: Settings, face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id = await face.create()

        async def talk() -> None:
            async with connect(face_name, server) as another:
                for number in range(30):
                    await another.send(session_id, f"message {number}", _ECHO)

        talking = asyncio.ensure_future(talk())
        seen = []
        while not talking.done():
            name = f"copy{len(seen)}"
            imported = await import_file(face, await export(face, session_id), name)
            seen.append(imported["lastSeq"])
            texts = [content for _, content in await face.history(name)]
            assert texts == [f"message {n // 2}" for n in range(imported["lastSeq"])]
        await talking
        assert seen == sorted(seen)
        assert len(set(seen)) > 3


async def test_a_file_that_is_no_good_is_refused_with_its_line(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        session_id, _ = await converse(face, ["one", "two"])
        lines = (await export(face, session_id)).splitlines(keepends=True)
        damaged = [lines[0], lines[1].replace(b"one", b"eno"), *lines[2:]]
        for file, line in ((b"", 1), (b"".join(damaged), 4), (b"".join(lines[:3]), 4), (b"hello\n" * 1000, 1)):
            with pytest.raises(Refused) as caught:
                await import_file(face, file, "copy")
            check_refused(caught.value, "INVALID_ARGUMENT", "INVALID_IMPORT")
            assert caught.value.metadata["line"] == str(line)
        with pytest.raises(Refused) as caught:
            await import_file(face, b"".join(lines))
        check_refused(caught.value, "ALREADY_EXISTS", "SESSION_EXISTS")
        with pytest.raises(Refused) as caught:
            await face.history("copy")
        check_refused(caught.value, "NOT_FOUND", "SESSION_NOT_FOUND")


async def test_a_file_beyond_the_limit_is_refused(face_name: str, tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, IMPORT_MAX_BYTES="100000") as server,
        connect(face_name, server) as face,
    ):
        with pytest.raises(Refused) as caught:
            await import_file(face, b"x" * 100_001, piece=10_000)
        expected = {"grpc": ("INVALID_ARGUMENT", "INVALID_FIELD"), "rest": ("RESOURCE_EXHAUSTED", "BODY_TOO_LARGE")}
        assert (caught.value.code, caught.value.reason) == expected[face_name]


async def test_only_a_file_of_the_right_type_is_taken(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, rest_face(server) as rest, grpc_face(server) as stubs:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            status, _, body = await rest.call("POST", "/v1/sessions:import", b"x", {"Content-Type": content_type})
            with pytest.raises(Refused) as caught:
                refuse_json(body, status)
            check_refused(caught.value, "INVALID_ARGUMENT", "INVALID_FIELD")
            assert "file.content_type" in caught.value.fields
        for requests in ([], [pb.ImportSessionRequest(session_id="x")]):
            with pytest.raises(grpc.aio.AioRpcError, match=r"file\.content_type"):
                await stubs.stub.ImportSession(iter(requests), timeout=CALL_LIMIT_S)
        named_late = [
            pb.ImportSessionRequest(file=HttpBody(content_type=NDJSON)),
            pb.ImportSessionRequest(session_id="x", file=HttpBody(data=b"{}")),
        ]
        with pytest.raises(grpc.aio.AioRpcError, match="only be in the first request"):
            await stubs.stub.ImportSession(iter(named_late), timeout=CALL_LIMIT_S)


def resident_bytes(server: ServerProcess) -> int:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.timeout(120)
async def test_a_large_session_needs_little_memory(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        session_id = await face.create()
        for _ in range(120):
            await face.send(session_id, "x" * 250_000, _ECHO)
        before = resident_bytes(server)
        file = await export(face, session_id)
        assert len(file) > 60_000_000
        await import_file(face, file, "copy", piece=200_000)
        assert resident_bytes(server) - before < 45 * _MIB
        assert len(await face.turns("copy")) > 0


# Kills


async def rows_of(settings: Settings, request: pytest.FixtureRequest) -> dict[str, int]:
    """Count what there is in a store, while no server uses it."""
    if "SQLITE_PATH" in settings:
        import sqlite3

        with sqlite3.connect(settings["SQLITE_PATH"]) as connection:
            tables = ("sessions", "turns")
            return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    database = request.getfixturevalue("mongo_client")[settings["MONGO_DATABASE"]]
    return {name: database[name].count_documents({}) for name in ("sessions", "turns")}


async def many_sessions(face: Face, count: int) -> None:
    """Make sessions by importing one over and over, two turns each."""
    session_id, _ = await converse(face, ["one", "two"])
    file = await export(face, session_id)
    for number in range(count - 1):
        await import_file(face, file, f"s{number}")


@store_and_face
@pytest.mark.timeout(120)
async def test_an_erasure_comes_to_its_end_through_kills(
    store: Settings, face_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The rate makes it last.
    settings = {**store, "PURGE_RATE": "60", "PURGE_INTERVAL_SECONDS": "0.2"}
    async with running_server(tmp_path, **settings) as server, connect(face_name, server) as face:
        await many_sessions(face, 60)
        erasure = await erase(face)
        assert (erasure["state"], erasure["sessionsTotal"]) == ("RUNNING", 60)
        await until(lambda: has_erased(face, erasure["erasureId"], 20))
        await server.kill()
    left = await rows_of(store, request)
    assert 0 < left["sessions"] <= 40
    async with running_server(tmp_path, **settings) as server, connect(face_name, server) as face:
        again = await erase(face)
        assert again["erasureId"] == erasure["erasureId"]
        alive, told = await converse(face, ["still here"])
        await until(lambda: has_erased(face, erasure["erasureId"], 60), timeout_s=90)
        done = await until(lambda: finished(face, erasure["erasureId"]))
        assert (done["sessionsErased"], done["turnsErased"]) == (60, 120)
        assert await face.history(alive) == told
    assert await rows_of(store, request) == {"sessions": 1, "turns": 1}


async def erase(face: Face) -> dict[str, Any]:
    if isinstance(face, GrpcFace):
        return _erasure(await face.unary("EraseOwner", pb.EraseOwnerRequest()))
    assert isinstance(face, RestFace)
    answer: dict[str, Any] = await face.json("POST", "/v1/owner:erase")
    return answer


async def erasure_of(face: Face, erasure_id: str) -> dict[str, Any]:
    if isinstance(face, GrpcFace):
        return _erasure(await face.unary("GetErasure", pb.GetErasureRequest(erasure_id=erasure_id)))
    assert isinstance(face, RestFace)
    answer: dict[str, Any] = await face.json("GET", f"/v1/erasures/{erasure_id}")
    return answer


def _erasure(erasure: pb.Erasure) -> dict[str, Any]:
    return {
        "erasureId": erasure.erasure_id,
        "state": pb.Erasure.State.Name(erasure.state),
        "sessionsTotal": erasure.sessions_total,
        "sessionsErased": erasure.sessions_erased,
        "turnsErased": erasure.turns_erased,
    }


async def has_erased(face: Face, erasure_id: str, count: int) -> bool:
    return int((await erasure_of(face, erasure_id))["sessionsErased"]) >= count


async def finished(face: Face, erasure_id: str) -> dict[str, Any] | None:
    erasure = await erasure_of(face, erasure_id)
    return erasure if erasure["state"] == "DONE" else None


async def test_an_erasure_of_nobody_is_not_found(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        with pytest.raises(Refused) as caught:
            await erasure_of(face, "nobody")
        check_refused(caught.value, "NOT_FOUND", "ERASURE_NOT_FOUND")


@store_and_face
@pytest.mark.timeout(120)
async def test_an_import_that_is_killed_is_there_whole_or_not_at_all(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    server = await start_server(tmp_path, **store)
    async with connect(face_name, server) as face:
        session_id = await face.create()
        for _ in range(12):
            await face.send(session_id, "x" * 200_000, _ECHO)
        file = await export(face, session_id)
    outcomes = []
    for number, delay_s in enumerate(itertools.islice(itertools.count(0.0, 0.03), 8)):
        async with connect(face_name, server) as face:
            importing = asyncio.ensure_future(import_file(face, file, f"copy{number}"))
            await asyncio.sleep(delay_s)
            await server.kill()
            with suppress(Refused, aiohttp.ClientError):
                await importing
        server = await start_server(tmp_path, **store)
        async with connect(face_name, server) as face:
            try:
                assert len(await face.history(f"copy{number}")) > 0
                assert await export(face, f"copy{number}")
                outcomes.append(True)
            except Refused as refused:
                check_refused(refused, "NOT_FOUND", "SESSION_NOT_FOUND")
                outcomes.append(False)
    async with connect(face_name, server) as face:
        await import_file(face, file, "last")
        assert (await export(face, "last")).count(b"\n") == 14
    await server.stop()
    assert len(outcomes) == 8

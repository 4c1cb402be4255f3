"""Sessions as files: out of one kind of store and into the other; and the erasing of all of them, through kills."""

import asyncio
import itertools
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import grpc
import pytest
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody

from tests.e2e.conftest import Settings, store_and_face
from tests.e2e.refusals import check_refused
from tests.e2e.test_real_conversations import conversations, converse
from tests.support.calls import CALL_TIMEOUT_S, FILE_TYPE, Caller, whole_history
from tests.support.door import connect
from tests.support.grpc_calls import GrpcCaller
from tests.support.rest_calls import RestCaller, failure_in
from tests.support.server import ServerProcess, running_server, start_server
from tests.support.waiting import until

_AT_ONCE = 8
_ECHO = "demo/echo"
_MIB = 1024 * 1024


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
            file = await one.export_session(session_id)
            imported = await other.import_session(file)
            assert (imported.session_id, imported.last_seq) == (session_id, 4)
            assert await other.said(session_id) == told
            assert await whole_history(other, session_id) == await whole_history(one, session_id)
            assert (await other.export_session(session_id)) == file

    async with (
        running_server(tmp_path, **both_stores[source]) as here,
        running_server(tmp_path, **both_stores[target]) as there,
    ):
        await asyncio.gather(*map(move, conversations()))
        async with connect(face_name, there) as other:
            session_id, _ = await converse(other, ["one"])
            answer = await other.ask(session_id, "two")
        assert "I see 2 user message(s)" in answer


async def test_an_imported_session_goes_on_where_the_exported_one_was(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id, told = await converse(face, ["one", "two"])
        await face.ask(session_id, "three", _ECHO, request_id="once")
        await face.import_session(await face.export_session(session_id), "copy")
        assert "I see 4 user message(s)" in await face.ask("copy", "four")
        assert (await face.said("copy"))[:4] == told
        before = len(await face.said("copy"))
        assert await face.ask("copy", "three", _ECHO, request_id="once") == "three"
        assert len(await face.said("copy")) == before


async def test_an_export_while_turns_run_holds_what_has_ended(store: Settings, face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id = await face.create_session()

        async def talk() -> None:
            async with connect(face_name, server) as another:
                for number in range(30):
                    await another.ask(session_id, f"message {number}", _ECHO)

        talking = asyncio.ensure_future(talk())
        seen = []
        while not talking.done():
            name = f"copy{len(seen)}"
            imported = await face.import_session(await face.export_session(session_id), name)
            seen.append(imported.last_seq)
            texts = [content for _, content in await face.said(name)]
            assert texts == [f"message {n // 2}" for n in range(imported.last_seq)]
        await talking
        assert seen == sorted(seen)
        assert len(set(seen)) > 3


async def test_a_file_that_is_no_good_is_refused_with_its_line(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        session_id, _ = await converse(face, ["one", "two"])
        lines = (await face.export_session(session_id)).splitlines(keepends=True)
        damaged = [lines[0], lines[1].replace(b"one", b"eno"), *lines[2:]]
        for file, line in ((b"", 1), (b"".join(damaged), 4), (b"".join(lines[:3]), 4), (b"hello\n" * 1000, 1)):
            with pytest.raises(ChatSessionError) as caught:
                await face.import_session(file, "copy")
            check_refused(caught.value, "INVALID_ARGUMENT", "INVALID_IMPORT")
            assert caught.value.metadata["line"] == str(line)
        with pytest.raises(ChatSessionError) as caught:
            await face.import_session(b"".join(lines))
        check_refused(caught.value, "ALREADY_EXISTS", "SESSION_EXISTS")
        with pytest.raises(ChatSessionError) as caught:
            await face.said("copy")
        check_refused(caught.value, "NOT_FOUND", "SESSION_NOT_FOUND")


async def test_a_file_beyond_the_limit_is_refused(face_name: str, tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, IMPORT_MAX_BYTES="100000") as server,
        connect(face_name, server) as face,
    ):
        with pytest.raises(ChatSessionError) as caught:
            await face.import_session(b"x" * 100_001, piece_bytes=10_000)
        expected = {"grpc": ("INVALID_ARGUMENT", "INVALID_FIELD"), "rest": ("RESOURCE_EXHAUSTED", "BODY_TOO_LARGE")}
        check_refused(caught.value, *expected[face_name])


async def test_only_a_file_of_the_right_type_is_taken(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RestCaller(server) as rest, GrpcCaller(server) as stubs:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            status, _, body = await rest.call("POST", "/v1/sessions:import", b"x", {"Content-Type": content_type})
            refused = failure_in(status, body)
            check_refused(refused, "INVALID_ARGUMENT", "INVALID_FIELD")
            assert list(refused.field_violations) == ["file.content_type"]
        for requests in ([], [pb.ImportSessionRequest(session_id="x")]):
            with pytest.raises(grpc.aio.AioRpcError, match=r"file\.content_type"):
                await stubs.stub.ImportSession(iter(requests), timeout=CALL_TIMEOUT_S)
        named_late = [
            pb.ImportSessionRequest(file=HttpBody(content_type=FILE_TYPE)),
            pb.ImportSessionRequest(session_id="x", file=HttpBody(data=b"{}")),
        ]
        with pytest.raises(grpc.aio.AioRpcError, match="only be in the first request"):
            await stubs.stub.ImportSession(iter(named_late), timeout=CALL_TIMEOUT_S)


def resident_bytes(server: ServerProcess) -> int:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.timeout(120)
async def test_a_large_session_needs_little_memory(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        session_id = await face.create_session()
        for _ in range(120):
            await face.ask(session_id, "x" * 250_000, _ECHO)
        before = resident_bytes(server)
        file = await face.export_session(session_id)
        assert len(file) > 60_000_000
        await face.import_session(file, "copy", piece_bytes=200_000)
        assert resident_bytes(server) - before < 45 * _MIB
        assert len(await face.said("copy")) > 0


# Kills


async def rows_of(settings: Settings, request: pytest.FixtureRequest) -> dict[str, int]:
    """Count what there is in a store, while no server uses it."""
    if "SQLITE_PATH" in settings:
        with closing(sqlite3.connect(settings["SQLITE_PATH"])) as connection:
            tables = ("sessions", "turns")
            return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    database = request.getfixturevalue("mongo_client")[settings["MONGO_DATABASE"]]
    return {name: database[name].count_documents({}) for name in ("sessions", "turns")}


async def many_sessions(face: Caller, count: int) -> None:
    """Make sessions by importing one over and over, two turns each."""
    session_id, _ = await converse(face, ["one", "two"])
    file = await face.export_session(session_id)
    for number in range(count - 1):
        await face.import_session(file, f"s{number}")


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
        assert (erasure.state, erasure.sessions_total) == (pb.Erasure.RUNNING, 60)
        await until(lambda: has_erased(face, erasure.erasure_id, 20))
        await server.kill()
    left = await rows_of(store, request)
    assert 0 < left["sessions"] <= 40
    async with running_server(tmp_path, **settings) as server, connect(face_name, server) as face:
        again = await erase(face)
        assert again.erasure_id == erasure.erasure_id
        alive, told = await converse(face, ["still here"])
        await until(lambda: has_erased(face, erasure.erasure_id, 60), timeout_s=90)
        done = await until(lambda: finished(face, erasure.erasure_id))
        assert (done.sessions_erased, done.turns_erased) == (60, 120)
        assert await face.said(alive) == told
    assert await rows_of(store, request) == {"sessions": 1, "turns": 1}


async def erase(face: Caller) -> pb.Erasure:
    erasure: pb.Erasure = await face.unary("EraseOwner", pb.EraseOwnerRequest())
    return erasure


async def erasure_of(face: Caller, erasure_id: str) -> pb.Erasure:
    erasure: pb.Erasure = await face.unary("GetErasure", pb.GetErasureRequest(erasure_id=erasure_id))
    return erasure


async def has_erased(face: Caller, erasure_id: str, count: int) -> bool:
    return (await erasure_of(face, erasure_id)).sessions_erased >= count


async def finished(face: Caller, erasure_id: str) -> pb.Erasure | None:
    erasure = await erasure_of(face, erasure_id)
    return erasure if erasure.state == pb.Erasure.DONE else None


async def test_an_erasure_of_nobody_is_not_found(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        with pytest.raises(ChatSessionError) as caught:
            await erasure_of(face, "nobody")
        check_refused(caught.value, "NOT_FOUND", "ERASURE_NOT_FOUND")


@store_and_face
@pytest.mark.timeout(120)
async def test_an_import_that_is_killed_is_there_whole_or_not_at_all(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    server = await start_server(tmp_path, **store)
    async with connect(face_name, server) as face:
        session_id = await face.create_session()
        for _ in range(12):
            await face.ask(session_id, "x" * 200_000, _ECHO)
        file = await face.export_session(session_id)
    outcomes = []
    for number, delay_s in enumerate(itertools.islice(itertools.count(0.0, 0.03), 8)):
        async with connect(face_name, server) as face:
            importing = asyncio.ensure_future(face.import_session(file, f"copy{number}"))
            await asyncio.sleep(delay_s)
            await server.kill()
            with suppress(ChatSessionError):
                await importing
        server = await start_server(tmp_path, **store)
        async with connect(face_name, server) as face:
            try:
                assert (await face.export_session(f"copy{number}")).count(b"\n") == 14
                outcomes.append(True)
            except ChatSessionError as refused:
                check_refused(refused, "NOT_FOUND", "SESSION_NOT_FOUND")
                outcomes.append(False)
    async with connect(face_name, server) as face:
        await face.import_session(file, "last")
        assert (await face.export_session("last")).count(b"\n") == 14
    await server.stop()
    assert len(outcomes) == 8

"""Managing sessions: with the client, and on the command line."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import chatsession
import grpc
import pytest
from chatsession import AsyncChatClient, ChatClient
from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from .scripted import BREAK, SESSION, Refusal, Scripted
from .terminal import run

DAY = Timestamp(seconds=1_900_000_000)
FULL = pb.Session(session_id=SESSION, title="A \x1b[31mtrip", last_seq=4, update_time=DAY, purge_time=DAY)
FILE = [HttpBody(data=b'{"kind":"session"}\n'), HttpBody(data=b'{"kind":"end"}\n')]
DAMAGED = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IMPORT", "line 7: is cut", {"line": "7"})
NOBODY = Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


def an_erasure(erased: int, state: pb.Erasure.State = pb.Erasure.RUNNING) -> pb.Erasure:
    return pb.Erasure(erasure_id="e1", state=state, sessions_total=3, sessions_erased=erased, turns_erased=2 * erased)


DONE = an_erasure(3, pb.Erasure.DONE)


# The client


async def test_an_export_is_what_the_stream_has(client: AsyncChatClient, server: Scripted) -> None:
    server.on("ExportSession", list(FILE))
    assert [piece async for piece in client.export_session(SESSION)] == [body.data for body in FILE]


async def test_an_export_that_breaks_says_so(client: AsyncChatClient, server: Scripted) -> None:
    server.on("ExportSession", [FILE[0], BREAK])
    with pytest.raises(chatsession.Unavailable):
        _ = [piece async for piece in client.export_session(SESSION)]


async def test_an_import_sends_the_file_in_pieces(client: AsyncChatClient, server: Scripted) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a" * 600_000
        yield b""
        yield b"b"

    for file in ([b"a" * 600_000, b"b"], pieces()):
        server.on("ImportSession", [FULL])
        assert (await client.import_session(file, "copy")).session_id == SESSION
        first, *rest = server.requests("ImportSession")[-1]
        assert (first.session_id, first.file.content_type, first.file.data) == ("copy", "application/x-ndjson", b"")
        assert max(len(request.file.data) for request in rest) <= 262_144
        assert b"".join(request.file.data for request in rest) == b"a" * 600_000 + b"b"


async def test_a_refused_import_names_the_line(client: AsyncChatClient, server: Scripted) -> None:
    server.on("ImportSession", [DAMAGED])
    with pytest.raises(chatsession.InvalidImport) as caught:
        await client.import_session([b"x"])
    assert caught.value.line == 7


async def test_an_import_is_never_repeated(client: AsyncChatClient, server: Scripted) -> None:
    server.on("ImportSession", [BREAK])
    with pytest.raises(chatsession.Unavailable):
        await client.import_session([b"x"])
    assert server.methods() == ["ImportSession"]


async def test_undelete_and_erase_are_repeated(client: AsyncChatClient, server: Scripted) -> None:
    server.on("UndeleteSession", [BREAK], [FULL])
    server.on("EraseOwner", [BREAK], [DONE])
    assert (await client.undelete_session(SESSION)).session_id == SESSION
    assert (await client.erase_owner()).sessions_erased == 3
    assert server.methods() == ["UndeleteSession"] * 2 + ["EraseOwner"] * 2


async def test_an_erasure_that_is_not_there_is_not_found(client: AsyncChatClient, server: Scripted) -> None:
    server.on("GetErasure", [Refusal(grpc.StatusCode.NOT_FOUND, "ERASURE_NOT_FOUND")])
    with pytest.raises(chatsession.ErasureNotFound):
        await client.get_erasure("e1")


async def test_the_blocking_client_has_them_too(server: Scripted) -> None:
    server.on("ExportSession", list(FILE))
    server.on("ImportSession", [FULL])
    server.on("SearchMessages", [pb.SearchMessagesResponse(matches=[pb.MessageMatch(seq=1)])])

    def use() -> int:
        with ChatClient(server.target) as client:
            client.import_session(client.export_session(SESSION))
            return sum(match.seq for match in client.search_messages("x"))

    assert await asyncio.to_thread(use) == 1
    (requests,) = server.requests("ImportSession")
    assert b"".join(request.file.data for request in requests) == b"".join(body.data for body in FILE)


# The command line


async def test_list_is_a_table_or_json(server: Scripted) -> None:
    found = pb.ListSessionsResponse(sessions=[FULL, pb.Session(session_id="x", delete_time=DAY)])
    server.on("ListSessions", [found], [found])
    ran = await run(server.target, "list", "--filter", "labels:a", "--order-by", "create_time", "--deleted")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["SESSION", "UPDATED", "MESSAGES", "STATE", "TITLE"],
        [SESSION, "2030-03-17T17:46:40Z", "4", "A", "[31mtrip"],
        ["x", "1970-01-01T00:00:00Z", "0", "deleted"],
    ]
    request = server.requests("ListSessions")[0]
    assert (request.filter, request.order_by, request.show_deleted) == ("labels:a", "create_time", True)
    shown = json.loads((await run(server.target, "list", "--json", "--limit", "1")).out)
    assert [session["sessionId"] for session in shown["sessions"]] == [SESSION]


async def test_show_is_a_table_or_json(server: Scripted) -> None:
    session = pb.Session(session_id=SESSION, labels={"a": "b"}, title="t" * 300)
    session.settings.stop_sequences.extend(["x", "y"])
    server.on("GetSession", [session], [session])
    rows = [line.split() for line in (await run(server.target, "show", SESSION)).out.splitlines()]
    assert ["title", "t" * 300] in rows
    assert ["labels.a", "b"] in rows
    assert ["settings.stopSequences", "x,", "y"] in rows
    assert json.loads((await run(server.target, "show", SESSION, "--json")).out)["labels"] == {"a": "b"}


async def test_delete_says_how_to_undelete(server: Scripted) -> None:
    server.on("DeleteSession", [FULL], [NOBODY])
    ran = await run(server.target, "delete", SESSION, "other")
    assert (ran.code, ran.out) == (3, "")
    assert (
        ran.err.splitlines()[0] == f"{SESSION} is deleted; until 2030-03-17T17:46:40Z: chatsession undelete {SESSION}"
    )
    server.on("UndeleteSession", [FULL])
    assert (await run(server.target, "undelete", SESSION)).err == f"{SESSION} is back\n"


async def test_export_writes_stdout_or_a_whole_file(server: Scripted, tmp_path: Path) -> None:
    server.on("ExportSession", list(FILE), list(FILE), [NOBODY], [FILE[0], NOBODY])
    whole = b"".join(body.data for body in FILE)
    assert (await run(server.target, "export", SESSION)).out.encode() == whole
    target = tmp_path / "session.ndjson"
    ran = await run(server.target, "export", SESSION, "-o", str(target))
    assert (ran.code, ran.out, ran.err) == (0, "", f"{len(whole)} bytes in {target}\n")
    assert target.read_bytes() == whole
    for _ in range(2):
        assert (await run(server.target, "export", SESSION, "-o", str(tmp_path / "other"))).code == 3
    assert os.listdir(tmp_path) == [target.name]


async def test_export_tells_what_it_cannot_write(server: Scripted, tmp_path: Path) -> None:
    server.on("ExportSession", list(FILE), list(FILE))
    (tmp_path / "folder").mkdir()
    for name, why in (("none/file", "No such file or directory"), ("folder", "Is a directory")):
        ran = await run(server.target, "export", SESSION, "-o", str(tmp_path / name))
        assert (ran.code, ran.out, ran.err) == (2, "", f"error: cannot write {tmp_path / name}: {why}\n")
    assert os.listdir(tmp_path) == ["folder"]


async def test_import_reads_a_file_or_stdin(server: Scripted, tmp_path: Path) -> None:
    server.on("ImportSession", [FULL], [FULL], [DAMAGED])
    path = tmp_path / "session.ndjson"
    path.write_bytes(b"one\ntwo\n")
    ran = await run(server.target, "import", str(path), "--session", "copy")
    assert (ran.code, ran.out, ran.err) == (0, f"{SESSION}\n", "")
    assert json.loads((await run(server.target, "import", "-", "--json", stdin="three\n")).out)["sessionId"] == SESSION
    files = [b"".join(request.file.data for request in requests) for requests in server.requests("ImportSession")]
    assert files == [b"one\ntwo\n", b"three\n"]
    ran = await run(server.target, "import", str(path))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert ran.err.startswith("error: INVALID_IMPORT: line 7: is cut.")
    ran = await run(server.target, "import", str(tmp_path / "none"))
    assert (ran.code, ran.err) == (2, f"error: cannot read {tmp_path / 'none'}: No such file or directory\n")


async def test_search_is_a_table_or_json(server: Scripted) -> None:
    match = pb.MessageMatch(session_id=SESSION, seq=3, role="user", create_time=DAY, snippet="a\nword")
    match.spans.add(start=2, end=6)
    server.on("SearchMessages", *[[pb.SearchMessagesResponse(matches=[match])]] * 2)
    rows = (await run(server.target, "search", "a", "word", "--session", SESSION)).out.splitlines()
    assert rows[1].split() == [SESSION, "3", "user", "2030-03-17T17:46:40Z", "a", "word"]
    request = server.requests("SearchMessages")[0]
    assert (request.query, request.session_id) == ("a word", SESSION)
    shown = json.loads((await run(server.target, "search", "x", "--json")).out)
    assert shown["matches"][0]["spans"] == [{"start": 2, "end": 6}]


async def test_erase_asks_or_wants_yes(server: Scripted) -> None:
    ran = await run(server.target, "admin", "erase")
    assert (ran.code, server.methods()) == (2, [])
    assert "--yes" in ran.err


async def test_erase_waits_for_the_receipt(server: Scripted) -> None:
    server.on("EraseOwner", [an_erasure(0)], [DONE])
    server.on("GetErasure", [an_erasure(2)], [DONE], [an_erasure(1)])
    ran = await run(server.target, "admin", "erase", "--yes")
    assert (ran.code, ran.out, ran.err) == (0, "3 sessions and 6 turns erased (e1)\n", "")
    receipt = json.loads((await run(server.target, "admin", "erase", "--yes", "--json")).out)
    assert (receipt["state"], receipt["sessionsErased"], receipt["turnsErased"]) == ("DONE", 3, 6)
    assert (await run(server.target, "admin", "erasure", "e1")).out == "1 of 3 sessions and 2 turns erased (e1)\n"

"""Starts that must fail: one line that names the setting, and an exit code. And secrets, which nothing may show."""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from chatsession.errors import ChatSessionError

from tests.e2e.conftest import Settings
from tests.e2e.starting import EndedProcess, free_port, refused_start, run_to_end
from tests.support.calls import whole_history
from tests.support.door import connect
from tests.support.server import running_server

_SECRET = "Secret-7f3a"
_WRONG_SETTING = 2
_PART_FAILED = 1

_BAD_SETTINGS: Mapping[str, Settings] = {
    "GRPC_ADDRESS without a port": {"GRPC_ADDRESS": "localhost"},
    "MONGO_URI of another kind": {"MONGO_URI": "http://127.0.0.1"},
    "MONGO_URI with an unknown option": {"MONGO_URI": "mongodb://127.0.0.1/?colour=red"},
    "MONGO_DATABASE with a blank": {"MONGO_URI": "mongodb://127.0.0.1:1", "MONGO_DATABASE": "a b"},
    "OPENAI_BASE_URL without a scheme": {"OPENAI_BASE_URL": "127.0.0.1:8080"},
    "OPENAI_BASE_URL with a port that is no number": {"OPENAI_BASE_URL": "http://127.0.0.1:port"},
    "OPENAI_API_KEY with a line break": {"OPENAI_API_KEY": "sk-a\nb"},
    "OPENAI_STREAMING that is neither": {"OPENAI_STREAMING": "perhaps"},
    "TURN_TIMEOUT_SECONDS that is no number": {"TURN_TIMEOUT_SECONDS": "nan"},
    "STOP_GRACE_SECONDS in words": {"STOP_GRACE_SECONDS": "soon"},
    "GRPC_ADDRESS without a fixed port for workers": {"WORKERS": "2"},
    "SQLITE_PATH in memory for workers": {
        "WORKERS": "2",
        "SQLITE_PATH": ":memory:",
        "GRPC_ADDRESS": "127.0.0.1:1",
        "HTTP_ADDRESS": "127.0.0.1:2",
    },
    "LOG_LEVEL that is none": {"LOG_LEVEL": "loud"},
}

# Passwords with characters that have to be escaped, each misunderstood in another way.
_BAD_MONGO_URIS = [
    f"http://me:{_SECRET}@127.0.0.1",
    f"mongodb://me:a@{_SECRET}@127.0.0.1",
    f"mongodb://me:{_SECRET}%zz@127.0.0.1",
    f"mongodb://me:12/{_SECRET}$@127.0.0.1",
    f"mongodb://me:a?{_SECRET}@127.0.0.1",
]


def check_one_line(ended: EndedProcess, code: int, setting: str) -> None:
    """Check that the service said one line, which names the setting, and nothing behind or beside it."""
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith(f"chat-session-service: {setting}: ")
    assert ended.code == code


@pytest.mark.parametrize("settings", [pytest.param(settings, id=name) for name, settings in _BAD_SETTINGS.items()])
async def test_a_wrong_setting_stops_the_start_and_is_named(
    settings: Settings, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    setting = request.node.callspec.id.split()[0]
    check_one_line(await refused_start(tmp_path, **settings), _WRONG_SETTING, setting)


async def test_a_wrong_line_in_the_env_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WORKERS=many\n")
    check_one_line(await refused_start(tmp_path), _WRONG_SETTING, "WORKERS")


@pytest.mark.parametrize("path", ["missing/sessions.db", "text.db"])
async def test_a_file_that_cannot_be_the_store_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but it is long enough to be taken for one\n" * 20)
    check_one_line(await refused_start(tmp_path, SQLITE_PATH=path), _PART_FAILED, "SQLITE_PATH")


async def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE sessions (name TEXT)")
    other.close()
    check_one_line(await refused_start(tmp_path, SQLITE_PATH="other.db"), _PART_FAILED, "SQLITE_PATH")


async def test_a_second_server_on_the_same_grpc_port_does_not_start(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect("grpc", server) as face:
        second = await refused_start(tmp_path, GRPC_ADDRESS=server.grpc_target)
        check_one_line(second, _PART_FAILED, "GRPC_ADDRESS")
        assert await face.create_session()


async def test_a_second_server_on_the_same_http_port_does_not_start(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect("rest", server) as face:
        second = await refused_start(tmp_path, HTTP_ADDRESS=server.http_url.removeprefix("http://"))
        check_one_line(second, _PART_FAILED, "HTTP_ADDRESS")
        assert await face.create_session()


@pytest.mark.parametrize("uri", _BAD_MONGO_URIS)
async def test_a_refused_mongo_uri_does_not_show_its_password(uri: str, tmp_path: Path) -> None:
    ended = await refused_start(tmp_path, MONGO_URI=uri)
    assert "MONGO_URI" in ended.stderr
    assert _SECRET not in ended.stderr + ended.stdout


async def test_a_refused_key_is_not_shown(tmp_path: Path) -> None:
    ended = await refused_start(tmp_path, OPENAI_API_KEY=f"{_SECRET}\n")
    assert _SECRET not in ended.stderr + ended.stdout


async def test_the_settings_do_not_show_secrets(tmp_path: Path) -> None:
    code = (
        "from service.config import read_config as r; c = r(); print(c, repr(c), c.model_dump(), c.model_dump_json())"
    )
    secrets = {"MONGO_URI": f"mongodb://me:{_SECRET}@127.0.0.1", "OPENAI_API_KEY": _SECRET}
    shown = await run_to_end(tmp_path, "-c", code, **secrets)
    assert "grpc_address" in shown.stdout
    assert _SECRET not in shown.stdout + shown.stderr


async def test_a_running_service_does_not_show_secrets(tmp_path: Path) -> None:
    secrets = {
        "MONGO_URI": f"mongodb://me:{_SECRET}@127.0.0.1:{free_port()}",
        "OPENAI_API_KEY": _SECRET,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
    }
    settings = {"STORE_TIMEOUT_SECONDS": "0.5", "LOG_LEVEL": "debug", **secrets}
    async with running_server(tmp_path, **settings) as server, connect("rest", server) as face:
        with pytest.raises(ChatSessionError) as caught:
            await face.create_session()
        await server.stop()
        assert _SECRET not in str(vars(caught.value))
        assert _SECRET not in str(list(server.log))


async def test_a_key_that_the_provider_refuses_is_not_shown(tmp_path: Path) -> None:
    """The provider's answer quotes the key, as OpenAI's does."""
    settings = {"OPENAI_API_KEY": _SECRET, "LOG_LEVEL": "debug"}
    async with await asyncio.start_server(_quote_the_key, "127.0.0.1", 0) as provider:
        settings["OPENAI_BASE_URL"] = f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/v1"
        async with running_server(tmp_path, **settings) as server, connect("grpc", server) as face:
            session_id = await face.create_session()
            with pytest.raises(ChatSessionError) as caught:
                await face.ask(session_id, "hi")
            turns = await whole_history(face, session_id)
            await server.stop()
            assert caught.value.reason == "MODEL_AUTHENTICATION_FAILED"
            assert _SECRET not in str(vars(caught.value)) + str(turns)
            assert _SECRET not in str(list(server.log))


async def _quote_the_key(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert _SECRET.encode() in head
    body = f'{{"error":{{"message":"Incorrect API key provided: {_SECRET}","code":"{_SECRET}"}}}}'.encode()
    writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_messages_are_not_logged(tmp_path: Path) -> None:
    async with running_server(tmp_path, LOG_LEVEL="debug") as server, connect("rest", server) as face:
        session_id = await face.create_session()
        await face.ask(session_id, _SECRET)
        with pytest.raises(ChatSessionError):
            await face.ask(session_id, _SECRET, "demo/error-400")
        await server.stop()
        assert _SECRET not in str(list(server.log))

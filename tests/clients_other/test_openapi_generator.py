"""A client that openapi-generator makes of the service's own OpenAPI document, against that service."""

import asyncio
import json
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.clients_other.toolchain import jar, needs, run
from tests.support.server import ServerProcess

pytestmark = needs("generated REST", "java", "mvn")

_VERSION = "7.25.0"
_CONVERSATION = Path(__file__).with_name("rest_conversation.py")


@pytest.fixture
async def package(server: ServerProcess, tmp_path: Path) -> Path:
    """The folder that holds the generated package `chat_rest`."""
    generator = await jar("org.openapitools", "openapi-generator-cli", _VERSION)
    url = f"{server.http_url}/openapi.json"
    document = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
    (tmp_path / "openapi.json").write_bytes(document)
    code, output = await run(
        *("java", "-jar", str(generator), "generate", "-g", "python", "-i", str(tmp_path / "openapi.json")),
        *("-o", str(tmp_path / "client"), "--package-name", "chat_rest", "--remove-operation-id-prefix"),
    )
    assert code == 0, output
    return tmp_path / "client"


async def test_it_compiles(package: Path) -> None:
    code, output = await run(sys.executable, "-W", "error", "-m", "compileall", "-q", str(package / "chat_rest"))
    assert code == 0, output
    code, output = await run(sys.executable, "-W", "error", "-c", "import chat_rest", PYTHONPATH=str(package))
    assert code == 0, output


async def test_it_has_a_conversation(package: Path, server: ServerProcess) -> None:
    code, output = await run(
        *(sys.executable, "-W", "error", str(_CONVERSATION), server.http_url), PYTHONPATH=str(package)
    )
    assert code == 0, output
    answer = 'Hello! You wrote: "hi". I see 1 user message(s) from you so far.'
    assert json.loads(output) == {
        "session": ["Tea", {"a": "b"}, 0.5],
        "answers": [answer, True],
        "plain": [
            ["user", "hi", None],
            ["assistant", answer, None],
            ["user", "and again", None],
            ["assistant", 'Hello! You wrote: "and again". I see 2 user message(s) from you so far.', None],
        ],
        "full": [[1, True], [2, True], [3, True]],
        "next": True,
        "turn": ["COMPLETED", "STOP", True],
        "stream": {"result": {}, "done": True},
        "missing": [404, True, "Status", 5, "SESSION_NOT_FOUND"],
        "refused": [400, False, "Status", 3, "INVALID_FIELD"],
    }

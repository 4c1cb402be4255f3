"""Swagger UI in a real browser without a network: it loads, lists the operations, and trying one works."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.webdriver import Browser, NoBrowserError, browser
from tests.support.grpc_calls import GrpcCaller
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_POST_SESSION = "ChatSessionService_CreateSession"
_LIMIT_S = 20.0

# Each operation on the page as `METHOD path`.
_OPERATIONS = """
return [...document.querySelectorAll('.opblock')].map(block =>
    block.querySelector('.opblock-summary-method').textContent + ' ' +
    block.querySelector('.opblock-summary-path').textContent.replaceAll('\\u200b', ''))
"""
_ANSWER = """
const live = document.querySelector('[id$=%s] .live-responses-table .response');
return live && {
    status: live.querySelector('.response-col_status').firstChild.textContent,
    body: live.querySelector('.highlight-code code').textContent,
}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("docs")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def window(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    try:
        async with browser(tmp_path_factory.mktemp("profile")) as window:
            yield window
    except NoBrowserError as exc:
        pytest.skip(str(exc).upper())


@pytest_asyncio.fixture(loop_scope="module")
async def docs(server: ServerProcess, window: Browser) -> Browser:
    """The window, with the page loaded anew and all operations on it."""
    await window.requested()
    await window.log("browser")
    await window.open(f"{server.http_url}/docs")

    async def has_operations() -> bool:
        return bool(await window.run(_OPERATIONS))

    await until(has_operations, timeout_s=_LIMIT_S)
    return window


async def test_the_page_lists_the_operations(docs: Browser) -> None:
    operations = await docs.run(_OPERATIONS)
    documented = {"POST /session", "POST /chat", "GET /session/{session_id}/history"}
    assert documented <= {operation.replace("sessionId", "session_id") for operation in operations}
    assert "POST /chat:stream" in operations


async def test_the_page_needs_nothing_from_elsewhere(docs: Browser, server: ServerProcess) -> None:
    requested = await docs.requested()
    assert f"{server.http_url}/openapi.json" in requested
    assert [url for url in requested if not url.startswith((server.http_url, "data:", "chrome:"))] == []


async def test_the_page_logs_no_error(docs: Browser) -> None:
    assert [entry for entry in await docs.log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


async def test_trying_an_operation_shows_its_answer(docs: Browser, server: ServerProcess, tmp_path: Path) -> None:
    operation = f"[id$={_POST_SESSION}]"
    await docs.click(f"{operation} .opblock-summary-control")
    await until(lambda: docs.run(f"return !!document.querySelector('{operation} .try-out__btn')"), timeout_s=_LIMIT_S)
    await docs.click(f"{operation} .try-out__btn")
    await until(lambda: docs.run(f"return !!document.querySelector('{operation} .execute')"), timeout_s=_LIMIT_S)
    await docs.click(f"{operation} .execute")
    await until(lambda: docs.run(_ANSWER % _POST_SESSION), timeout_s=_LIMIT_S)
    answer = await docs.run(_ANSWER % _POST_SESSION)
    await docs.run(f"document.querySelector('{operation} .responses-wrapper').scrollIntoView()")
    (tmp_path / "docs.png").write_bytes(await docs.screenshot())
    assert answer["status"] == "200"
    body = json.loads(answer["body"])
    assert list(body) == ["sessionId"]
    async with GrpcCaller(server) as stubs:
        assert await stubs.said(body["sessionId"]) == []

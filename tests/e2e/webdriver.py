"""A headless Chromium that can reach this machine only, driven by plain WebDriver over HTTP."""

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

_START_LIMIT_S = 20.0
_STOP_LIMIT_S = 10.0
_CALL_LIMIT_S = 30.0
_PORT = re.compile(rb"started successfully on port (\d+)")
_CHROMIUM = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1280,1400",
    # No name but this machine's can be found, and nothing goes around that by a proxy.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
]


class NoBrowserError(Exception):
    """There is no browser on this machine; the message says what is missing."""


class Browser:
    """One window."""

    def __init__(self, http: aiohttp.ClientSession, session_url: str) -> None:
        self._http = http
        self._url = session_url

    async def open(self, url: str) -> None:
        """Load a page."""
        await self._call("POST", "/url", {"url": url})

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript, wait if it returns a promise, and return its value."""
        return await self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    async def click(self, selector: str) -> None:
        """Click the first element for a CSS selector as a person does: it must be visible and not covered."""
        found = await self._call("POST", "/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        await self._call("POST", f"/element/{element}/click", {})

    async def screenshot(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode(await self._call("GET", "/screenshot"))

    async def log(self, kind: str) -> list[dict[str, Any]]:
        """Return and clear a log: `browser` for the console, `performance` for what was loaded."""
        entries: list[dict[str, Any]] = await self._call("POST", "/se/log", {"type": kind})
        return entries

    async def requested(self) -> list[str]:
        """Return the addresses that were asked for, and clear the list."""
        events = [json.loads(entry["message"])["message"] for entry in await self.log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    async def close(self) -> None:
        """Close it."""
        await self._call("DELETE", "")

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        async with self._http.request(method, self._url + path, json=body) as response:
            answer = (await response.json())["value"]
        if response.status != 200:
            raise RuntimeError(f"{answer['error']}: {answer['message'].splitlines()[0]}")
        return answer


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Browser]:
    """A browser that keeps its files in `profile`. Raises NoBrowserError."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise NoBrowserError("no browser for the tests: put `chromium` and `chromedriver` on PATH")
    process = await asyncio.create_subprocess_exec(
        driver, "--port=0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        base_url = f"http://127.0.0.1:{await _port_of(process)}"
        limit = aiohttp.ClientTimeout(total=_CALL_LIMIT_S)
        async with aiohttp.ClientSession(timeout=limit) as http:
            window = await _open_window(http, base_url, chromium, profile)
            try:
                yield window
            finally:
                await window.close()
    finally:
        await _stop(process)


async def _open_window(http: aiohttp.ClientSession, base_url: str, chromium: str, profile: Path) -> Browser:
    options = {"binary": chromium, "args": [*_CHROMIUM, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
    async with http.post(f"{base_url}/session", json={"capabilities": {"alwaysMatch": wanted}}) as response:
        answer = (await response.json())["value"]
    if response.status != 200:
        raise NoBrowserError(f"the browser does not start: {answer['message'].splitlines()[0]}")
    return Browser(http, f"{base_url}/session/{answer['sessionId']}")


async def _port_of(process: asyncio.subprocess.Process) -> int:
    assert process.stdout
    async with asyncio.timeout(_START_LIMIT_S):
        async for line in process.stdout:
            if match := _PORT.search(line):
                return int(match[1])
    raise NoBrowserError("chromedriver ended before it began")


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()

"""Every reason of an error that only REST can have, provoked, with its HTTP status."""

import asyncio
import json
from typing import NamedTuple

import pytest

from tests.parity.conftest import Place, answer_to
from tests.parity.reasons import CODES, OF_REST
from tests.support.rest_calls import RestCaller, failure_in

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(60)]


def chat(**fields: str) -> bytes:
    return json.dumps({"sessionId": "nobody", "message": "hi", **fields}).encode()


class Odd(NamedTuple):
    """A request that is wrong before a method is called."""

    reason: str
    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] | None = None


_ODD = [
    Odd("INVALID_BODY", "POST", "/chat", b"{"),
    Odd("INVALID_BODY", "GET", "/session/nobody/history", b"{}"),
    Odd("INVALID_URL", "GET", "/session/%zz/history"),
    Odd("INVALID_HEADER", "POST", "/chat", chat(), {"Grpc-Timeout": "soon"}),
    Odd("INVALID_HEADER", "POST", "/chat", chat(), {"Grpc-Metadata-Host": "me"}),
    Odd("ROUTE_NOT_FOUND", "GET", "/nowhere"),
    Odd("METHOD_NOT_ALLOWED", "GET", "/chat"),
    Odd("METHOD_NOT_ALLOWED", "PUT", "/session", b"{}"),
    Odd("BODY_TOO_LARGE", "POST", "/chat", chat(message="x" * 3 * 2**20)),
    Odd("URL_TOO_LONG", "GET", f"/session/{'x' * 20_000}/history"),
    Odd("HEADERS_TOO_LARGE", "GET", f"/session/{'x' * 50_000}/history"),
    Odd("HEADERS_TOO_LARGE", "GET", "/session/nobody/history", None, {"X-Much": "x" * 50_000}),
    Odd("HEADERS_TOO_LARGE", "GET", "/session/nobody/history", None, {"Grpc-Metadata-Much": "x" * 17_000}),
    Odd("UNSUPPORTED_MEDIA_TYPE", "POST", "/chat", chat(), {"Content-Type": "text/plain"}),
    Odd("UNSUPPORTED_MEDIA_TYPE", "POST", "/chat", chat(), {"Content-Type": "application/x-www-form-urlencoded"}),
    Odd("UNSUPPORTED_MEDIA_TYPE", "POST", "/chat", chat(), {"Content-Encoding": "gzip"}),
]


def check(reason: str, http_status: int, answer: bytes) -> None:
    """Check the reason, its code, and that nothing of the inside shows. The HTTP status is checked with it."""
    error = failure_in(http_status, answer)
    assert (error.reason, error.code.name) == (reason, CODES[reason])
    assert not any(inside in answer.decode() for inside in ("Traceback", 'File "', "/service/", "Error("))


async def test_every_reason_of_rest_is_provoked() -> None:
    assert {odd.reason for odd in _ODD} | {"INVALID_REQUEST", "REQUEST_TIMEOUT"} == OF_REST


@pytest.mark.parametrize("odd", _ODD, ids=[f"{odd.reason} {number}" for number, odd in enumerate(_ODD)])
async def test_a_request_that_fits_nothing_is_told_why(main: Place, odd: Odd) -> None:
    rest = main.callers[1]
    assert isinstance(rest, RestCaller)
    status, headers, answer = await rest.call(odd.method, odd.path, odd.body, odd.headers)
    check(odd.reason, status, answer)
    assert headers["content-type"] == "application/json"
    assert failure_in(status, answer).call_id == headers.get("x-request-id")


async def test_bytes_that_are_no_http_are_answered(main: Place) -> None:
    check_bytes("INVALID_REQUEST", await answer_to(main.server, b"hello\r\n\r\n"))


async def test_a_request_that_does_not_come_to_its_end_is_answered(half_sent: "asyncio.Task[bytes]") -> None:
    check_bytes("REQUEST_TIMEOUT", await half_sent)


def check_bytes(reason: str, response: bytes) -> None:
    """The same for a response as it came."""
    head, _, answer = response.partition(b"\r\n\r\n")
    check(reason, int(head.split()[1]), answer)

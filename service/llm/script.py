"""The demo server's models: what each of them answers, by its name alone.

A name is `demo/<script>` or `demo/<script>:<key>=<number>,…`, for example `demo/slow:chunks=50,delay_ms=100`. Every
script is deterministic. The table of scripts is `SCRIPTS`, each one's docstring its manual; `docs_table()` prints it.

Keys that every script knows: `first_ms` (wait before the first piece), `delay_ms` (wait between pieces),
`usage=0` (report no token counts). Numbers are whole, 0 to 10,000,000.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

_MAX_NUMBER = 10_000_000
_COMMON = {"first_ms": 0, "delay_ms": 0, "usage": 1}
_WORD = re.compile(r"\S+\s*|\s+")

Messages = Sequence[Mapping[str, str]]


class Exit(Enum):
    """How an answer ends once its pieces are said."""

    FINISH = "with a finish reason"
    CUT = "in good order, without a finish reason"
    ABRUPT = "connection closed in the middle"
    RESET = "connection reset"
    STALL = "never: silence"
    ERROR = "an error object in the stream"
    JUNK = "something that is not JSON"


@dataclass(frozen=True, slots=True)
class Plan:
    """One answer: pieces, then the exit.

    silent_head: not even the status line is sent. alive_ms: send a sign of life so often while silent; 0 = none:
    a comment, or with `alive_empty` an empty delta.
    """

    pieces: Sequence[str]
    exit: Exit = Exit.FINISH
    finish_reason: str = "stop"
    first_s: float = 0.0
    delay_s: float = 0.0
    usage: bool = True
    error: Mapping[str, object] = field(default_factory=dict)
    silent_head: bool = False
    alive_s: float = 0.0
    alive_empty: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error status, or another body with status 200."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class UnknownModelError(Exception):
    """There is no such demo model, or it does not know a parameter."""


Numbers = Mapping[str, int]
Outcome = Plan | Refusal
Script = Callable[[Numbers, Messages, int], Outcome]

SCRIPTS: dict[str, tuple[Script, Mapping[str, int]]] = {}


def script(name: str, **defaults: int) -> Callable[[Script], Script]:
    """Enter a script into the table, with the keys it knows and their defaults."""

    def enter(function: Script) -> Script:
        SCRIPTS[name] = (function, {**_COMMON, **defaults})
        return function

    return enter


def play(model: str, messages: Messages, earlier_calls: int) -> Outcome:
    """Return what the model does with these messages.

    earlier_calls: how often this model has met the same last message. Raises UnknownModelError.
    Names without `demo/` answer like `demo/chat`.
    """
    function, numbers = _parse(model)
    return function(numbers, messages, earlier_calls)


@lru_cache(maxsize=1024)
def _parse(model: str) -> tuple[Script, Numbers]:
    if not model.startswith("demo/"):
        return SCRIPTS["chat"][0], SCRIPTS["chat"][1]
    name, _, listed = model.removeprefix("demo/").partition(":")
    if name not in SCRIPTS:
        raise UnknownModelError(f"the model {model[:100]!r} does not exist")
    function, defaults = SCRIPTS[name]
    numbers = dict(defaults)
    for pair in filter(None, listed.split(",")):
        key, _, number = pair.partition("=")
        if key not in defaults or not number.isascii() or not number.isdecimal() or int(number[:9]) > _MAX_NUMBER:
            raise UnknownModelError(f"{pair[:100]!r} is no parameter of demo/{name}; it knows {', '.join(defaults)}")
        numbers[key] = int(number)
    return function, numbers


def refusal(
    status: int, code: str | None, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> Refusal:
    """Return an error answer in OpenAI's form."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Refusal(status, json.dumps({"error": error}).encode(), headers=headers or {})


def last_user_text(messages: Messages) -> str:
    """Return the newest user message, or nothing."""
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def words(text: str) -> list[str]:
    """Cut a text into words with the space behind them; joined they are the text again."""
    return _WORD.findall(text)


def _plan(numbers: Numbers, pieces: Sequence[str], exit_: Exit = Exit.FINISH, finish_reason: str = "stop") -> Plan:
    return Plan(
        pieces,
        exit_,
        finish_reason,
        first_s=numbers["first_ms"] / 1000,
        delay_s=numbers["delay_ms"] / 1000,
        usage=bool(numbers["usage"]),
        alive_s=numbers.get("alive_ms", 0) / 1000,
        alive_empty=bool(numbers.get("empty", 0)),
        error={"message": "scripted error", "type": "server_error", "param": None, "code": "server_error"},
    )


def _tokens(count: int) -> list[str]:
    return [f"word{number} " for number in range(1, count + 1)]


@script("chat")
def _chat(numbers: Numbers, messages: Messages, _earlier_calls: int) -> Outcome:
    """A friendly answer about the last user message; says how many user messages the context holds."""
    count = sum(1 for m in messages if m["role"] == "user")
    text = f'Hello! You wrote: "{last_user_text(messages)[:1000]}". I see {count} user message(s) from you so far.'
    return _plan(numbers, words(text))


@script("echo")
def _echo(numbers: Numbers, messages: Messages, _earlier_calls: int) -> Outcome:
    """Exactly the last user message."""
    return _plan(numbers, words(last_user_text(messages)))


@script("context")
def _context(numbers: Numbers, messages: Messages, _earlier_calls: int) -> Outcome:
    """The JSON of the messages it got."""
    text = json.dumps(messages, ensure_ascii=False)
    return _plan(numbers, [text[start : start + 200] for start in range(0, len(text), 200)])


@script("slow", chunks=20, delay_ms=100)
def _slow(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, `delay_ms` apart."""
    return _plan(numbers, _tokens(numbers["chunks"]))


@script("tokens", n=100)
def _token_count(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`n` words, as fast as they go or `delay_ms` apart."""
    return _plan(numbers, _tokens(numbers["n"]))


@script("big", kib=256, chunk_bytes=1024)
def _big(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """An answer of `kib` KiB in pieces of `chunk_bytes`."""
    piece_bytes = max(1, numbers["chunk_bytes"])
    return _plan(numbers, ["x" * piece_bytes] * max(1, min(numbers["kib"], 65_536) * 1024 // piece_bytes))


@script("empty")
def _empty(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """No text, finish reason stop."""
    return _plan(numbers, [])


@script("length", chunks=5)
def _length(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, finish reason length."""
    return _plan(numbers, _tokens(numbers["chunks"]), finish_reason="length")


@script("filter", chunks=5)
def _filter(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, finish reason content_filter."""
    return _plan(numbers, _tokens(numbers["chunks"]), finish_reason="content_filter")


@script("tools", chunks=2)
def _tools(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, finish reason tool_calls."""
    return _plan(numbers, _tokens(numbers["chunks"]), finish_reason="tool_calls")


@script("silent", head=0, alive_ms=0, empty=0)
def _silent(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """Takes the request and never answers. head=1: sends the head; then alive_ms: a comment (empty=1: an empty
    delta) so often."""
    silent_head = not (numbers["head"] or numbers["alive_ms"])
    plan = _plan(numbers, [], Exit.STALL)
    return Plan([], Exit.STALL, silent_head=silent_head, alive_s=plan.alive_s, alive_empty=plan.alive_empty)


@script("stall", chunks=3, alive_ms=0, empty=0)
def _stall(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, then silence; alive_ms and empty as for silent."""
    return _plan(numbers, _tokens(numbers["chunks"]), Exit.STALL)


@script("cut", chunks=3, abrupt=0)
def _cut(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, then the stream ends in good order without a finish reason; abrupt=1: in the middle of HTTP."""
    return _plan(numbers, _tokens(numbers["chunks"]), Exit.ABRUPT if numbers["abrupt"] else Exit.CUT)


@script("reset", chunks=3)
def _reset(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, then the TCP connection is reset; chunks=0: before any answer."""
    plan = _plan(numbers, _tokens(numbers["chunks"]), Exit.RESET)
    return plan if plan.pieces else Plan([], Exit.RESET, silent_head=True)


@script("error-after", chunks=2, status=500, quota=0)
def _error_after(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, then an error object in the stream: server_error; status=429: rate_limit_exceeded (quota=1:
    insufficient_quota); status=400: invalid_request_error."""
    code = {429: "insufficient_quota" if numbers["quota"] else "rate_limit_exceeded", 400: "invalid_request_error"}
    name = code.get(numbers["status"], "server_error")
    plan = _plan(numbers, _tokens(numbers["chunks"]), Exit.ERROR)
    error = {"message": "scripted error", "type": name, "param": None, "code": name}
    return Plan(plan.pieces, Exit.ERROR, first_s=plan.first_s, delay_s=plan.delay_s, error=error)


@script("bad-json", chunks=2)
def _bad_json(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """`chunks` words, then an event that is not JSON."""
    return _plan(numbers, _tokens(numbers["chunks"]), Exit.JUNK)


@script("html")
def _html(_numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """A page of HTML with status 200, as a proxy's login page."""
    return Refusal(200, b"<!doctype html><html><body><h1>Please log in</h1></body></html>", "text/html")


@script("no-choices")
def _no_choices(_numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """JSON with status 200 that is no completion."""
    return Refusal(200, b'{"status":"ok"}')


@script("error-context")
def _error_context(_numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """400 context_length_exceeded."""
    return refusal(400, "context_length_exceeded", "invalid_request_error", "maximum context length is 10 tokens")


@script("error-429-quota")
def _error_quota(_numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
    """429 insufficient_quota."""
    return refusal(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota")


@script("flaky", fail=1, status=503, retry_after_ms=0)
def _flaky(numbers: Numbers, messages: Messages, earlier_calls: int) -> Outcome:
    """Answers a message with `status` the first `fail` times, then like chat."""
    if earlier_calls < numbers["fail"]:
        return _error(numbers["status"], numbers)
    return _chat(numbers, messages, earlier_calls)


_ERRORS = {
    400: ("invalid_value", "invalid_request_error"),
    401: ("invalid_api_key", "invalid_request_error"),
    403: ("unsupported_country_region_territory", "request_forbidden"),
    404: ("model_not_found", "invalid_request_error"),
    408: ("request_timeout", "server_error"),
    409: ("conflict", "invalid_request_error"),
    422: ("unprocessable", "invalid_request_error"),
    429: ("rate_limit_exceeded", "requests"),
    500: ("server_error", "server_error"),
    502: ("bad_gateway", "server_error"),
    503: ("overloaded", "server_error"),
}


def _error(status: int, numbers: Numbers) -> Refusal:
    code, kind = _ERRORS.get(status, ("server_error", "server_error"))
    headers = {}
    if numbers.get("retry_after_ms"):
        headers["retry-after-ms"] = str(numbers["retry_after_ms"])
    if numbers.get("retry_after_s"):
        headers["Retry-After"] = str(numbers["retry_after_s"])
    return refusal(status, code, kind, f"scripted error {status}", headers)


def _enter_error(status: int, **defaults: int) -> None:
    def fail(numbers: Numbers, _messages: Messages, _earlier_calls: int) -> Outcome:
        return _error(status, numbers)

    fail.__doc__ = f"{status} {_ERRORS[status][0]}."
    script(f"error-{status}", **defaults)(fail)


for _status in _ERRORS:
    # OpenAI says with a 429 when to come again; the others say nothing unless asked.
    _enter_error(_status, retry_after_s=1 if _status == 429 else 0, retry_after_ms=0)


def docs_table() -> str:
    """Return the scripts as lines for a manual: name, keys with defaults, what it does."""
    lines = []
    for name, (function, defaults) in sorted(SCRIPTS.items()):
        keys = ",".join(f"{key}={number}" for key, number in defaults.items() if _COMMON.get(key) != number)
        lines.append(f"demo/{name}{':' + keys if keys else ''}\t{' '.join((function.__doc__ or '').split())}")
    return "\n".join(lines)

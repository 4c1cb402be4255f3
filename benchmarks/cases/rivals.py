"""The same turns at other servers that keep sessions with a model."""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from benchmarks import turns
from benchmarks.compare import Bar, Contender, Result, cpu_ratio, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.measure import Sample
from benchmarks.plans import Call, Kind
from benchmarks.processes import Server
from benchmarks.registry import case
from benchmarks.venvs import NotInstalledError

_SESSIONS = 8
_WARM_TURNS = 8
_TURNS = 4


@dataclass(frozen=True)
class Rival:
    """A server with sessions of its own making: what makes one, and what a turn's call looks like."""

    lab: Lab
    server: Server
    make: Callable[[str], str]
    turn: turns.MakeCall

    def __call__(self, _round: int) -> Sample:
        sessions = [self.make(self.server.http) for _ in range(_SESSIONS)]
        self.lab.warm(self._plan(sessions, _WARM_TURNS, 0))
        return self.lab.sample(self._plan(sessions, _TURNS, _WARM_TURNS), self.server)

    def _plan(self, sessions: list[str], each: int, start: int) -> Any:
        return turns.plan(Kind.POST, self.server.http, self.turn, sessions, each=each, start=start, lanes=_SESSIONS)


@case("rivals")
def rivals(lab: Lab) -> list[Result]:
    """The same turns over HTTP at LangGraph Server's development runtime and ADK's API server; no bar."""
    database = lab.new_database()
    contenders: dict[str, Contender] = {
        "ours, MongoDB": Rival(lab, lab.start_service(database.name), _make_ours, turns.post),
        "ours, SQLite": Rival(lab, lab.start_service(None, SQLITE_PATH="rivals.db"), _make_ours, turns.post),
        "seed-style, MongoDB": Rival(lab, lab.start_seed_style(database.name), _make_ours, turns.post),
    }
    missing = []
    for name, start, make, turn in (
        ("LangGraph Server, development runtime, in memory", _start_langgraph, _make_thread, _run_thread),
        ("ADK api_server, in memory", _start_adk, _make_adk, _run_adk),
    ):
        try:
            contenders[name] = Rival(lab, start(lab), make, turn)
        except NotInstalledError as exc:
            missing.append(f"NOT COMPARED: {name}: {exc}")
            print(f"  {missing[-1]}", flush=True)
    samples = interleave(contenders, min(3, lab.size.rounds))
    bars = [
        Bar(f"CPU a turn against {name}", cpu_ratio(samples, "ours, MongoDB", name))
        for name in samples
        if not name.startswith("ours")
    ]
    notes = [
        f"{_SESSIONS} sessions at once, each after {_WARM_TURNS} turns; one process each.",
        "LangGraph: a graph of one node that calls the provider by the openai SDK, `/threads/{id}/runs/wait`.",
        "ADK: an LlmAgent with LiteLlm, `/run`. Its default store, SQLite, fails calls with `database is locked` when "
        "eight sessions are at work at once, so its sessions are in memory.",
        *missing,
    ]
    return [Result("turns over HTTP, 8 to 12 turns of context", figures_of(samples), bars, notes)]


def _start_langgraph(lab: Lab) -> Server:
    return lab.start_rival("langgraph", "langgraph", "dev", "--no-browser", "--no-reload")


def _start_adk(lab: Lab) -> Server:
    return lab.start_rival("adk", "adk", "api_server", "--session_service_uri", "memory://", "agents")


def _make_ours(url: str) -> str:
    return str(_post(f"{url}/session", {})["sessionId"])


def _make_thread(url: str) -> str:
    return str(_post(f"{url}/threads", {})["thread_id"])


def _make_adk(url: str) -> str:
    session = uuid4().hex
    _post(f"{url}/apps/chat/users/user/sessions/{session}", {})
    return session


def _run_thread(session: str, message: str) -> Call:
    body = {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": message}]}}
    return f"/threads/{session}/runs/wait", orjson.dumps(body)


def _run_adk(session: str, message: str) -> Call:
    said = {"role": "user", "parts": [{"text": message}]}
    return "/run", orjson.dumps({"appName": "chat", "userId": "user", "sessionId": session, "newMessage": said})


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)

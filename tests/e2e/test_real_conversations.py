"""The main job on real input: the 80 conversations of MT-Bench, 8 at once."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Settings
from tests.support.calls import Caller
from tests.support.door import connect
from tests.support.grpc_calls import GrpcCaller
from tests.support.rest_calls import RestCaller
from tests.support.server import running_server

_QUESTIONS = Path(__file__).parents[1] / "data" / "mt_bench_questions.jsonl"
_AT_ONCE = 8

History = list[tuple[str, str]]


def conversations() -> list[list[str]]:
    return [json.loads(line)["turns"] for line in _QUESTIONS.read_text("utf-8").splitlines()]


async def converse(face: Caller, messages: list[str]) -> tuple[str, History]:
    """Have one conversation; return its session and what was sent and answered."""
    session_id = await face.create_session()
    told: History = []
    for number, message in enumerate(messages, 1):
        answer = await face.ask(session_id, message)
        assert message[:1000] in answer
        assert f"I see {number} user message(s)" in answer
        told += [("user", message), ("assistant", answer)]
    return session_id, told


@pytest.mark.timeout(60)
async def test_80_conversations_keep_every_message_in_order(store: Settings, face_name: str, tmp_path: Path) -> None:
    turns = conversations()
    assert [len(messages) for messages in turns] == [2] * 80
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(messages: list[str]) -> tuple[str, History]:
        async with places, connect(face_name, server) as face:
            return await converse(face, messages)

    async with running_server(tmp_path, **store) as server:
        told = await asyncio.gather(*map(one, turns))
        async with GrpcCaller(server) as stubs, RestCaller(server) as rest:
            for session_id, history in told:
                assert await stubs.said(session_id) == history
                assert await rest.said(session_id) == history
    assert len({session_id for session_id, _ in told}) == 80

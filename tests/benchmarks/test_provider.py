"""What the provider of the benchmarks says, and that the service understands it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import data
from benchmarks.provider import listen
from service.domain.entities import FinishReason, ModelSettings, Role
from service.domain.ports import ContextMessage, Finish, ModelRequest
from service.llm.openai import OpenAIModel


@asynccontextmanager
async def _model(*, streaming: bool) -> AsyncIterator[OpenAIModel]:
    server = await listen()
    port = server.sockets[0].getsockname()[1]
    model = OpenAIModel(model="gpt-3.5-turbo", base_url=f"http://127.0.0.1:{port}/v1", streaming=streaming)
    await model.open()
    try:
        yield model
    finally:
        await model.close()
        server.close()
        await server.wait_closed()


async def _ask(model: OpenAIModel, name: str | None, question: str) -> tuple[list[str], Finish]:
    request = ModelRequest([ContextMessage(Role.USER, question)], ModelSettings(model=name))
    *texts, finish = [piece async for piece in model.stream(request)]
    assert isinstance(finish, Finish)
    return [str(text) for text in texts], finish


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_same_question_gets_the_same_whole_answer(streaming: bool) -> None:
    async with _model(streaming=streaming) as model:
        first, finish = await _ask(model, None, data.questions()[3])
        second, _ = await _ask(model, None, data.questions()[3])
    assert finish.finish_reason is FinishReason.STOP
    assert "".join(first) == "".join(second)
    assert tuple("".join(first)) in {tuple("".join(answer)) for answer in data.answers()}


async def test_a_paced_answer_comes_in_as_many_pieces_as_asked_for() -> None:
    async with _model(streaming=True) as model:
        texts, finish = await _ask(model, "bench:chunks=7,delay_ms=30,first_ms=50", "hello")
    assert "".join(texts) == "".join(data.tokens(7))
    assert finish.usage is not None
    assert finish.usage.output_tokens == 7


def test_answers_have_20_to_400_tokens_and_are_short_more_often_than_long() -> None:
    lengths = [len(answer) for answer in data.answers()]
    assert (min(lengths), max(lengths)) >= (20, 390)
    assert max(lengths) <= 400
    assert sum(length < 100 for length in lengths) > len(lengths) / 2

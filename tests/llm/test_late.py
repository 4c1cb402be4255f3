"""A model that is loaded behind the start: nobody who calls early is lost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest

from service.domain.entities import FinishReason, ModelSettings
from service.domain.errors import ModelUnavailable
from service.domain.ports import ChatModel, Finish, ModelRequest
from service.llm.late import LateModel

_REQUEST = ModelRequest((), ModelSettings())
_FINISH = Finish(FinishReason.STOP, "m")


class Echo:
    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        yield "hello"
        yield _FINISH


async def said(model: ChatModel) -> list[str | Finish]:
    return [piece async for piece in model.stream(_REQUEST)]


async def test_calls_wait_for_one_load_and_outlive_one_that_leaves() -> None:
    loaded, loads, closed = asyncio.Event(), 0, []

    async def load(opened: AsyncExitStack) -> ChatModel:
        nonlocal loads
        loads += 1
        opened.callback(closed.append, True)
        await loaded.wait()
        return Echo()

    model = LateModel(load)
    calls = [asyncio.create_task(said(model)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls[1:])
    loaded.set()
    assert await asyncio.gather(*calls[1:]) == [["hello", _FINISH]] * 2
    assert await said(model) == ["hello", _FINISH]
    assert (loads, closed) == (1, [])
    await model.close()
    assert closed == [True]


async def test_a_failed_load_is_tried_again() -> None:
    loads = 0

    async def load(_: AsyncExitStack) -> ChatModel:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise OSError("no port is free")
        return Echo()

    model = LateModel(load)
    with pytest.raises(OSError, match="no port"):
        await model.open()
    assert await said(model) == ["hello", _FINISH]


async def test_a_closed_model_is_not_loaded() -> None:
    async def load(_: AsyncExitStack) -> ChatModel:
        raise AssertionError("loaded")

    model = LateModel(load)
    await model.close()
    with pytest.raises(ModelUnavailable):
        await said(model)

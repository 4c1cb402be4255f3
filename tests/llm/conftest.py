from collections.abc import AsyncIterator

import pytest

from service.llm.demo import DemoServer
from service.llm.openai import Limits, OpenAIModel
from tests.llm.helpers import KEY, MakeModel


@pytest.fixture
async def demo() -> AsyncIterator[DemoServer]:
    server = DemoServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def make_model() -> AsyncIterator[MakeModel]:
    """Give a maker of models, with short limits, that closes what it made."""
    made = []

    async def make(base_url: str, **options: object) -> OpenAIModel:
        limits = {"connect_s": 2.0, "first_token_s": 5.0, "silence_s": 5.0, "usage_wait_s": 2.0}
        limits.update({name: options.pop(name) for name in list(options) if name in Limits.__slots__})
        model = OpenAIModel(
            **{"model": "gpt-3.5-turbo", "api_key": KEY, "base_url": base_url, "limits": Limits(**limits), **options}
        )
        made.append(model)
        await model.open()
        return model

    yield make
    for model in made:
        await model.close()


@pytest.fixture
async def model(make_model: MakeModel, demo: DemoServer) -> OpenAIModel:
    return await make_model(demo.base_url)

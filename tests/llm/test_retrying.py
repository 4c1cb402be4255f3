import asyncio
from collections.abc import AsyncGenerator

import pytest

from service.domain import deadline
from service.domain.errors import (
    ContextTooLong,
    ModelAuthenticationFailed,
    ModelError,
    ModelInvalidResponse,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelTimeout,
    ModelUnavailable,
)
from service.domain.ports import Finish, ModelRequest
from service.llm.demo import DemoServer
from service.llm.openai import OpenAIModel
from service.llm.retrying import RetryingModel
from tests.llm.helpers import MakeModel, ask, outcome_of

pytestmark = pytest.mark.timeout(30)


def quick(inner: OpenAIModel, **options: object) -> RetryingModel:
    return RetryingModel(inner, **{"base_delay_s": 0.001, **options})


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("demo/chat", 1),
        ("demo/flaky:fail=1", 2),
        ("demo/flaky:fail=2", 3),
        ("demo/flaky:fail=2,status=500", 3),
        ("demo/flaky:fail=2,status=429,retry_after_ms=1", 3),
    ],
)
async def test_asks_again_until_it_goes_well(model: OpenAIModel, demo: DemoServer, name: str, calls: int) -> None:
    outcome = await outcome_of(quick(model), ask(name))
    assert outcome.text.startswith("Hello!")
    assert demo.tally.calls == calls


FAULTS = [
    ("demo/flaky:fail=9", ModelUnavailable, 3),
    ("demo/error-429:retry_after_ms=1", ModelRateLimited, 3),
    ("demo/reset:chunks=0", ModelUnavailable, 3),
    ("demo/cut:chunks=0", ModelUnavailable, 3),
    ("demo/error-429-quota", ModelQuotaExhausted, 1),
    ("demo/error-401", ModelAuthenticationFailed, 1),
    ("demo/error-400", ModelRefusedRequest, 1),
    ("demo/error-context", ContextTooLong, 1),
    ("demo/html", ModelInvalidResponse, 1),
]


@pytest.mark.parametrize(("name", "cls", "calls"), FAULTS)
async def test_repeats_only_what_may_pass(
    model: OpenAIModel, demo: DemoServer, name: str, cls: type[ModelError], calls: int
) -> None:
    outcome = await outcome_of(quick(model), ask(name))
    assert type(outcome.error) is cls
    assert demo.tally.calls == calls


@pytest.mark.parametrize("name", ["demo/cut", "demo/reset", "demo/error-after", "demo/error-after:status=429"])
async def test_never_asks_again_once_text_was_given(model: OpenAIModel, demo: DemoServer, name: str) -> None:
    outcome = await outcome_of(quick(model), ask(name))
    assert outcome.text.startswith("word1 word2 ")
    assert outcome.error is not None
    assert demo.tally.calls == 1


async def test_does_not_repeat_a_silence(make_model: MakeModel, demo: DemoServer) -> None:
    outcome = await outcome_of(quick(await make_model(demo.base_url, first_token_s=0.1)), ask("demo/silent"))
    assert type(outcome.error) is ModelTimeout
    assert demo.tally.calls == 1


async def test_waits_as_long_as_the_provider_asks(model: OpenAIModel) -> None:
    clock = asyncio.get_running_loop().time
    started = clock()
    outcome = await outcome_of(quick(model), ask("demo/flaky:fail=2,status=429,retry_after_ms=100"))
    assert outcome.finish is not None
    assert 0.2 <= clock() - started < 2


@pytest.mark.parametrize("status", [429, 503])
async def test_gives_up_at_once_if_the_provider_asks_for_too_long(
    model: OpenAIModel, demo: DemoServer, status: int
) -> None:
    name = f"demo/error-{status}:retry_after_s=30"
    outcome = await outcome_of(quick(model), ask(name))
    assert outcome.error is not None
    assert outcome.error.retry_delay_s == 30.0
    assert demo.tally.calls == 1


async def test_gives_up_at_once_if_the_deadline_comes_first(model: OpenAIModel, demo: DemoServer) -> None:
    now = asyncio.get_running_loop().time()
    with deadline.scope(now + 0.9):
        outcome = await outcome_of(quick(model), ask("demo/error-429:retry_after_s=1"))
    assert outcome.error is not None
    assert outcome.error.retry_delay_s == 1.0
    assert demo.tally.calls == 1
    assert asyncio.get_running_loop().time() < now + 0.9


class Failing:
    """A model that fails as told, and counts."""

    def __init__(self, *errors: ModelError) -> None:
        self.errors = list(errors)
        self.closed = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        try:
            if self.errors:
                raise self.errors.pop(0)
            if request.settings.model == "silent":
                return
            yield "text"
            await asyncio.Event().wait()
        finally:
            self.closed += 1


async def test_waits_grow_and_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("service.llm.retrying.asyncio.sleep", note)
    for chance in (0.0, 1.0):
        failing = Failing(*(ModelUnavailable("x") for _ in range(6)))
        model = RetryingModel(failing, max_attempts=6, base_delay_s=1, max_delay_s=5, chance=lambda c=chance: c)
        assert (await outcome_of(model, ask())).error is not None
    assert waits == [0.5, 1, 2, 2.5, 2.5, 1, 2, 4, 5, 5]


async def test_a_rate_limit_without_a_delay_waits_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("service.llm.retrying.asyncio.sleep", note)
    await outcome_of(RetryingModel(Failing(*(ModelRateLimited("x") for _ in range(3)))), ask())
    assert waits == [5.0, 5.0]


async def test_closing_closes_the_inner_generator_at_once() -> None:
    failing = Failing()
    stream = RetryingModel(failing).stream(ask())
    assert await anext(stream) == "text"
    await stream.aclose()
    assert failing.closed == 1


async def test_a_model_that_says_nothing_at_all_is_invalid() -> None:
    outcome = await outcome_of(RetryingModel(Failing()), ask("silent"))
    assert type(outcome.error) is ModelInvalidResponse


def test_needs_an_attempt() -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        RetryingModel(Failing(), max_attempts=0)

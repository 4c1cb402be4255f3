import pytest

from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.settle import settle


class Write:
    """Answers with the outcomes given, one after the other."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)

    async def __call__(self) -> object:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_answer_comes_as_it_is() -> None:
    settled = await settle(Write(True), patience_s=1)
    assert (settled.answer, settled.was_uncertain) == (True, False)


async def test_lost_answer_is_repeated_and_remembered() -> None:
    settled = await settle(Write(StoreUncertain(), StoreUnavailable(), False), patience_s=5)
    assert (settled.answer, settled.was_uncertain) == (False, True)


async def test_first_certain_failure_is_final_if_asked_for() -> None:
    write = Write(StoreUnavailable(), True)
    with pytest.raises(StoreUnavailable) as raised:
        await settle(write, patience_s=5, uncertain_only=True)
    assert not isinstance(raised.value, StoreUncertain)
    assert write.outcomes == [True]


async def test_out_of_patience_after_a_lost_answer_stays_uncertain() -> None:
    with pytest.raises(StoreUncertain):
        await settle(Write(StoreUncertain(), StoreUnavailable()), patience_s=0.06)

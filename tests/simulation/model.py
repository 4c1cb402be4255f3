"""A language model whose every answer is another, so that no two can be mixed up unseen."""

import asyncio
from collections.abc import AsyncGenerator
from random import Random

from service.domain.entities import FinishReason, Usage
from service.domain.errors import ModelInvalidResponse, ModelQuotaExhausted, ModelRateLimited, ModelUnavailable
from service.domain.ports import Finish, ModelRequest
from tests.simulation.ledger import Ledger

_ERRORS = (ModelUnavailable, ModelRateLimited, ModelQuotaExhausted, ModelInvalidResponse)
_KINDS = ("whole", "whole", "pieces", "pieces", "pieces", "slow", "slow", "silent", "nothing", "error")
_REASONS = (
    FinishReason.STOP,
    FinishReason.STOP,
    FinishReason.STOP,
    FinishReason.MAX_OUTPUT_TOKENS,
    FinishReason.CONTENT_FILTER,
)


class SimModel:
    """A ChatModel. process: number of the one that calls it."""

    def __init__(self, ledger: Ledger, rng: Random, *, process: int) -> None:
        self._ledger = ledger
        self._rng = rng
        self._process = process

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        """Answer as the seed says: at once, in pieces, slowly, not at all, or with an error anywhere."""
        rng = self._rng
        call = self._ledger.model_called(self._process, request)
        kind = rng.choice(
            ("whole", "whole", "pieces", "pieces", "pieces", "slow", "slow", "silent", "nothing", "error")
        )
        pieces = {"whole": 1, "nothing": 0, "error": rng.randrange(3)}.get(kind, rng.randrange(1, 8))
        longest_s = {"whole": 0.1, "slow": 1.5}.get(kind, 0.5)
        for number in range(pieces):
            await asyncio.sleep(rng.random() * longest_s)
            piece = f"<{call.number}.{number}>"
            call.says(piece)
            yield piece
            call.was_taken(piece)
        if kind == "silent":
            await asyncio.sleep(rng.choice((3.0, 30.0)))
        if kind == "error":
            await asyncio.sleep(rng.random())
            raise rng.choice(_ERRORS)("the model failed")
        await asyncio.sleep(rng.choice((0.0, rng.random() * 0.1)))
        if rng.random() < 0.04:
            return  # cut off without a finish reason
        finish = Finish(rng.choice(_REASONS), "sim", Usage(1, pieces))
        call.finishes(finish.finish_reason)
        yield finish

"""What is said: MT-Bench's questions as messages, and answers of 20 to 400 tokens made of their words."""

import json
import math
import random
from functools import cache
from pathlib import Path

_QUESTIONS = Path(__file__).parents[1] / "tests" / "data" / "mt_bench_questions.jsonl"
_MIN_TOKENS, _MAX_TOKENS = 20, 400
_ANSWERS = 128
_SEED = 7


@cache
def questions() -> tuple[str, ...]:
    """Return the 160 user messages of MT-Bench."""
    lines = _QUESTIONS.read_text(encoding="utf-8").splitlines()
    return tuple(text for line in lines for text in json.loads(line)["turns"])


@cache
def answers() -> tuple[tuple[str, ...], ...]:
    """Return answers as lists of tokens, short ones more often than long ones, the same in every process."""
    chance = random.Random(_SEED)
    return tuple(_tokens(chance, _length(number)) for number in range(_ANSWERS))


def tokens(count: int) -> tuple[str, ...]:
    """Return an answer of exactly so many tokens."""
    return _tokens(random.Random(count), count)


def _length(number: int) -> int:
    """Spread the lengths evenly over the logarithm of the range; the mean is 127."""
    share = (number + 0.5) / _ANSWERS
    return round(_MIN_TOKENS * math.exp(share * math.log(_MAX_TOKENS / _MIN_TOKENS)))


def _tokens(chance: random.Random, count: int) -> tuple[str, ...]:
    """Cut words as tokenizers do: about four characters each, the space in front."""
    found: list[str] = []
    while len(found) < count:
        text = chance.choice(questions())
        for word in text.split():
            spaced = f" {word}"
            found += [spaced[start : start + 6] for start in range(0, len(spaced), 6)]
    return tuple(found[:count])

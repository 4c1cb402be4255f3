"""Words of texts, as searches compare them: in any case, with or without accents, of any script.

A word is a run of letters and digits. Of scripts that put no blanks between words, each character is a word, so that
any piece of such a text is found as a phrase.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Final, NamedTuple


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


# Accents and points of European scripts, Hebrew and Arabic. Marks of other scripts make letters of their own.
_ACCENTS: Final = (
    (0x300, 0x370), (0x483, 0x48A), (0x591, 0x5C8), (0x610, 0x61B), (0x64B, 0x660), (0x670, 0x671), (0x6D6, 0x6EE),
    (0x1AB0, 0x1B00), (0x1DC0, 0x1E00), (0x20D0, 0x2100), (0xFE20, 0xFE30),
)  # fmt: skip
_NO_ACCENTS: Final = {c: None for first, end in _ACCENTS for c in range(first, end) if _is_mark(chr(c))}
# Thai and Lao, Myanmar, Khmer, kana, Han, Hangul.
_ALONE: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")


class Word(NamedTuple):
    """A word as it is compared, and where it stands in its text."""

    text: str
    start: int
    end: int


def words(text: str) -> Iterator[Word]:
    """Yield the words of a text in order."""
    for match in _pattern().finditer(text):
        if word := _fold(match[0]):
            yield Word(word, match.start(), match.end())


def word_texts(text: str) -> list[str]:
    """Return the words of a text in order, as they are compared."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return list(filter(None, map(_fold, _pattern().findall(text))))


def prepare() -> None:
    """Make what the first text that is not ASCII needs: that takes 30 ms."""
    _pattern()


@cache
def _pattern() -> re.Pattern[str]:
    """Return what a word looks like."""
    marks = _marks()
    # What comes first is only for speed: a word of ASCII that nothing else follows.
    return re.compile(
        rf"[a-zA-Z0-9]++(?![^\x00-\x7f])|[{_ALONE}][{marks}]*|[^\W_{_ALONE}](?:[^\W_{_ALONE}]|[{marks}])*"
    )


def _marks() -> str:
    """Return all marks of Unicode as a class of a pattern, in ranges: searched four times as fast as one by one."""
    found = [c for c in range(0x300, 0x1E95B) if _is_mark(chr(c))]
    runs = (list(run) for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0]))
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)


def _fold(word: str) -> str:
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFD", word).casefold().translate(_NO_ACCENTS)

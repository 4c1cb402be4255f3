"""Events of a stream that differ from an earlier one in nothing but their text, read without parsing the rest."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import orjson

_TRIES = 4


class AlikeEvents:
    """Knows the form of a stream's events from one that was parsed.

    Providers send a hundred events that are the same to the byte around a few characters of text. What has the same
    bytes around another JSON string parses to the same, but for that string. Where events differ in more (OpenAI's
    `obfuscation`, a time stamp) none is recognised, and after a few tries no form is looked for any more.
    """

    def __init__(self) -> None:
        self._tries = _TRIES
        self._before = self._after = b""
        # The same of one event as it comes from the network.
        self._read_before = self._read_after = b""

    def text_of(self, read: bytes) -> str:
        """Return the text of bytes that are one whole event of the known form and nothing else; "" of all others."""
        before, after = self._read_before, self._read_after
        if not before or not (read.startswith(before) and read.endswith(after)) or read.count(b"\n") != 2:
            return ""
        try:
            text = orjson.loads(read[len(before) : -len(after)])
        except orjson.JSONDecodeError:
            return ""
        return text if type(text) is str else ""

    def texts_of(self, events: Sequence[bytes], start: int) -> list[str]:
        """Return the texts of the events of the known form that stand at `start` in a row, none of them empty."""
        texts: list[str] = []
        if not self._before:
            return texts
        before, after = self._before, self._after
        string = slice(len(before), -len(after))
        for event in islice(events, start, None):
            if not (event.startswith(before) and event.endswith(after)):
                break
            try:
                text = orjson.loads(event[string])
            except orjson.JSONDecodeError:
                break
            if type(text) is not str or not text:
                break
            texts.append(text)
        return texts

    def learn(self, event: bytes, completion: Any, text: str) -> None:
        """Take the form of an event whose only choice has this text; `completion`, what it parses to, is changed."""
        if self._tries == 0:
            return
        self._tries -= 1
        before, _, after = event.partition(orjson.dumps(text))
        # The same string may stand elsewhere too: with another one here, just the choice's text must be another.
        completion["choices"][0]["delta"]["content"] = other = f"{text}~"
        try:
            is_form = orjson.loads(b"%s%s%s" % (before, orjson.dumps(other), after)) == completion
        except orjson.JSONDecodeError:
            return
        if is_form:
            self._before, self._after = before, after
            self._read_before, self._read_after = b"data: %s" % before, b"%s\n\n" % after

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.llm.alike import AlikeEvents
from service.llm.answer import Answer


def event(content: object, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": None}
    return orjson.dumps({"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": None, **more})


def knowing(raw: bytes) -> AlikeEvents:
    alike, completion = AlikeEvents(), json.loads(raw)
    alike.learn(raw, completion, completion["choices"][0]["delta"]["content"])
    return alike


def test_reads_the_texts_of_events_of_the_same_form() -> None:
    texts = [" two", 'a "quote"', "line\nbreak", "\\", "ключ", "🙂", "\x00"]
    assert knowing(event("one")).texts_of([event("one"), *map(event, texts)], 1) == texts


@pytest.mark.parametrize(
    "other",
    [
        event(""),
        event(None),
        event(7),
        event("two", id="chatcmpl-2"),
        event("two", usage={"prompt_tokens": 1}),
        event("two").replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        event("two") + b" ",
        event('two","content":"three').replace(b"\\", b""),
        event("two").replace(b"two", b"t\xffo"),
        event("two").replace(b"two", b"t\no"),
        event("two").replace(b"two", b"t\\ud83do"),
        b"[DONE]",
        b"",
    ],
)
def test_stops_before_any_other_event(other: bytes) -> None:
    alike = knowing(event("one"))
    assert alike.texts_of([event("one"), other, event("three")], 0) == ["one"]
    assert alike.texts_of([other], 0) == []


_ODD = [
    b'"a"',
    b'"a","b"',
    b'"a',
    b'b"',
    b'"a","b',
    b'c","d"',
    b'"',
    b"",
    b" ",
    b",",
    b'"a",',
    b"[",
    b'"a"]',
    b"null",
    b'"a\\"',
]


@given(st.lists(st.sampled_from(_ODD), min_size=1, max_size=6))
def test_no_text_comes_of_several_events(strings: list[bytes]) -> None:
    events = [event("one").replace(b'"one"', string) for string in strings]
    for raw, text in zip(events, knowing(event("one")).texts_of(events, 0), strict=False):
        assert orjson.loads(raw)["choices"][0]["delta"]["content"] == text


@pytest.mark.parametrize(
    "misleading",
    [
        event("m"),  # the model's name stands before it
        orjson.dumps({"content": "one", **json.loads(event("one"))}),
        event("one").replace(b'"content":"one"', b'"content":"one","content":"one"'),
        event("one").replace(b'"one"', b'"\\u006fne"'),
    ],
)
def test_takes_no_form_from_an_event_that_holds_the_text_twice_or_otherwise_spelled(misleading: bytes) -> None:
    alike = knowing(misleading)
    assert alike.texts_of([misleading, misleading.replace(b"one", b"two")], 0) == []


def test_looks_for_a_form_only_a_few_times() -> None:
    alike = AlikeEvents()
    for misleading in [event("m")] * 10:
        alike.learn(misleading, json.loads(misleading), "m")
    alike.learn(event("one"), json.loads(event("one")), "one")
    assert alike.texts_of([event("one")], 0) == []


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=8), st.integers(0, 40))
def test_answers_are_read_as_if_each_event_was_parsed(texts: list[str], room_bytes: int) -> None:
    stream = b"".join(b"data: %s\n\n" % event(text) for text in texts)
    at_once, one_by_one = (Answer("m", max_event_bytes=10_000, max_answer_bytes=room_bytes) for _ in range(2))
    expected = ""
    for number, text in enumerate(texts):
        # A form that varies is never recognised.
        expected += one_by_one.feed(b"data: %s\n\n" % event(text, id=str(number)))
    assert at_once.feed(stream) == expected
    assert (at_once.fault is None, at_once.progress) == (one_by_one.fault is None, one_by_one.progress)

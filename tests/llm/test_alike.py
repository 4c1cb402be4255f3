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


_TEXTS = [" two", 'a "quote"', "line\nbreak", "\\", "ключ", "🙂", "\x00"]


def test_reads_the_texts_of_events_of_the_same_form() -> None:
    assert knowing(event("one")).texts_of([event("one"), *map(event, _TEXTS)], 1) == _TEXTS


_OTHERS = pytest.mark.parametrize(
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


@_OTHERS
def test_stops_before_any_other_event(other: bytes) -> None:
    alike = knowing(event("one"))
    assert alike.texts_of([event("one"), other, event("three")], 0) == ["one"]
    assert alike.texts_of([other], 0) == []


def read(raw: bytes) -> bytes:
    return b"data: %s\n\n" % raw


@pytest.mark.parametrize("text", _TEXTS)
def test_reads_the_text_of_a_read_that_is_one_event_of_the_form(text: str) -> None:
    assert knowing(event("one")).text_of(read(event(text))) == text


@_OTHERS
def test_reads_none_of_another_event(other: bytes) -> None:
    assert knowing(event("one")).text_of(read(other)) == ""


@pytest.mark.parametrize(
    "whole",
    [
        read(event("two")) * 2,
        read(event("two"))[:-1],
        read(event("two"))[1:],
        b"\n" + read(event("two")),
        b": comment\n" + read(event("two")),
        read(event("two")).replace(b"\n", b"\r\n"),
        read(event("two")).replace(b"two", b"t\ro"),
        read(event("two")).replace(b"data: ", b"data:"),
        read(event("two")).replace(b"data: ", b"event: "),
        read(b""),
        b"",
    ],
)
def test_reads_none_of_anything_but_one_whole_event(whole: bytes) -> None:
    assert knowing(event("one")).text_of(whole) == ""
    assert AlikeEvents().text_of(whole) == ""


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
    at_once, one_by_one, parsed = (Answer("m", max_event_bytes=10_000, max_answer_bytes=room_bytes) for _ in range(3))
    # A form that varies is never recognised.
    expected = "".join(parsed.feed(read(event(text, id=str(number)))) for number, text in enumerate(texts))
    assert at_once.feed(b"".join(read(event(text)) for text in texts)) == expected
    assert "".join(one_by_one.feed(read(event(text))) for text in texts) == expected
    for answer in (at_once, one_by_one):
        assert (answer.fault is None, answer.progress) == (parsed.fault is None, parsed.progress)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=8), st.data())
def test_it_does_not_matter_how_the_bytes_come(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(read(event(text)) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    answer = Answer("m", max_event_bytes=10_000, max_answer_bytes=1000)
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert "".join(answer.feed(piece) for piece in pieces if piece) == "".join(texts)


def test_an_event_of_the_known_form_may_be_too_large() -> None:
    answer = Answer("m", max_event_bytes=len(event("one")) + 6, max_answer_bytes=1000)
    assert answer.feed(read(event("one"))) == "one"
    assert answer.feed(read(event("two"))) == "two"
    assert answer.feed(read(event("x" * 100))) == ""
    assert answer.fault is not None

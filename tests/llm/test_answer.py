import json

import pytest

from service.domain.entities import FinishReason, Usage
from service.domain.errors import ModelError, ModelInvalidResponse, ModelRateLimited, ModelUnavailable
from service.llm.answer import Answer


def new_answer(max_answer_bytes: int = 1000) -> Answer:
    return Answer("asked", max_event_bytes=10_000, max_answer_bytes=max_answer_bytes)


def event(body: object) -> bytes:
    return b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"


def chunk(delta: object = None, finish_reason: object = None, **more: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more})


def fault_of(answer: Answer) -> ModelError:
    with pytest.raises(ModelError) as caught:
        answer.finish()
    return caught.value


def test_joins_the_text_of_one_read() -> None:
    answer = new_answer()
    assert (
        answer.feed(chunk({"role": "assistant", "content": ""}) + chunk({"content": "a"}) + chunk({"content": "b"}))
        == "ab"
    )
    assert not answer.is_over


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.MAX_OUTPUT_TOKENS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("model_length", FinishReason.MAX_OUTPUT_TOKENS),
        ("eos_token", FinishReason.STOP),
    ],
)
def test_finish_reasons(said: str, reason: FinishReason) -> None:
    answer = new_answer()
    answer.feed(chunk({"content": "a"}, said, model="answered"))
    answer.feed(b"")
    finish = answer.finish()
    assert (finish.finish_reason, finish.model) == (reason, "answered")


@pytest.mark.parametrize("said", ["tool_calls", "function_call", "error", "abort", "STOP", 7, ["stop"], {"a": 1}])
def test_an_unknown_finish_reason_is_no_regular_end(said: object) -> None:
    answer = new_answer()
    assert answer.feed(chunk({"content": "a"}, said)) == "a"
    assert isinstance(fault_of(answer), ModelInvalidResponse)


BROKEN = [
    b"{",
    b"<html>",
    b"\xff\xfe",
    b'{"choices": "\xff"}',
    b"[]",
    b"7",
    b"null",
    b'"text"',
    {},
    {"choices": None},
    {"choices": {}},
    {"choices": "x"},
    {"choices": [None]},
    {"choices": ["x"]},
    {"choices": [{"delta": "x"}]},
    {"choices": [{"delta": ["x"]}]},
    {"choices": [{"delta": {"content": 7}}]},
    {"choices": [{"delta": {"content": [{"type": "text", "text": "x"}]}}]},
    {"choices": [{"delta": {"content": {"x": 1}}}]},
    {"object": "list", "data": []},
]


@pytest.mark.parametrize("body", BROKEN, ids=repr)
def test_another_form_is_an_invalid_response(body: object) -> None:
    answer = new_answer()
    assert answer.feed(chunk({"content": "kept"}) + event(body) + chunk({"content": "lost"})) == "kept"
    assert answer.is_over
    assert isinstance(fault_of(answer), ModelInvalidResponse)


HARMLESS = [
    {"choices": []},
    {"choices": [], "usage": None},
    {"choices": [{}]},
    {"choices": [{"delta": None}]},
    {"choices": [{"delta": {}}]},
    {"choices": [{"delta": {"content": None, "tool_calls": None}, "finish_reason": ""}]},
    {"choices": [], "prompt_filter_results": [{}]},
    {"usage": {"prompt_tokens": 1}},
    {"choices": [{"delta": {}, "content_filter_offsets": {}}], "error": None},
]


@pytest.mark.parametrize("text", ["a", "ü", "🙂"])
def test_the_bytes_of_plain_events_count_too(text: str) -> None:
    answer = new_answer(2 * len(text.encode()))
    plain = chunk({"content": text}, model="asked", usage=None)
    assert answer.feed(plain + plain) == text + text
    assert answer.progress == 2
    assert answer.feed(plain) == ""
    assert isinstance(fault_of(answer), ModelInvalidResponse)


@pytest.mark.parametrize("body", HARMLESS, ids=repr)
def test_chunks_without_text_change_nothing(body: object) -> None:
    answer = new_answer()
    assert answer.feed(event(body)) == ""
    assert not answer.is_over
    assert answer.progress == 0


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_is_a_sign_of_life_and_no_text(key: str) -> None:
    answer = new_answer()
    assert answer.feed(chunk({key: "let me see"})) == ""
    assert answer.progress == 1


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(10, 5, 4, 3),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(10, 5)),
        ({"prompt_tokens": -1, "completion_tokens": True, "prompt_tokens_details": [1]}, Usage()),
        ({"prompt_tokens": "10", "completion_tokens": 2**31}, Usage()),
        ({"prompt_tokens": 1.5, "completion_tokens": 2**31 - 1}, Usage(None, 2**31 - 1)),
    ],
)
def test_usage(usage: object, expected: Usage) -> None:
    answer = new_answer()
    answer.feed(chunk({"content": "a"}, "stop") + event({"choices": [], "usage": usage}) + event(b"[DONE]"))
    assert answer.done
    assert answer.finish().usage == expected


def test_an_error_in_the_stream_counts_by_its_code() -> None:
    answer = new_answer()
    assert answer.feed(chunk({"content": "a"}) + event({"error": {"code": "rate_limit_exceeded"}})) == "a"
    assert isinstance(fault_of(answer), ModelRateLimited)


@pytest.mark.parametrize("end", [b"", event(b"[DONE]")])
def test_an_end_without_finish_reason_is_a_cut(end: bytes) -> None:
    answer = new_answer()
    answer.feed(chunk({"content": "a"}))
    answer.feed(end)
    assert answer.is_over
    assert isinstance(fault_of(answer), ModelUnavailable)


def test_a_stream_without_any_event_is_invalid() -> None:
    answer = new_answer()
    answer.feed(b"hello, I am a web server\n\n")
    answer.feed(b"")
    assert isinstance(fault_of(answer), ModelInvalidResponse)


def test_what_breaks_behind_the_finish_reason_changes_nothing() -> None:
    answer = new_answer()
    answer.feed(chunk({"content": "a"}, "stop") + event({"error": {"code": "server_error"}}))
    assert answer.finish().finish_reason is FinishReason.STOP


def test_the_last_event_counts_without_its_empty_line() -> None:
    answer = new_answer()
    answer.feed(chunk({"content": "a"}, "stop").rstrip())
    answer.feed(b"")
    assert answer.finish().finish_reason is FinishReason.STOP


@pytest.mark.parametrize("piece", ["x" * 10, "ü" * 5, "🙂🙂xx"])
def test_an_answer_over_its_limit_is_invalid(piece: str) -> None:
    answer = new_answer(max_answer_bytes=95)
    assert answer.feed(chunk({"content": piece}) * 10) == piece * 9
    assert isinstance(fault_of(answer), ModelInvalidResponse)


def test_an_event_over_its_limit_is_invalid() -> None:
    answer = new_answer()
    assert answer.feed(b"data: " + b"x" * 20_000) == ""
    assert isinstance(fault_of(answer), ModelInvalidResponse)


def test_a_whole_answer() -> None:
    answer = new_answer()
    choice = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    assert answer.feed_whole(json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1}}).encode()) == "hi"
    assert answer.finish().usage == Usage(input_tokens=1)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{"message":{"content":"a"}}]}']
)
def test_a_whole_answer_in_another_form_is_invalid(body: bytes) -> None:
    answer = new_answer()
    answer.feed_whole(body)
    assert isinstance(fault_of(answer), ModelInvalidResponse)

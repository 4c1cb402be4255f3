"""One chat completion: the provider's bytes in, text out, the ending kept."""

from typing import Any

import orjson

from service.domain.entities import FinishReason, Usage
from service.domain.errors import ModelError
from service.domain.ports import Finish
from service.llm.alike import AlikeEvents
from service.llm.faults import cut, event_fault, invalid
from service.llm.sse import EventReader, EventTooLargeError

_MAX_COUNT = 2**31 - 1
_MAX_MODEL_CHARS = 256

# OpenAI's three, and what compatible servers say for the same. Anything else (tool calls, which we never ask for;
# "error", "abort", words of the future) does not tell that the answer is whole, so it is a fault.
_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.MAX_OUTPUT_TOKENS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "eos_token": FinishReason.STOP,  # Text Generation Inference
    "stop_sequence": FinishReason.STOP,  # Text Generation Inference
    "model_length": FinishReason.MAX_OUTPUT_TOKENS,  # Mistral
}


class Answer:
    """Reads one answer, streamed or whole.

    `fault`: why the rest cannot be used; text that came before it was returned. Never set together with a finish
    reason: an answer that is finished stays so, whatever breaks behind it. `is_over`: nothing more is to be read.
    `has_begun`: bytes of a stream have come. `done`: [DONE] was read; only the connection's end is still to come.
    `progress`: grows when the model said something: text, reasoning or a finish reason; not with comments or empty
    deltas, so that keep-alives do not hide a silent model. `secret` is kept out of faults.
    """

    def __init__(self, model: str, *, max_event_bytes: int, max_answer_bytes: int, secret: str = "") -> None:
        self.model = model
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.fault: ModelError | None = None
        self.has_begun = False
        self.done = False
        self.is_over = False
        self.progress = 0
        self._events = EventReader(max_event_bytes)
        self._alike = AlikeEvents()
        self._room_bytes = max_answer_bytes
        self._has_event = False
        self._secret = secret

    def feed(self, data: bytes) -> str:
        """Return the text that these bytes of a stream bring, all of it as one piece. No bytes are the stream's end."""
        if not data:
            return self._end()
        self.has_begun = True
        if text := self._only_text(data):
            return text
        try:
            return self._read_events(self._events.feed(data))
        except EventTooLargeError:
            self.fail(invalid("event too large"))
            return ""

    def feed_whole(self, body: bytes) -> str:
        """Return the text of an answer that is one JSON object."""
        text = self._read(body, "message")
        self.fail(invalid("no finish reason"))
        return text

    def finish(self) -> Finish:
        """Return how an answer that is over was finished, or raise its fault."""
        if self.finish_reason is None:
            raise self.fault or cut()
        return Finish(self.finish_reason, self.model, self.usage)

    def fail(self, fault: ModelError) -> None:
        """End the answer here; the first fault counts, and none after the finish reason."""
        self.is_over = True
        if self.finish_reason is None and self.fault is None:
            self.fault = fault

    def _only_text(self, data: bytes) -> str:
        """Return the text of a read that is one event and needs no parsing, as most are; none of another."""
        if self.done or self.is_over or not self._events.may_be_whole(data):
            return ""
        text = self._alike.text_of(data)
        return text if text and self._take(text, 1) else ""

    def _take(self, text: str, events: int) -> bool:
        """Count the text of so many events, none of them empty; False, and nothing done, if it is too much."""
        size_bytes = _size_bytes(text)
        if self._room_bytes < size_bytes:
            return False
        self._room_bytes -= size_bytes
        self.progress += events
        return True

    def _end(self) -> str:
        text = self._read_events(self._events.flush())
        self.fail(cut() if self._has_event else invalid("no events"))
        return text

    def _read_events(self, events: list[bytes]) -> str:
        texts: list[str] = []
        position = 0
        while position < len(events) and not (self.done or self.is_over):
            if alike := self._alike_texts(events, position):
                texts += alike
                position += len(alike)
            elif events[position] == b"[DONE]":
                self.done = True
                if self.finish_reason is None:
                    self.fail(cut())
            else:
                self._has_event = True
                texts.append(self._read(events[position], "delta"))
                position += 1
        return texts[0] if len(texts) == 1 else "".join(texts)

    def _alike_texts(self, events: list[bytes], position: int) -> list[str]:
        """Return the texts of the next events as far as they need no parsing."""
        texts = self._alike.texts_of(events, position)
        if texts and not self._take("".join(texts), len(texts)):
            return []  # one of them is too much: parsing finds out which
        return texts

    def _read(self, raw: bytes, part: str) -> str:
        try:
            completion = orjson.loads(raw)
            return self._plain_text(raw, completion) or self._text(completion, part)
        except orjson.JSONDecodeError:
            self.fail(invalid("not JSON"))
        except ModelError as fault:
            self.fail(fault)
        return ""

    def _plain_text(self, raw: bytes, completion: Any) -> str:
        """Return the text of an event that brings nothing but text, as most do; none of another event."""
        try:
            (choice,) = completion["choices"]
            text = choice["delta"]["content"]
            if choice["finish_reason"] or completion["model"] != self.model:
                return ""
        except (KeyError, TypeError, ValueError):
            return ""
        # Where usage was asked for, OpenAI says in each event that there is none yet.
        if type(text) is not str or completion.get("usage") is not None or completion.get("error"):
            return ""
        if not text or not self._take(text, 1):
            return ""
        self._alike.learn(raw, completion, text)
        return text

    def _text(self, completion: Any, part: str) -> str:
        if not isinstance(completion, dict):
            raise invalid("not an object")
        if error := completion.get("error"):
            raise event_fault(error, self._secret)
        usage = completion.get("usage")
        if isinstance(usage, dict):
            self.usage = _usage(usage)
        choices = completion.get("choices")
        if not isinstance(choices, list):
            if part == "delta" and self.usage:
                return ""
            raise invalid("no choices")
        if not choices:
            return ""
        choice = choices[0]
        if not isinstance(choice, dict):
            raise invalid("choice is not an object")
        model = completion.get("model")
        if isinstance(model, str) and model:
            self.model = model[:_MAX_MODEL_CHARS]
        text = self._message_text(choice.get(part))
        if finish_reason := choice.get("finish_reason"):
            self._finish(finish_reason)
        return text

    def _message_text(self, message: Any) -> str:
        if message is None:
            return ""
        if not isinstance(message, dict):
            raise invalid("message is not an object")
        text = message.get("content") or message.get("refusal") or ""
        if not isinstance(text, str):
            raise invalid("content is not text")
        if text:
            self.progress += 1
            self._room_bytes -= _size_bytes(text)
            if self._room_bytes < 0:
                raise invalid("answer too large")
        elif message.get("reasoning_content") or message.get("reasoning"):
            self.progress += 1
        return text

    def _finish(self, finish_reason: Any) -> None:
        if finish_reason.__class__ is str and finish_reason in _FINISH_REASONS:
            self.finish_reason = _FINISH_REASONS[finish_reason]
            self.progress += 1
        else:
            self.fail(invalid("unknown finish reason"))


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cached_input_tokens=_detail(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_detail(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _detail(details: Any, name: str) -> int | None:
    return _count(details.get(name)) if isinstance(details, dict) else None


def _count(count: Any) -> int | None:
    """Return a token count; None for anything that is not one: a wrong count does not spoil a right answer."""
    return count if type(count) is int and 0 <= count <= _MAX_COUNT else None

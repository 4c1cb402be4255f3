"""What the fields of requests may hold. Each check raises InvalidField with the field's path."""

import re

from service.domain.entities import ModelSettings
from service.domain.errors import InvalidField, MessageTooLarge

MAX_MESSAGE_BYTES = 262_144
# The view FULL has it twice: with all else that stands in a message, that fits the 4 MiB that gRPC clients take.
MAX_ANSWER_BYTES = 2_000_000
MAX_INSTRUCTIONS_BYTES = 32_768
MAX_TITLE_CHARS = 256
MAX_LABELS = 32
MAX_LABEL_KEY_CHARS = 63
MAX_LABEL_VALUE_CHARS = 256
MAX_PAGE_SIZE = 1000

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
REQUEST_ID = re.compile(r"[!-~]{1,128}")
# Everything but control characters: which others are printable depends on the version of Unicode.
MODEL = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}")


def check_id(field: str, value: str) -> None:
    """An id of a session or turn."""
    if not value:
        raise InvalidField(field, "is required")
    if not ID.fullmatch(value):
        raise InvalidField(field, "must be 1 to 64 characters of [A-Za-z0-9_-], the first one a letter or digit")


def check_request_id(field: str, value: str) -> None:
    """A request id that is not empty."""
    if not REQUEST_ID.fullmatch(value):
        raise InvalidField(field, "must be 1 to 128 printable ASCII characters without blanks")


def check_message(field: str, text: str) -> None:
    """The text of a user message."""
    if not text:
        raise InvalidField(field, "must not be empty")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode()) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(field, f"must be at most {MAX_MESSAGE_BYTES} bytes of UTF-8")


def check_settings(field: str, settings: ModelSettings) -> None:
    """Model settings, of a session or a send."""
    if settings.model is not None and not MODEL.fullmatch(settings.model):
        raise InvalidField(f"{field}.model", "must be 1 to 256 printable characters")
    _check_range(f"{field}.temperature", settings.temperature, 0.0, 2.0)
    _check_range(f"{field}.top_p", settings.top_p, 0.0, 1.0)
    if settings.max_output_tokens is not None and settings.max_output_tokens < 1:
        raise InvalidField(f"{field}.max_output_tokens", "must be at least 1")
    if len(settings.stop_sequences) > 4:
        raise InvalidField(f"{field}.stop_sequences", "must be at most 4")
    for stop in settings.stop_sequences:
        if not 1 <= len(stop) <= 256:
            raise InvalidField(f"{field}.stop_sequences", "must each have 1 to 256 characters")


def _check_range(field: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # also refuses NaN
        raise InvalidField(field, f"must be from {low:g} to {high:g}")


def check_session_settings(title: str, labels: dict[str, str], instructions: str) -> None:
    """The descriptive fields of a session."""
    if len(title) > MAX_TITLE_CHARS:
        raise InvalidField("session.title", f"must be at most {MAX_TITLE_CHARS} characters")
    if len(labels) > MAX_LABELS:
        raise InvalidField("session.labels", f"must be at most {MAX_LABELS}")
    for key, value in labels.items():
        if not 1 <= len(key) <= MAX_LABEL_KEY_CHARS:
            raise InvalidField("session.labels", f"keys must have 1 to {MAX_LABEL_KEY_CHARS} characters")
        if len(value) > MAX_LABEL_VALUE_CHARS:
            raise InvalidField("session.labels", f"values must have at most {MAX_LABEL_VALUE_CHARS} characters")
    if len(instructions.encode()) > MAX_INSTRUCTIONS_BYTES:
        raise InvalidField("session.instructions", f"must be at most {MAX_INSTRUCTIONS_BYTES} bytes of UTF-8")

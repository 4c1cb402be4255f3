"""What a provider's failure means: statuses, error objects and broken connections as ModelErrors.

Messages are ours and constant but for the HTTP status and the provider's error code; the provider's own text may
quote the prompt or the key and goes to the debug log only, cut short.
"""

import logging
import math
import re
import time
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz

import aiohttp
import orjson

from service.domain.errors import (
    ContextTooLong,
    ModelAuthenticationFailed,
    ModelError,
    ModelInvalidResponse,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelTimeout,
    ModelUnavailable,
)

_log = logging.getLogger(__name__)

_MAX_LOGGED_CHARS = 500
_MAX_DELAY_S = 86_400.0

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")

_MESSAGES: dict[type[ModelError], str] = {
    ModelAuthenticationFailed: "the model provider did not accept this service's key",
    ModelQuotaExhausted: "this service's quota at the model provider is used up",
    ModelRateLimited: "the model provider limits this service's rate",
    ContextTooLong: "message and context are too long for the model",
    ModelRefusedRequest: "the model provider refused the request",
    ModelUnavailable: "the model provider has a fault",
    ModelInvalidResponse: "the model provider's answer is not its documented answer",
}

# Codes and types that say more than the status they come with.
_TELLING: dict[str, type[ModelError]] = {
    "insufficient_quota": ModelQuotaExhausted,
    "billing_hard_limit_reached": ModelQuotaExhausted,
    "billing_not_active": ModelQuotaExhausted,
    "context_length_exceeded": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,  # llama.cpp
    "invalid_api_key": ModelAuthenticationFailed,
}

# Codes and types that count where there is no status: inside a stream that began with 200.
_GENERAL: dict[str, type[ModelError]] = {
    "rate_limit_exceeded": ModelRateLimited,
    "rate_limit_error": ModelRateLimited,
    "authentication_error": ModelAuthenticationFailed,
    "permission_error": ModelAuthenticationFailed,
    "content_filter": ModelRefusedRequest,
    "invalid_request_error": ModelRefusedRequest,
    "model_not_found": ModelRefusedRequest,
}

# What the SDK retries (408, 409, 5xx) is a fault that may pass; any other 4xx stands.
_STATUSES: dict[int, type[ModelError]] = {
    401: ModelAuthenticationFailed,
    402: ModelQuotaExhausted,
    403: ModelAuthenticationFailed,
    407: ModelUnavailable,
    408: ModelUnavailable,
    409: ModelUnavailable,
    413: ContextTooLong,
    425: ModelUnavailable,
    429: ModelRateLimited,
}

# Servers without a code of their own for it (vLLM) say it in words.
_CONTEXT_WORDS = re.compile(r"context (length|window|size)", re.IGNORECASE)


def status_fault(status: int, headers: Mapping[str, str], body: bytes, secret: str = "") -> ModelError:
    """Return the error for an answer that is not a 2xx. `secret` is kept out of the error and the log."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    log_text(f"status {status}", body, secret)
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    return _fault(status, error, retry_after_s(headers), secret)


def event_fault(error: object, secret: str = "") -> ModelError:
    """Return the error for an `error` object inside a 200. `secret` is kept out of it."""
    code = error.get("code") if isinstance(error, dict) else None
    return _fault(_status_in(code), error, None, secret)


def connection_fault(error: Exception) -> ModelError:
    """Return the error for a connection that could not be made, or broke before the answer began."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return ModelUnavailable("the model provider cannot be reached")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return invalid("not HTTP")
    return ModelUnavailable("the connection to the model provider broke")


def cut() -> ModelUnavailable:
    """Return the error for an answer that ends without a finish reason, in good order or not."""
    return ModelUnavailable("the model provider broke off its answer")


def silence(limit_s: float) -> ModelTimeout:
    """Return the error for a provider that said nothing for this long."""
    return ModelTimeout(f"the model provider was silent for {limit_s:g} s", {"limitSeconds": f"{limit_s:g}"})


def invalid(what: str) -> ModelInvalidResponse:
    """Return the error for an answer that breaks the documented form. `what` is one of our own constants."""
    return ModelInvalidResponse(f"{_MESSAGES[ModelInvalidResponse]} ({what})", {"detail": what})


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the delay that the headers ask for, 0 to one day; None where they name none that can be read.

    Knows `retry-after-ms` and `retry-after` in seconds, fractions too, or as a date.
    """
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            delay_s = float(headers[name]) / per_second
        except (KeyError, ValueError):
            continue
        return None if math.isnan(delay_s) or delay_s < 0 else min(delay_s, _MAX_DELAY_S)
    try:
        date = parsedate_tz(headers["retry-after"])
        return None if date is None else min(max(0.0, mktime_tz(date) - time.time()), _MAX_DELAY_S)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def public_code(code: str, secret: str = "") -> str:
    """Return a provider's error code if callers may see it, else nothing."""
    is_safe = _CODE.fullmatch(code) and not (secret and secret in code)
    return code if is_safe else ""


def log_text(what: str, text: bytes, secret: str = "") -> None:
    """Write the start of a provider's own text to the debug log, without the secret."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    shown = text[: 4 * _MAX_LOGGED_CHARS].decode(errors="replace")
    if secret:
        shown = shown.replace(secret, "***")
    _log.debug("model provider: %s: %s", what, shown[:_MAX_LOGGED_CHARS])


def _fault(status: int | None, error: object, delay_s: float | None, secret: str) -> ModelError:
    fields = error if isinstance(error, dict) else {}
    names = [name for name in (fields.get("code"), fields.get("type")) if isinstance(name, str)]
    cls = _class_of(status, names, str(fields.get("message", "")))
    code = next(filter(None, (public_code(name, secret) for name in names)), "")
    shown = ", ".join(part for part in (str(status or ""), code) if part)
    metadata = {"providerStatus": str(status or ""), "providerCode": code}
    return cls(
        f"{_MESSAGES[cls]} ({shown})" if shown else _MESSAGES[cls],
        {key: value for key, value in metadata.items() if value},
        retry_delay_s=delay_s if cls.default_retry_delay_s is not None else None,
    )


def _class_of(status: int | None, names: list[str], message: str) -> type[ModelError]:
    tables = (_TELLING,) if status else (_TELLING, _GENERAL)
    for table in tables:
        for name in names:
            if name in table:
                return table[name]
    if status is None:
        return ModelUnavailable
    if status == 400 and _CONTEXT_WORDS.search(message):
        return ContextTooLong
    if status in _STATUSES:
        return _STATUSES[status]
    if status >= 500:
        return ModelUnavailable
    return ModelRefusedRequest if status >= 400 else ModelInvalidResponse


def _status_in(code: object) -> int | None:
    """Return a status that stands in the place of an error code, as vLLM and OpenRouter write it."""
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdecimal():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else None

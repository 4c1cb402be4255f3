"""Page tokens: where a list goes on, bound to whom and what it was made for. Opaque to callers, base64url."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from service.domain.errors import InvalidField


def write_token(bound: Sequence[object], place: Sequence[object]) -> str:
    """Return the token of a place. bound: all that has to be the same when it comes back."""
    fields = json.dumps([_digest(bound), *place], separators=(",", ":"))
    return urlsafe_b64encode(fields.encode()).decode().rstrip("=")


def read_token(token: str, bound: Sequence[object], types: Sequence[type]) -> list[Any]:
    """Return the place of a token, values of these types; raises InvalidField."""
    try:
        fields = json.loads(urlsafe_b64decode((token + "=" * (-len(token) % 4)).encode("ascii")))
        digest: str
        place: list[Any]
        digest, *place = fields
    except (ValueError, TypeError, RecursionError) as exc:
        raise malformed() from exc
    if [type(value) for value in place] != list(types):
        raise malformed()
    if digest != _digest(bound):
        raise InvalidField("page_token", "belongs to another query or caller")
    return place


def malformed() -> InvalidField:
    """Return the error of a token that was not made here."""
    return InvalidField("page_token", "is not a page token of this service")


def _digest(bound: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(bound).encode()).hexdigest()[:32]

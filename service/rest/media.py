"""What the headers about content mean: `Content-Type`, `Content-Encoding` and `Accept`."""

import re
from collections.abc import Mapping

from service.rest.refusal import unsupported_media_type

_JSON_TYPE = re.compile(rb"application/(?:json|[a-z0-9.!#$&^_-]+\+json)")
_ZERO_WEIGHT = re.compile(rb"q\s*=\s*0(?:\.0*)?")


def check_not_encoded(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a compressed body: it could expand to anything."""
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise unsupported_media_type("the body must not be compressed")


def check_json_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that says that it is not JSON in UTF-8.

    A form above all: browsers send one to other origins without asking them first.
    """
    content_type = headers.get(b"content-type")
    if content_type is None:
        return
    kind, *parameters = (part.strip() for part in content_type.lower().split(b";"))
    charsets = [value for name, _, value in (part.partition(b"=") for part in parameters) if name.strip() == b"charset"]
    if not _JSON_TYPE.fullmatch(kind) or any(charset.strip(b' "') != b"utf-8" for charset in charsets):
        raise unsupported_media_type("the body must be JSON in UTF-8, with Content-Type: application/json")


def accepts_events(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a client asks for Server-Sent Events; what else it would take does not matter."""
    for media_range in headers.get(b"accept", b"").lower().split(b","):
        kind, *parameters = (part.strip() for part in media_range.split(b";"))
        if kind == b"text/event-stream":
            return not any(_ZERO_WEIGHT.fullmatch(parameter) for parameter in parameters)
    return False

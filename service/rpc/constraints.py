"""What fields of requests may hold, as JSON Schema, for the OpenAPI document: what domain/checks.py holds them to.

JSON Schema cannot count bytes; where a limit is one of bytes, it stands here as one of characters.
"""

from typing import Any, Final

from chatsession.v1 import chat_session_pb2 as pb

from service.domain import checks

_ID: Final = {"pattern": f"^{checks.ID.pattern}$"}
_NOT_NEGATIVE: Final = {"minimum": 0}
_ORDER_OF_HISTORY: Final = {"pattern": "^(seq( asc| desc)?)?$"}

_BY_MESSAGE: Final[dict[str, dict[str, Any]]] = {
    "ModelSettings": {
        "model": {"pattern": f"^{checks.MODEL.pattern}$"},
        "temperature": {"minimum": 0, "maximum": 2},
        "top_p": {"minimum": 0, "maximum": 1},
        "max_output_tokens": {"minimum": 1},
        "stop_sequences": {"maxItems": 4, "items": {"type": "string", "minLength": 1, "maxLength": 256}},
    },
    "Session": {
        "title": {"maxLength": checks.MAX_TITLE_CHARS},
        "labels": {
            "maxProperties": checks.MAX_LABELS,
            "propertyNames": {"minLength": 1, "maxLength": checks.MAX_LABEL_KEY_CHARS},
            "additionalProperties": {"type": "string", "maxLength": checks.MAX_LABEL_VALUE_CHARS},
        },
        "instructions": {"maxLength": checks.MAX_INSTRUCTIONS_BYTES},
    },
    "GetSessionRequest": {"session_id": _ID},
    "UpdateSessionRequest": {"session_id": _ID},
    "DeleteSessionRequest": {"session_id": _ID},
    "SendMessageRequest": {
        "session_id": _ID,
        "message": {"minLength": 1, "maxLength": checks.MAX_MESSAGE_BYTES},
        "request_id": {"pattern": f"^({checks.REQUEST_ID.pattern})?$"},
        "expected_last_seq": _NOT_NEGATIVE,
    },
    "GetTurnRequest": {"session_id": _ID, "turn_id": _ID},
    "AttachTurnRequest": {"session_id": _ID, "turn_id": _ID, "after_cursor": {"format": "cursor"}},
    "CancelTurnRequest": {"session_id": _ID, "turn_id": _ID},
    "GetHistoryRequest": {
        "session_id": _ID,
        "page_size": _NOT_NEGATIVE,
        "after_seq": _NOT_NEGATIVE,
        "page_token": {"format": "page-token"},
        "order_by": _ORDER_OF_HISTORY,
    },
}

CONSTRAINTS: Final = {
    f"{pb.DESCRIPTOR.package}.{message}.{field}": keywords
    for message, fields in _BY_MESSAGE.items()
    for field, keywords in fields.items()
}

"""What fields of requests may hold, as JSON Schema, for the OpenAPI document: what the domain holds them to.

JSON Schema cannot count bytes; where a limit is one of bytes, it stands here as one of characters.
"""

from typing import Any, Final

from chatsession.v1 import chat_session_pb2 as pb

from service.domain import checks, filters, searching
from service.domain.exported import CONTENT_TYPE

_ID: Final = {"pattern": f"^{checks.ID.pattern}$"}
_ID_OR_NONE: Final = {"pattern": f"^({checks.ID.pattern})?$"}
_REQUEST_ID: Final = {"pattern": f"^({checks.REQUEST_ID.pattern})?$"}
_NOT_NEGATIVE: Final = {"minimum": 0}
_PAGE_TOKEN: Final = {"format": "page-token"}
_ORDER_OF_HISTORY: Final = {"pattern": "^(seq( asc| desc)?)?$"}
_ORDER_OF_SESSIONS: Final = {"pattern": "^((update_time|create_time)( asc| desc)?)?$"}
# A millisecond and more, up to 95 of the 100 years.
_LIFE: Final = {"pattern": r"^(0\.[0-9]{0,2}[1-9][0-9]{0,6}|([1-9][0-9]{0,8}|[12][0-9]{9})(\.[0-9]{1,9})?)s$"}
_PATH: Final = (
    r"(title|labels|instructions|settings(\.(model|temperature|topP|maxOutputTokens|seed|stopSequences))?"
    "|expireTime|ttl|idleTtl)"
)

_BY_MESSAGE: Final[dict[str, dict[str, Any]]] = {
    "ModelSettings": {
        "model": {"pattern": f"^{checks.MODEL.pattern}$"},
        "temperature": {"minimum": 0, "maximum": 2},
        "top_p": {"minimum": 0, "maximum": 1},
        "max_output_tokens": {"minimum": 1},
        "stop_sequences": {"maxItems": 4, "items": {"type": "string", "minLength": 1, "maxLength": 256}},
    },
    "Session": {
        "session_id": {"format": "id-in-path"},
        "expire_time": {"examples": ["2099-01-02T03:04:05Z"]},
        "ttl": _LIFE,
        "idle_ttl": _LIFE,
        "etag": {"format": "etag"},
        "title": {"maxLength": checks.MAX_TITLE_CHARS},
        "labels": {
            "maxProperties": checks.MAX_LABELS,
            "propertyNames": {"minLength": 1, "maxLength": checks.MAX_LABEL_KEY_CHARS},
            "additionalProperties": {"type": "string", "maxLength": checks.MAX_LABEL_VALUE_CHARS},
        },
        "instructions": {"maxLength": checks.MAX_INSTRUCTIONS_BYTES},
    },
    "CreateSessionRequest": {"session_id": _ID_OR_NONE, "request_id": _REQUEST_ID},
    "GetSessionRequest": {"session_id": _ID},
    "ListSessionsRequest": {
        "page_size": _NOT_NEGATIVE,
        "page_token": _PAGE_TOKEN,
        "filter": {"maxLength": filters.MAX_CHARS, "format": "filter"},
        "order_by": _ORDER_OF_SESSIONS,
    },
    "UpdateSessionRequest": {"session_id": _ID, "update_mask": {"pattern": rf"^(\*|{_PATH}(,{_PATH})*)?$"}},
    "DeleteSessionRequest": {"session_id": _ID, "etag": {"format": "etag"}},
    "SendMessageRequest": {
        "session_id": _ID,
        "message": {"minLength": 1, "maxLength": checks.MAX_MESSAGE_BYTES},
        "request_id": _REQUEST_ID,
        "expected_last_seq": _NOT_NEGATIVE,
    },
    "GetTurnRequest": {"session_id": _ID, "turn_id": _ID},
    "AttachTurnRequest": {"session_id": _ID, "turn_id": _ID, "after_cursor": {"format": "cursor"}},
    "CancelTurnRequest": {"session_id": _ID, "turn_id": _ID},
    "GetHistoryRequest": {
        "session_id": _ID,
        "page_size": _NOT_NEGATIVE,
        "after_seq": _NOT_NEGATIVE,
        "page_token": _PAGE_TOKEN,
        "order_by": _ORDER_OF_HISTORY,
    },
    "UndeleteSessionRequest": {"session_id": _ID},
    "SearchMessagesRequest": {
        "query": {"minLength": 1, "maxLength": searching.MAX_QUERY_CHARS, "format": "words"},
        "session_id": _ID_OR_NONE,
        "page_size": _NOT_NEGATIVE,
        "page_token": _PAGE_TOKEN,
    },
    "ExportSessionRequest": {"session_id": _ID},
    "ImportSessionRequest": {"session_id": _ID_OR_NONE, "file": {"contentMediaType": CONTENT_TYPE}},
    "GetErasureRequest": {"erasure_id": _ID},
}

CONSTRAINTS: Final = {
    f"{pb.DESCRIPTOR.package}.{message}.{field}": keywords
    for message, fields in _BY_MESSAGE.items()
    for field, keywords in fields.items()
}

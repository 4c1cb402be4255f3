"""The recommended gRPC service config, for any language.

Methods that only read, and CancelTurn, which may be repeated without harm, are retried by gRPC itself on UNAVAILABLE.
SendMessage and StreamMessage are left out: gRPC cannot know whether a send carries a request id. `AsyncChatClient`
always sends one and repeats sends, CreateSession, UndeleteSession and EraseOwner itself, by what the error says.
UpdateSession, DeleteSession and ImportSession are left out too: a repeat of one that was applied fails on its etag, on
the missing session, or on the one that is there.

Calls are spread over all addresses of the target, because one connection reaches one worker only.
Source: https://github.com/grpc/grpc/blob/master/doc/service_config.md
"""

import json

_SERVICE = "chatsession.v1.ChatSessionService"
_RETRIED = (
    "GetSession", "ListSessions", "GetTurn", "AttachTurn", "CancelTurn", "GetHistory", "SearchMessages",
    "ExportSession", "GetErasure",
)  # fmt: skip

SERVICE_CONFIG: str = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": _SERVICE, "method": method} for method in _RETRIED],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # Stops retries while most calls fail.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

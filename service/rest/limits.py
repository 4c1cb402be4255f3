"""Every bound of the shim, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one request may cost. What goes beyond is refused, never cut.

    max_url_bytes: path and query together, as sent (414).
    max_metadata_bytes: request metadata counted as gRPC does, 32 bytes an entry on top (431).
    max_body_bytes: request body as sent (413).
    max_upload_bytes: request body of a method that takes it in pieces (413).
    max_message_bytes: the request message that comes of it, in protobuf's form (413).
    max_response_bytes: the body of a unary response; a larger one is not sent (500).
    max_query_parameters: parameters of one query string (400).
    max_json_values: values in a JSON body, whatever their depth (400).
    max_json_escapes: characters in a JSON body that are written with a backslash (400).
    max_json_depth: messages within messages, in a body (400).
    max_parameter_depth: names in a dotted parameter (400).
    body_timeout_s: from the head of a request to the end of its body; of an upload, from piece to piece (408).
    unary_timeout_s, stream_timeout_s: deadline of an RPC whose caller asked for none; an upload counts as a stream.
    max_timeout_s: longest deadline that a caller gets.
    deadline_slack_s: how long after the deadline the shim waits for the RPC's own answer to it.
    heartbeat_s: silence after which a stream's headers, and in SSE a comment, are sent.
    write_timeout_s: how long a client may leave a write waiting.
    drain_timeout_s: how long an unread body is read and dropped behind an early answer.
    max_drain_bytes: how much of it.
    """

    max_url_bytes: int = 16 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_body_bytes: int = 2 * 1024 * 1024
    max_upload_bytes: int = 64 * 1024 * 1024
    max_message_bytes: int = 4 * 1024 * 1024
    max_response_bytes: int = 64 * 1024 * 1024
    max_query_parameters: int = 1000
    max_json_values: int = 20_000
    max_json_escapes: int = 300_000
    max_json_depth: int = 100
    max_parameter_depth: int = 32
    body_timeout_s: float = 30.0
    unary_timeout_s: float = 120.0
    stream_timeout_s: float = 600.0
    max_timeout_s: float = 3600.0
    deadline_slack_s: float = 0.5
    heartbeat_s: float = 15.0
    write_timeout_s: float = 30.0
    drain_timeout_s: float = 2.0
    max_drain_bytes: int = 16 * 1024 * 1024

"""Between protobuf messages and entities. Fields are refused here by their path in the request."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from service.domain import entities
from service.domain.entities import FinishReason, ModelSettings, OnBusy, OnDisconnect, Principal, TurnState
from service.domain.errors import InvalidField
from service.domain.history import HistoryPage, HistoryQuery
from service.domain.live import Accepted, Delta, Ended, Event, LiveTurn, Snapshot
from service.domain.sending import SendCommand
from service.domain.watching import error_of
from service.rpc.status import to_status

T = TypeVar("T")

_ON_BUSY = {pb.ON_BUSY_UNSPECIFIED: OnBusy.QUEUE, **{pb.OnBusy.Value(v): v for v in OnBusy}}
_ON_DISCONNECT = {
    pb.ON_DISCONNECT_UNSPECIFIED: OnDisconnect.CONTINUE,
    **{pb.OnDisconnect.Value(v): v for v in OnDisconnect},
}
_STATES: dict[TurnState, Any] = {state: pb.Turn.State.Value(state) for state in TurnState}
_FINISH_REASONS: dict[FinishReason, Any] = {reason: pb.Turn.FinishReason.Value(reason) for reason in FinishReason}
_SETTINGS_FIELDS = ("model", "temperature", "top_p", "max_output_tokens", "seed")
_VIEWS = {pb.VIEW_UNSPECIFIED: False, pb.BASIC: False, pb.FULL: True}
_NO_SETTINGS = ModelSettings()
_IDEMPOTENCY_KEY = "idempotency-key"

Metadata = Sequence[tuple[str, str | bytes]]


# Requests


def wants_full(view: int) -> bool:
    """Whether a view asks for everything."""
    return _known("view", pb.View, view, _VIEWS)


def settings_from(settings_pb: pb.ModelSettings) -> ModelSettings:
    """Read model settings; their ranges are the domain's to check."""
    values = {name: getattr(settings_pb, name) for name in _SETTINGS_FIELDS if settings_pb.HasField(name)}
    return ModelSettings(**values, stop_sequences=tuple(settings_pb.stop_sequences))


def command_from(request: pb.SendMessageRequest, metadata: Metadata, principal: Principal) -> SendCommand:
    """Read a send, its request id also from the metadata `idempotency-key`."""
    wants_full(request.view)
    return SendCommand(
        principal=principal,
        session_id=request.session_id,
        message=request.message,
        request_id=request_id_from(request.request_id, metadata),
        settings=settings_from(request.settings) if request.HasField("settings") else _NO_SETTINGS,
        expected_last_seq=request.expected_last_seq if request.HasField("expected_last_seq") else None,
        on_busy=_known("on_busy", pb.OnBusy, request.on_busy, _ON_BUSY),
        on_disconnect=_known("on_disconnect", pb.OnDisconnect, request.on_disconnect, _ON_DISCONNECT),
    )


def request_id_from(field_value: str, metadata: Metadata) -> str:
    """Read a request id, also from the metadata `idempotency-key`; raises InvalidField if they differ."""
    keys = {str(value) for key, value in metadata if key == _IDEMPOTENCY_KEY}
    if not keys:
        return field_value
    if len(keys) > 1:
        raise InvalidField("request_id", f"the metadata {_IDEMPOTENCY_KEY} has two values")
    key = keys.pop()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key:
        raise InvalidField("request_id", f"the metadata {_IDEMPOTENCY_KEY} is empty")
    if field_value and field_value != key:
        raise InvalidField("request_id", f"differs from the metadata {_IDEMPOTENCY_KEY}")
    return key


def history_query_from(request: pb.GetHistoryRequest) -> HistoryQuery:
    """Read what is asked of a history."""
    return HistoryQuery(request.page_size, request.after_seq, request.page_token, request.order_by)


def _known(field: str, enum: Any, number: Any, table: Mapping[Any, T]) -> T:
    try:
        return table[number]
    except KeyError:
        # In the words of the REST shim, which refuses such a number in a query itself.
        raise InvalidField(field, f"must be one of {', '.join(enum.keys())}") from None


# Answers


def timestamp_to(time: datetime) -> Timestamp:
    """Return a time as protobuf has it."""
    timestamp = Timestamp()
    timestamp.FromMilliseconds(round((time - _EPOCH).total_seconds() * 1000))
    return timestamp


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def settings_to(settings: ModelSettings) -> pb.ModelSettings:
    """Return model settings, what is not set left out."""
    values = {name: value for name in _SETTINGS_FIELDS if (value := getattr(settings, name)) is not None}
    return pb.ModelSettings(**values, stop_sequences=settings.stop_sequences)


def message_to(message: entities.Message, *, is_full: bool) -> pb.Message:
    """Return one message of a history."""
    message_pb = pb.Message(role=message.role.value, content=message.content)
    if is_full:
        message_pb.seq = message.seq
        message_pb.turn_id = message.turn_id
        message_pb.create_time.CopyFrom(timestamp_to(message.create_time))
        message_pb.turn_state = _STATES[message.turn_state]
    return message_pb


def history_to(page: HistoryPage, *, is_full: bool) -> pb.GetHistoryResponse:
    """Return one page of a history."""
    response = pb.GetHistoryResponse(
        session_id=page.session.session_id,
        history=[message_to(message, is_full=is_full) for message in page.messages],
        next_page_token=page.next_page_token,
    )
    if is_full:
        response.last_seq = page.last_seq
        if page.session.running is not None:
            response.active_turn_id = page.session.running.turn.turn_id
    return response


def turn_to(session_id: str, turn: entities.Turn, text: str) -> pb.Turn:
    """Return a turn; `text` is its answer so far, or the whole of it."""
    ending = turn.ending
    turn_pb = pb.Turn(
        turn_id=turn.turn_id,
        session_id=session_id,
        state=_STATES[ending.state if ending else TurnState.RUNNING],
        first_seq=turn.first_seq,
        last_seq=turn.last_seq,
        response=text,
        settings=settings_to(turn.settings),
        attempt=turn.attempt,
        request_id=turn.request_id,
        create_time=timestamp_to(turn.create_time),
        settings_version=turn.settings_version,
    )
    if ending is not None:
        turn_pb.end_time.CopyFrom(timestamp_to(ending.end_time))
        if ending.finish_reason is not None:
            turn_pb.finish_reason = _FINISH_REASONS[ending.finish_reason]
        if ending.failure is not None and (error := error_of(turn)) is not None:
            turn_pb.error.CopyFrom(to_status(error))
        if ending.usage is not None:
            turn_pb.usage.CopyFrom(usage_to(ending.usage))
        if ending.model is not None:
            turn_pb.model = ending.model
    return turn_pb


def live_to(session_id: str, live: LiveTurn) -> pb.Turn:
    """Return a turn as it stands in this process."""
    return turn_to(session_id, live.turn, live.text)


def usage_to(usage: entities.Usage) -> pb.Usage:
    """Return token counts, what was not reported left out."""
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )


def event_to(session_id: str, event: Event) -> pb.TurnEvent:
    """Return one event of a stream."""
    event_pb = pb.TurnEvent()
    event_pb.cursor = event.cursor.encode()
    match event.what:
        case Delta() as delta:
            event_pb.delta.text = delta.text
        case Snapshot(text, attempt):
            event_pb.snapshot.text = text
            event_pb.snapshot.attempt = attempt
        case Accepted(turn):
            event_pb.accepted.turn.CopyFrom(turn_to(session_id, turn, ""))
        case Ended(turn):
            event_pb.ended.turn.CopyFrom(turn_to(session_id, turn, turn.ending.text if turn.ending else ""))
        case _:
            event_pb.heartbeat.SetInParent()
    return event_pb

"""A status becomes a typed error, whatever is in it."""

import json

import chatsession
import grpc
import pytest
from chatsession.errors import ChatSessionError
from chatsession.retry import RetryPolicy, may_repeat
from chatsession.status import from_status
from chatsession.v1.chat_session_pb2 import DESCRIPTOR
from chatsession.v1.error_reason_pb2 import ErrorReason
from google.rpc import status_pb2

from .scripted import Refusal

# Those from 100 on are of REST only.
REASONS = [name for name, number in ErrorReason.items() if 0 < number < 100]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def test_carries_everything_the_server_said() -> None:
    metadata = {
        "requestId": "q1",
        "committed": "false",
        "turnId": "t1",
        "activeTurnId": "t0",
        "lastSeq": "12",
        "retry": "SAME_REQUEST",
    }
    error = from_status(
        Refusal(grpc.StatusCode.ABORTED, "SESSION_BUSY", "busy", metadata, 1.5, {"message": "empty"}).status()
    )
    assert isinstance(error, chatsession.SessionBusy)
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.ABORTED, "SESSION_BUSY", "busy")
    assert (error.call_id, error.committed, error.turn_id, error.active_turn_id) == ("q1", False, "t1", "t0")
    assert (error.last_seq, error.retry, error.retry_delay_s) == (12, chatsession.Retry.SAME_REQUEST, 1.5)
    assert error.field_violations == {"message": "empty"}
    assert error.metadata == metadata
    assert str(error) == "SESSION_BUSY: busy"


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_contract_has_a_class(reason: str) -> None:
    error = from_status(Refusal(grpc.StatusCode.UNKNOWN, reason).status())
    assert type(error) is not ChatSessionError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (UNAVAILABLE, chatsession.Unavailable),
        (grpc.StatusCode.NOT_FOUND, chatsession.NotFound),
        (grpc.StatusCode.PERMISSION_DENIED, ChatSessionError),
    ],
)
def test_an_unknown_reason_goes_by_its_code(code: grpc.StatusCode, kind: type[ChatSessionError]) -> None:
    error = from_status(Refusal(code, "REASON_OF_LATER").status())
    assert type(error) is kind
    assert error.reason == "REASON_OF_LATER"


def test_unreadable_and_unknown_details_are_skipped() -> None:
    status = status_pb2.Status(code=14)
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    status.details.add(type_url="type.googleapis.com/of.Later", value=b"\xff")
    assert type(from_status(status)) is chatsession.Unavailable


@pytest.mark.parametrize("trailer", [b"\xff", status_pb2.Status(code=5, message="other").SerializeToString()])
def test_details_that_do_not_fit_the_call_are_skipped(trailer: bytes) -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", trailer))
    error = chatsession.from_rpc_error(grpc.aio.AioRpcError(UNAVAILABLE, grpc.aio.Metadata(), metadata, "gone", ""))
    assert type(error) is chatsession.Unavailable
    assert error.message == "gone"


@pytest.mark.parametrize("metadata", [{"retry": "LATER"}, {"lastSeq": "x"}, {"committed": "maybe"}])
def test_metadata_of_later_is_none(metadata: dict[str, str]) -> None:
    error = from_status(Refusal(UNAVAILABLE, "SHUTTING_DOWN", metadata=metadata).status())
    assert (error.retry, error.last_seq, error.committed) == (None, None, None)
    assert may_repeat(error)


@pytest.mark.parametrize("failures", range(1, 12))
def test_backoff_grows_is_bounded_and_honours_the_server(failures: int) -> None:
    policy = RetryPolicy(initial_backoff_s=1, max_backoff_s=8)
    own_s, asked_s = policy.delay_s(failures, None), policy.delay_s(failures, 20)
    bound_s = min(8, 2 ** (failures - 1))
    assert bound_s / 2 <= own_s <= bound_s
    assert 20 <= asked_s <= 25


def test_the_service_config_names_methods_that_exist_and_no_send() -> None:
    config = json.loads(chatsession.SERVICE_CONFIG)
    names = {name["method"] for entry in config["methodConfig"] for name in entry["name"]}
    methods = set(DESCRIPTOR.services_by_name["ChatSessionService"].methods_by_name)
    assert names < methods
    assert methods - names == {
        "CreateSession", "UpdateSession", "DeleteSession", "UndeleteSession", "ImportSession", "EraseOwner",
        "SendMessage", "StreamMessage",
    }  # fmt: skip

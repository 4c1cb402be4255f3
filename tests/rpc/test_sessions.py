"""What is read of the sessions in requests."""

import pytest
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from service.domain.errors import InvalidField
from service.rpc.sessions import fields_from, update_from


@pytest.mark.parametrize("mask", [None, FieldMask()])
def test_without_a_mask_or_with_an_empty_one_all_counts_that_is_set(mask: FieldMask | None) -> None:
    session = pb.Session(title="t", settings=pb.ModelSettings(seed=1), idle_ttl=Duration(seconds=1))
    request = pb.UpdateSessionRequest(session_id="a", session=session, update_mask=mask)
    assert sorted(update_from(request).paths) == ["idle_ttl", "settings.seed", "title"]


@pytest.mark.parametrize("field", ["ttl", "idle_ttl"])
@pytest.mark.parametrize(
    "duration", [Duration(seconds=1, nanos=-1), Duration(seconds=-1, nanos=1), Duration(nanos=2**30)]
)
def test_a_duration_that_is_none_is_refused(field: str, duration: Duration) -> None:
    with pytest.raises(InvalidField) as caught:
        fields_from(pb.Session(**{field: duration}))
    assert (caught.value.field, "not a duration" in str(caught.value)) == (f"session.{field}", True)

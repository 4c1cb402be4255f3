"""What the OpenAPI document is told of fields; that it is true is shown by tests/e2e/test_schemathesis.py."""

import pytest
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.descriptor_pool import Default

from service.rpc.constraints import CONSTRAINTS
from service.rpc.servicer import UNSERVED


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_is_of_a_field(name: str) -> None:
    assert Default().FindFieldByName(name).full_name == name


@pytest.mark.parametrize("name", sorted(UNSERVED))
def test_what_is_not_served_is_in_the_contract(name: str) -> None:
    methods = {method.full_name for method in pb.DESCRIPTOR.services_by_name["ChatSessionService"].methods}
    assert name in methods or Default().FindFieldByName(name).full_name == name

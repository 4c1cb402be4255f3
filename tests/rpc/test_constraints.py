"""What the OpenAPI document is told of fields; that it is true is shown by tests/e2e/test_schemathesis.py."""

import pytest
from google.protobuf.descriptor_pool import Default

from service.rpc.constraints import CONSTRAINTS


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_is_of_a_field(name: str) -> None:
    assert Default().FindFieldByName(name).full_name == name

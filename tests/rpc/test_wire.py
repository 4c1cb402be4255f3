import pytest
from chatsession.v1 import chat_session_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from service.rpc.wire import find_bad_text


def field(number: int, payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


SEND = pb.SendMessageRequest.DESCRIPTOR


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        (field(2, b"\xff"), "message"),
        (field(1, b"ok") + field(3, b"\xc3"), "request_id"),
        (b"\x20\x05" + field(7, field(1, b"\xff")), "settings.model"),
        (field(7, field(6, b"fine") + field(6, b"\xed\xa0\x80")), "settings.stop_sequences"),
        (field(1, b"ok") + field(2, b"fine"), ""),
        (b"\x0a\x7f", ""),
        (b"\x0b", ""),
        (b"\xff" * 12, ""),
    ],
)
def test_finds_the_field_that_is_not_text(wire: bytes, path: str) -> None:
    assert find_bad_text(SEND, wire) == path


@given(st.binary(max_size=300))
def test_never_fails_on_any_bytes(wire: bytes) -> None:
    assert isinstance(find_bad_text(SEND, wire), str)


def test_nesting_is_bounded() -> None:
    wire = b""
    for _ in range(30):
        wire = field(2, wire[:100])
    assert isinstance(find_bad_text(pb.CreateSessionRequest.DESCRIPTOR, wire), str)

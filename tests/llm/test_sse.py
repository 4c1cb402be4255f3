import pytest

from service.llm.sse import EventReader, EventTooLargeError

STREAMS = [
    (b"data: a\n\n", [b"a"]),
    (b"data:a\n\n", [b"a"]),
    (b"data:  a\n\n", [b" a"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    (b"data: a\ndata: b\n\n", [b"a\nb"]),
    (b"data: a\r\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
    (b": comment\n\ndata: a\n: other\n\n", [b"a"]),
    (b"event: x\nid: 7\nretry: 1\ndata: a\n\n", [b"a"]),
    (b"data\n\ndata:\n\n\n\n", []),
    (b"\n\n\n", []),
    ("data: grüße 🙂\n\n".encode(), ["grüße 🙂".encode()]),
    (b"database: a\n\n", []),
]


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_reads_events_however_the_bytes_are_cut(stream: bytes, events: list[bytes]) -> None:
    for size in range(1, len(stream) + 1):
        reader = EventReader(1000)
        got = [e for start in range(0, len(stream), size) for e in reader.feed(stream[start : start + size])]
        assert got + reader.flush() == events, f"in pieces of {size}"


def test_gives_an_event_as_soon_as_it_is_whole() -> None:
    reader = EventReader(1000)
    assert reader.feed(b"data: a\r\n\r") == [b"a"]
    assert reader.feed(b"\ndata: b\n\n") == [b"b"]


def test_the_end_of_the_stream_ends_the_last_event() -> None:
    reader = EventReader(1000)
    assert reader.feed(b"data: a\n\ndata: b") == [b"a"]
    assert reader.flush() == [b"b"]
    assert reader.flush() == []


@pytest.mark.parametrize("cut", [1, 7, 64, 5000])
@pytest.mark.parametrize("stream", [b"data: " + b"x" * 2000, b"data: " + b"x" * 2000 + b"\n\n", b"data: xxxx\n" * 300])
def test_refuses_what_is_larger_than_its_limit(stream: bytes, cut: int) -> None:
    reader = EventReader(1000)
    pieces = [stream[start : start + cut] for start in range(0, len(stream), cut)]
    with pytest.raises(EventTooLargeError):
        all(reader.feed(piece) == [] for piece in pieces)

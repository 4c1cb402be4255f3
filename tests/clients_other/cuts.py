"""An answer whose connections are cut on the way."""

MODEL = "demo/slow:chunks=20,delay_ms=50"
ANSWER = "".join(f"word{number} " for number in range(1, 21))


class Cuts:
    """Says where to cut: in place of `accepted`, then in place of two of the deltas, each once.

    target: where the service is, behind the proxy that does the cutting.
    """

    def __init__(self) -> None:
        self.target = ""
        self._marks = [MODEL.encode(), b"word5 ", b"word12 "]

    def is_next_in(self, piece: bytes) -> bool:
        """Whether the connection is to be cut instead of passing this piece on."""
        if not self._marks or self._marks[0] not in piece:
            return False
        del self._marks[0]
        return True

    def assert_survived(self, output: str) -> None:
        """Fail unless all cuts were made, and the whole answer was printed, once and in one go."""
        assert not self._marks, "not all cuts were made"
        assert ANSWER in output
        assert output.count("word5 ") == output.count("word12 ") == 1
        assert "[COMPLETED]" in output

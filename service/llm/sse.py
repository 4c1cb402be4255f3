"""Server-sent events: bytes as they come from the network in, the data of whole events out."""


class EventTooLargeError(Exception):
    """A line, or the data of one event, is larger than its limit."""


class EventReader:
    """Cuts a byte stream into events.

    Knows all three line ends, comments and data of several lines; other fields than `data` are passed over.
    Source: WHATWG HTML, section 9.2.6.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._unfinished: list[bytes] = []
        self._unfinished_bytes = 0
        self._after_cr = False
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that these bytes complete, none of it empty; raises EventTooLargeError."""
        if self._is_between_events() and (plain := self._plain_events(data)) is not None:
            return plain  # as they mostly come
        events: list[bytes] = []
        if not self._is_between_events() and (end := data.find(b"\n\n") + 2) > 1:
            events = self._feed_lines(data[:end])
            data = data[end:]
        if self._is_between_events():
            end = data.rfind(b"\n\n") + 2
            if (plain := self._plain_events(data[:end])) is not None:
                events += plain
                data = data[end:]
        return events + self._feed_lines(data)

    def may_be_whole(self, data: bytes) -> bool:
        """Whether bytes begin with an event, as no other waits for its rest, and are not too many for one."""
        return len(data) <= self._max_event_bytes and self._is_between_events()

    def _is_between_events(self) -> bool:
        return not (self._unfinished or self._data or self._after_cr)

    def _plain_events(self, data: bytes) -> list[bytes] | None:
        """Return the events of bytes that are nothing but whole `data: ` lines, as providers send them; else None."""
        if not (data.startswith(b"data: ") and data.endswith(b"\n\n")):
            return None
        if b"\r" in data or len(data) > self._max_event_bytes:
            return None
        events = data[6:-2].split(b"\n\ndata: ")
        return events if data.count(b"\n") == 2 * len(events) and all(events) else None

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        if self._unfinished:
            first = lines[0]
            if len(lines) > 1 or data[-1:] in b"\r\n":
                self._check(self._unfinished_bytes + len(first))
                lines[0] = b"".join([*self._unfinished, first])
                self._unfinished.clear()
                self._unfinished_bytes = 0
        if data[-1:] not in b"\r\n":
            last = lines.pop()
            self._unfinished.append(last)
            self._unfinished_bytes += len(last)
            self._check(self._unfinished_bytes)
        return self._events(lines)

    def flush(self) -> list[bytes]:
        """Return the event that the end of the stream leaves open: some servers end without the last empty line."""
        line = b"".join(self._unfinished)
        self._unfinished.clear()
        return self._events([line, b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._data_bytes += len(value)
                self._check(self._data_bytes)
                self._data.append(value)
            elif not line and self._data:
                event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                if event:
                    events.append(event)
                self._data.clear()
                self._data_bytes = 0
        return events

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_event_bytes:
            raise EventTooLargeError

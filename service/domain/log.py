"""What the use cases ask of a log: an event and its fields, never message content."""

from typing import Any, Protocol


class Log(Protocol):
    """A structured logger."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Of use to developers only."""

    def info(self, event: str, **fields: Any) -> Any:
        """A regular event."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Something went wrong outside, and was handled."""

    def error(self, event: str, **fields: Any) -> Any:
        """Somebody should look."""

    def exception(self, event: str, **fields: Any) -> Any:
        """An unexpected exception, with its traceback."""

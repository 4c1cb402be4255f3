"""What a handler may use of its call: the part of `grpc.aio.ServicerContext` that an in-process call offers too."""

from collections.abc import Sequence
from typing import NoReturn, Protocol

import grpc

Metadata = Sequence[tuple[str, str | bytes]]


class CallContext(Protocol):
    """One call, from the side that serves it."""

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata) -> NoReturn:
        """End the call with a status, by raising."""

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Send the initial metadata now."""

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Set what goes with the status."""

    def invocation_metadata(self) -> Metadata | None:
        """Return the caller's metadata."""

    def time_remaining(self) -> float | None:
        """Return the seconds that the caller leaves, None for no limit."""

    def peer(self) -> str:
        """Return the caller's address."""

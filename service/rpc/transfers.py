"""Between the contract's files and erasures and the domain's."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from chatsession.v1 import chat_session_pb2 as pb

from service.domain.entities import Erasure, ErasureState
from service.domain.errors import InvalidField
from service.domain.exported import CONTENT_TYPE
from service.rpc.convert import timestamp_to

_STATES: dict[ErasureState, Any] = {state: pb.Erasure.State.Value(state) for state in ErasureState}


class UploadedFile:
    """A file that comes in requests, of which the first says what it is."""

    def __init__(self, requests: AsyncIterator[pb.ImportSessionRequest]) -> None:
        self._requests = requests
        self._first: bytes = b""

    async def session_id(self) -> str:
        """Read the first request and return the id that it asks for; raises InvalidField."""
        request = await anext(self._requests, pb.ImportSessionRequest())
        # A page of another origin may send a file of no type, or of a few others, without having asked.
        if request.file.content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise InvalidField("file.content_type", f"must be {CONTENT_TYPE} in the first request")
        self._first = request.file.data
        return request.session_id

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of the file; raises InvalidField."""
        yield self._first
        async for request in self._requests:
            if request.session_id:
                raise InvalidField("session_id", "can only be in the first request")
            yield request.file.data


def erasure_to(erasure: Erasure) -> pb.Erasure:
    """Return how far an erasure has come."""
    return pb.Erasure(
        erasure_id=erasure.erasure_id,
        state=_STATES[erasure.state],
        sessions_total=erasure.sessions_total,
        sessions_erased=erasure.sessions_erased,
        turns_erased=erasure.turns_erased,
        create_time=timestamp_to(erasure.create_time),
        end_time=timestamp_to(erasure.end_time) if erasure.end_time else None,
    )

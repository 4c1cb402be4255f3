"""Writes a session as a file (docs/sessions.md, Export and import)."""

import hashlib
from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from service.domain.access import look
from service.domain.entities import Principal, Session, Turn
from service.domain.errors import InternalError
from service.domain.exported import End, end_line, session_line, turn_line
from service.domain.ports import TurnStore

_PIECE_BYTES = 64 * 1024
# Each may have half a MiB, and more.
_BATCH_TURNS = 10


class Exporter:
    """Exports sessions for their owners."""

    def __init__(self, store: TurnStore, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def export(self, principal: Principal, session_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the file in pieces of about 64 KiB: the session as it is now, with the turns that have ended.

        Raises InvalidField, SessionNotFound, SessionExpired; the first also when the session is removed on the way.
        """
        session = await look(self._store, principal, session_id, self._now())
        digest, turns, waiting = hashlib.sha256(), 0, bytearray()
        line = session_line(session, session.last_seq)
        digest.update(line)
        waiting += line
        async for turn in self._turns(session):
            line = turn_line(turn)
            digest.update(line)
            waiting += line
            turns += 1
            while len(waiting) >= _PIECE_BYTES:
                yield bytes(waiting[:_PIECE_BYTES])
                del waiting[:_PIECE_BYTES]
        yield bytes(waiting) + end_line(End(turns, digest.hexdigest()))

    async def _turns(self, session: Session) -> AsyncGenerator[Turn, None]:
        """Yield the ended turns up to the session's last_seq, with none missing."""
        newest = session.active.turn if session.active and session.active.turn.ending else None
        archived_to = newest.first_seq - 1 if newest else session.last_seq
        next_seq = 1
        while next_seq <= archived_to:
            turns = await self._store.turns(
                session.key, first_seq_from=next_seq, first_seq_to=archived_to, limit=_BATCH_TURNS
            )
            for turn in turns:
                if turn.first_seq != next_seq:
                    break
                yield turn
                next_seq = turn.last_seq + 1
            if not turns or turns[-1].last_seq + 1 != next_seq:
                # Either it has been removed by now, or a turn has been lost.
                await look(self._store, session.owner, session.session_id, self._now())
                raise InternalError
        if newest:
            yield newest

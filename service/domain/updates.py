"""What an update mask does to a session (AIP-134)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from service.domain.entities import ModelSettings, Session
from service.domain.errors import InvalidField
from service.domain.fields import SessionFields
from service.domain.lifetime import Lifetimes

_SETTINGS = {f"settings.{f.name}": f.name for f in fields(ModelSettings)}
_PLAIN = ("title", "labels", "instructions", "settings")
_EXPIRATION = ("expire_time", "ttl")
_ALL = (*_PLAIN, "expire_time", "idle_ttl")
_NOT_TO_CHANGE = frozenset(
    ("session_id", "last_seq", "active_turn_id", "create_time", "update_time", "delete_time", "purge_time", "etag",
     "settings_version")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """New values, and the paths of those that count. etag empty = whatever the current one is."""

    fields: SessionFields
    paths: Sequence[str]
    etag: str = ""

    def apply(self, session: Session, lifetimes: Lifetimes, now: datetime) -> Session:
        """Return the session with the new values; raises InvalidField."""
        self.fields.check()
        changes: dict[str, Any] = {}
        settings = session.settings
        for path in self._all_paths():
            if path == "settings":
                settings = self.fields.settings
            elif path in _SETTINGS:
                settings = replace(settings, **{_SETTINGS[path]: getattr(self.fields.settings, _SETTINGS[path])})
            elif path in _PLAIN:
                changes[path] = getattr(self.fields, path)
            elif path in _EXPIRATION:
                changes["expire_time"] = lifetimes.end(self.fields.expire_time, self.fields.ttl, now)
            else:
                changes["idle_ttl"], changes["idle_since"] = lifetimes.idle(self.fields.idle_ttl), now
        return replace(session, settings=settings, **changes)

    def _all_paths(self) -> Sequence[str]:
        if "*" in self.paths:
            if len(self.paths) > 1:
                raise InvalidField("update_mask", "`*` must stand alone")
            return _ALL
        for path in self.paths:
            if path in _NOT_TO_CHANGE:
                raise InvalidField("update_mask", f"{path} cannot be changed")
            if path not in _SETTINGS and path not in _ALL and path not in _EXPIRATION:
                raise InvalidField("update_mask", f"{path!r} is not a field of a session that can be changed")
        return self.paths

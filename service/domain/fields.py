"""What a caller may set of a session, as it was asked for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from service.domain.checks import check_session_settings, check_settings
from service.domain.entities import ModelSettings

_NO_SETTINGS = ModelSettings()


@dataclass(frozen=True, slots=True)
class SessionFields:
    """Fields of a session; empty or None = not set. At most one of expire_time and ttl."""

    title: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    instructions: str = ""
    settings: ModelSettings = _NO_SETTINGS
    expire_time: datetime | None = None
    ttl: timedelta | None = None
    idle_ttl: timedelta | None = None

    def check(self) -> None:
        """Raise InvalidField for the first field that cannot be right, but for times: see Lifetimes."""
        check_session_settings(self.title, dict(self.labels), self.instructions)
        check_settings("session.settings", self.settings)

    def fingerprint(self, request_id: str) -> str:
        """Return what tells a repeat of a creation from another one. What is not set leaves no trace in it."""
        asked = {**asdict(self), "settings": {k: v for k, v in asdict(self.settings).items() if v not in (None, ())}}
        asked = {name: value for name, value in asked.items() if value not in ("", {}, None)}
        text = json.dumps({"request_id": request_id, **asked}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

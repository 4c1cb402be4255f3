"""HTTP/JSON in front of gRPC services, from their `google.api.http` options (see `app`).

Nothing here knows any particular service.
"""

from service.rest.app import RestApp
from service.rest.exchange import Exchange
from service.rest.invoke import Call, CallFailed, Invoker
from service.rest.limits import Limits
from service.rest.listener import Listener, ListenerLimits

__all__ = ["Call", "CallFailed", "Exchange", "Invoker", "Limits", "Listener", "ListenerLimits", "RestApp"]

"""What all commands have in common: options, the client, JSON."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from chatsession.blocking import ChatClient
from chatsession.cli.failure import INTERRUPTED, describe, exit_code
from chatsession.cli.screen import Screen
from chatsession.errors import ChatSessionError
from chatsession.retry import RetryPolicy

# One second for a server that may not be there at all; a quarter of a minute to see an answer through a restart.
_QUICK = RetryPolicy(max_attempts=4)
_PATIENT = RetryPolicy(max_attempts=8)
_NOTE_EVERY_S = 10.0

Server = Annotated[
    str, typer.Option(envvar="CHATSESSION_SERVER", metavar="HOST:PORT", help="Where the service listens for gRPC.")
]
Tls = Annotated[bool, typer.Option("--tls", metavar="", envvar="CHATSESSION_TLS", help="Connect with TLS.")]
Json = Annotated[bool, typer.Option("--json", metavar="", help="JSON, as the REST interface answers it.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.")]

DEFAULT_SERVER = "127.0.0.1:50051"


@contextmanager
def client_of(
    screen: Screen,
    server: str,
    tls: bool,
    *,
    is_send: bool = False,
    interrupted: str = "a message that was accepted is saved, and its answer goes on",
) -> Iterator[ChatClient]:
    """A client whose repeats are told, and whose errors end the command with one line.

    interrupted: what is so after an interrupt.
    """
    log = logging.getLogger("chatsession")
    log.setLevel(logging.INFO)
    log.addHandler(handler := _Notes(screen))
    try:
        with ChatClient(server, secure=tls, retry=_PATIENT if is_send else _QUICK) as client:
            yield client
    except ChatSessionError as error:
        repeat = f"To repeat it without sending it twice: --request-id {error.request_id}" if is_send else ""
        screen.error(describe(error, server, how_to_repeat=repeat))
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as interrupt:
        screen.note(f"interrupted; {interrupted}" if interrupted else "interrupted")
        raise typer.Exit(INTERRUPTED) from interrupt
    finally:
        log.removeHandler(handler)


class _Notes(logging.Handler):
    """Says that a call is being repeated; once in a while is enough."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.created >= self._quiet_until:
            self._quiet_until = record.created + _NOTE_EVERY_S
            self._screen.note("(no answer from the service, trying again…)")


def write_json(value: dict[str, Any]) -> None:
    """Write a JSON object as a line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)

"""The commands that manage sessions."""

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chatsession.blocking import ChatClient
from chatsession.cli.failure import EXIT_CODES
from chatsession.cli.screen import Screen
from chatsession.cli.shared import DEFAULT_SERVER, Json, Server, SessionId, Tls, client_of, write_json
from chatsession.v1.chat_session_pb2 import Erasure, MessageMatch, Session

Limit = Annotated[int, typer.Option(min=0, metavar="NUMBER", help="At most this many; 0 means all.")]
_POLL_S = 0.3

admin = typer.Typer(help="What concerns all sessions of the caller.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    commands: dict[str, Callable[..., None]] = {
        "list": list_, "show": show, "delete": delete, "undelete": undelete, "export": export, "import": import_,
        "search": search,
    }  # fmt: skip
    for name, command in commands.items():
        app.command(name, epilog=EXIT_CODES)(command)
    app.add_typer(admin, name="admin")


def list_(
    filter: Annotated[
        str, typer.Option(metavar="FILTER", help="""Which, such as 'labels.team = "a" AND title:"trip"'.""")
    ] = "",
    order_by: Annotated[str, typer.Option(metavar="ORDER", help="`update_time` or `create_time`, maybe `desc`.")] = "",
    deleted: Annotated[bool, typer.Option("--deleted", metavar="", help="Also deleted ones.")] = False,
    limit: Limit = 50,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """List sessions, the last updated first."""
    screen = Screen()
    with client_of(screen, server, tls, interrupted="") as client:
        found = client.list_sessions(filter=filter, order_by=order_by, show_deleted=deleted, page_size=min(limit, 1000))
        sessions = list(_at_most(limit, found))
        if as_json:
            write_json({"sessions": [MessageToDict(session) for session in sessions]})
            return
        screen.table(
            ["SESSION", "UPDATED", "MESSAGES", "STATE", "TITLE"],
            ([s.session_id, _time(s.update_time), str(s.last_seq), _state(s), s.title] for s in sessions),
        )


def show(session: SessionId, as_json: Json = False, server: Server = DEFAULT_SERVER, tls: Tls = False) -> None:
    """Show a session and its settings."""
    screen = Screen()
    with client_of(screen, server, tls, interrupted="") as client:
        _write_session(screen, client.get_session(session), as_json=as_json)


def delete(
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Ids of the sessions.")],
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Delete sessions; for a while, `undelete` brings them back."""
    screen = Screen()
    with client_of(screen, server, tls, interrupted="") as client:
        for session_id in sessions:
            deleted = client.delete_session(session_id)
            if as_json:
                write_json(MessageToDict(deleted))
            else:
                until = _time(deleted.purge_time)
                screen.note(f"{session_id} is deleted; until {until}: chatsession undelete {session_id}")


def undelete(session: SessionId, as_json: Json = False, server: Server = DEFAULT_SERVER, tls: Tls = False) -> None:
    """Bring a deleted session back."""
    screen = Screen()
    with client_of(screen, server, tls, interrupted="") as client:
        undeleted = client.undelete_session(session)
        if as_json:
            write_json(MessageToDict(undeleted))
        else:
            screen.note(f"{session} is back")


def export(
    session: SessionId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; without it, stdout.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Write a session as a file, from which `import` makes it again, here or elsewhere."""
    screen = Screen()
    with client_of(screen, server, tls, interrupted="nothing is exported") as client:
        pieces = client.export_session(session)
        first = next(pieces)  # an error leaves no file behind
        with _written_whole(screen, output) if output else nullcontext(sys.stdout.buffer) as file:
            size = sum(file.write(piece) for piece in itertools.chain([first], pieces))
            file.flush()
        if output:
            screen.note(f"{size} bytes in {output}")


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file that `export` wrote; - reads stdin.")],
    session: Annotated[
        str, typer.Option("--session", metavar="ID", help="Id for the session; without it, the one in the file.")
    ] = "",
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Make a session of a file and write its id; it appears whole or not at all."""
    screen = Screen()
    with (
        client_of(screen, server, tls, interrupted="the session may be there") as client,
        nullcontext(sys.stdin.buffer) if file == "-" else _opened(screen, file) as content,
    ):
        imported = client.import_session(content, session)
        if as_json:
            write_json(MessageToDict(imported))
        else:
            print(imported.session_id)


def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS...", help="What a message must have; '\"a phrase\"' in double quotes.")
    ],
    session: Annotated[str, typer.Option("--session", metavar="ID", help="Only in this session.")] = "",
    limit: Limit = 20,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Find messages, newest first."""
    screen = Screen()
    with client_of(screen, server, tls, interrupted="") as client:
        found = client.search_messages(" ".join(words), session_id=session, page_size=min(limit, 100))
        matches = list(_at_most(limit, found))
        if as_json:
            write_json({"matches": [MessageToDict(match) for match in matches]})
            return
        screen.table(
            ["SESSION", "SEQ", "ROLE", "TIME", "TEXT"],
            ([m.session_id, str(m.seq), m.role, _time(m.create_time), m.snippet] for m in matches),
            marks=[_spans(match) for match in matches],
        )


@admin.command(epilog=EXIT_CODES)
def erase(
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Erase all sessions of the caller, for good, and write the receipt.

    What goes on without this command can be watched with it again.
    """
    screen = Screen()
    if not yes:
        if not screen.is_interactive:
            screen.error("this erases all sessions for good; --yes says that it is meant")
            raise typer.Exit(2)
        typer.confirm("Erase ALL your sessions for good?", abort=True)
    with client_of(
        screen, server, tls, interrupted="the erasing goes on; to watch it: chatsession admin erase"
    ) as client:
        _write_receipt(_watched(client, screen, client.erase_owner()), as_json=as_json)


@admin.command(epilog=EXIT_CODES)
def erasure(
    erasure_id: Annotated[str, typer.Argument(metavar="ERASURE", help="Id of the erasure.")],
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Write how far an erasure has come: in the end, its receipt."""
    with client_of(Screen(), server, tls, interrupted="") as client:
        _write_receipt(client.get_erasure(erasure_id), as_json=as_json)


def _watched(client: ChatClient, screen: Screen, erasure: Erasure) -> Erasure:
    """Show how an erasure goes on until it is done."""
    columns = TextColumn("erasing"), BarColumn(), MofNCompleteColumn(), TextColumn("sessions"), TimeElapsedColumn()
    with Progress(*columns, console=screen.notes, disable=not screen.notes.is_terminal) as progress:
        task = progress.add_task("", total=erasure.sessions_total)
        while erasure.state != Erasure.DONE:
            time.sleep(_POLL_S)
            erasure = client.get_erasure(erasure.erasure_id)
            progress.update(task, completed=erasure.sessions_erased, total=erasure.sessions_total)
    return erasure


def _write_receipt(erasure: Erasure, *, as_json: bool) -> None:
    if as_json:
        write_json(MessageToDict(erasure, always_print_fields_with_no_presence=True))
        return
    of_all = "" if erasure.state == Erasure.DONE else f" of {erasure.sessions_total}"
    print(f"{erasure.sessions_erased}{of_all} sessions and {erasure.turns_erased} turns erased ({erasure.erasure_id})")


def _write_session(screen: Screen, session: Session, *, as_json: bool) -> None:
    shown = MessageToDict(session)
    if as_json:
        write_json(shown)
        return
    screen.table(["FIELD", "VALUE"], _fields(shown))


def _fields(values: dict[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{under}{name}.")
        else:
            yield under + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _spans(match: MessageMatch) -> Sequence[tuple[int, int]]:
    return [(span.start, span.end) for span in match.spans]


def _state(session: Session) -> str:
    if session.HasField("delete_time"):
        return "deleted"
    return "running" if session.HasField("active_turn_id") else ""


def _time(time: Timestamp) -> str:
    """A time to the second, in UTC."""
    return time.ToJsonString()[:19] + "Z"


def _at_most(limit: int, items: Iterable[Any]) -> Iterable[Any]:
    return itertools.islice(items, limit) if limit else items


def _opened(screen: Screen, name: str) -> IO[bytes]:
    try:
        return Path(name).open("rb")
    except OSError as error:
        screen.error(f"cannot read {name}: {error.strerror}")
        raise typer.Exit(2) from error


@contextmanager
def _written_whole(screen: Screen, path: Path) -> Iterator[IO[bytes]]:
    """A file that appears when all of it is written."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        screen.error(f"cannot write {path}: {error.strerror}")
        raise typer.Exit(2) from error
    finally:
        part.unlink(missing_ok=True)

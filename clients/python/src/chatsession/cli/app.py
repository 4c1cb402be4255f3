"""The commands."""

import os
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict

from chatsession.blocking import BlockingAnswerStream
from chatsession.cli import manage
from chatsession.cli.failure import EXIT_CODES
from chatsession.cli.screen import Screen
from chatsession.cli.shared import DEFAULT_SERVER, Json, Server, SessionId, Tls, client_of, write_json
from chatsession.cli.talk import Talk, show_text
from chatsession.events import Accepted, Ended, Replaced, Text
from chatsession.v1.chat_session_pb2 import ModelSettings, Turn
from chatsession.version import __version__


class OnBusy(StrEnum):
    """What to do when another turn runs in the session."""

    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


Timeout = Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="Longest wait for one answer.")]
Model = Annotated[str | None, typer.Option(help="Name of the model, as the provider knows it.")]
app = typer.Typer(
    name="chatsession",
    help="Talk to a chat session service.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


manage.add_to(app)


def run() -> None:
    """Run the command line; whatever goes wrong is one line on stderr and an exit code."""
    try:
        app(prog_name="chatsession")
    except Exception as error:
        if os.environ.get("CHATSESSION_DEBUG"):
            raise
        Screen().error(f"{type(error).__name__}: {error}. Set CHATSESSION_DEBUG=1 to see where.")
        sys.exit(1)


def _version(is_asked: bool) -> None:
    if is_asked:
        print(f"chatsession {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    pass


@app.command(epilog=EXIT_CODES)
def chat(
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Go on with this session; without it, a new one.")
    ] = None,
    model: Model = None,
    markdown: Annotated[bool, typer.Option("--markdown", metavar="", help="Render whole answers as Markdown.")] = False,
    timeout: Timeout = 600.0,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Talk in the terminal. Ctrl-C stops an answer; Ctrl-C or Ctrl-D at the prompt leaves.

    From a pipe, every line is a message.
    """
    screen = Screen()
    session_id = session or ""
    if not session:
        with client_of(screen, server, tls) as client:
            session_id = client.create_session().session_id
    with client_of(screen, server, tls, is_send=True) as client:
        settings = None if model is None else ModelSettings(model=model)
        talk = Talk(
            client,
            screen,
            target=server,
            session_id=session_id,
            settings=settings,
            is_markdown=markdown,
            timeout_s=timeout,
        )
        try:
            if session:
                talk.resume()
            code = talk.run()
        finally:
            screen.note(f"session {session_id}, resume with: {_resume(session_id, model, server, tls)}")
        raise typer.Exit(code)


@app.command(epilog=EXIT_CODES)
def send(
    session: SessionId,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="The message; - reads it from stdin.")],
    stream: Annotated[
        bool, typer.Option("--stream", metavar="", help="Write the answer as it comes; with --json, events.")
    ] = False,
    as_json: Json = False,
    model: Model = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Makes the send happen once, however often it is repeated.")
    ] = None,
    on_busy: Annotated[OnBusy, typer.Option(help="What to do when another turn runs.")] = OnBusy.QUEUE,
    timeout: Timeout = 600.0,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Send one message and write the answer."""
    text = sys.stdin.read().removesuffix("\n") if message == "-" else message
    arguments: dict[str, Any] = {
        "request_id": request_id,
        "on_busy": None if on_busy is OnBusy.QUEUE else on_busy.name,
        "settings": None if model is None else ModelSettings(model=model),
        "timeout_s": timeout,
    }
    screen = Screen()
    with client_of(screen, server, tls, is_send=True) as client:
        if stream:
            with client.stream(session, text, **arguments) as answer_stream:
                turn = _write_events(answer_stream) if as_json else show_text(answer_stream, screen)
        else:
            answer = client.send(session, text, **arguments)
            turn = answer.turn
            if as_json:
                write_json({"response": answer.text, "turn": MessageToDict(turn)})
            else:
                screen.text(answer.text)
        screen.end_line()
        if turn is not None and turn.state in (Turn.INCOMPLETE, Turn.CANCELLED):
            screen.note("(incomplete)" if turn.state == Turn.INCOMPLETE else "(cancelled)")


@app.command(epilog=EXIT_CODES)
def history(
    session: SessionId,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Write the messages of a session, oldest first."""
    screen = Screen()
    with client_of(screen, server, tls) as client:
        messages = client.history(session)
        if as_json:
            write_json({"sessionId": session, "history": [MessageToDict(message) for message in messages]})
            return
        for message in messages:
            screen.out.print(f"{message.role}:", style="bold", markup=False)
            screen.text(message.content)
            screen.end_line()


@app.command(epilog=EXIT_CODES)
def new(
    session: Annotated[
        str, typer.Option("--session", metavar="ID", help="Id for the session; without it, the server chooses.")
    ] = "",
    title: Annotated[str, typer.Option(help="A name for people.")] = "",
    instructions: Annotated[str, typer.Option(help="System prompt.")] = "",
    model: Model = None,
    as_json: Json = False,
    server: Server = DEFAULT_SERVER,
    tls: Tls = False,
) -> None:
    """Create a session and write its id."""
    with client_of(Screen(), server, tls) as client:
        settings = None if model is None else ModelSettings(model=model)
        created = client.create_session(session, title=title, instructions=instructions, settings=settings)
        if as_json:
            write_json(MessageToDict(created))
        else:
            print(created.session_id)


def _write_events(stream: BlockingAnswerStream) -> Turn | None:
    """Write a JSON object a line: accepted, text, replaced, ended; each with its cursor."""
    turn = None
    for event in stream.events():
        match event:
            case Accepted():
                shown: dict[str, Any] = {"accepted": MessageToDict(event.turn)}
            case Text():
                shown = {"text": event.text}
            case Replaced():
                shown = {"replaced": event.text}
            case Ended():
                turn = event.turn
                shown = {"ended": MessageToDict(turn)}
        write_json(shown | {"cursor": event.cursor})
    return turn


def _resume(session_id: str, model: str | None, server: str, tls: bool) -> str:
    options = f" --model {model}" if model else ""
    options += f" --server {server}" if server != os.environ.get("CHATSESSION_SERVER", DEFAULT_SERVER) else ""
    options += " --tls" if tls and "CHATSESSION_TLS" not in os.environ else ""
    return f"chatsession chat --session {session_id}{options}"

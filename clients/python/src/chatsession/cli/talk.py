"""The conversation of `chatsession chat`."""

import sys
from collections.abc import Iterator
from contextlib import suppress

from rich.markdown import Markdown

from chatsession.blocking import BlockingAnswerStream, ChatClient
from chatsession.cli.failure import describe, exit_code, is_uncertain
from chatsession.cli.screen import Screen
from chatsession.errors import ChatSessionError, SessionNotFound
from chatsession.events import Ended, Replaced, Text
from chatsession.v1.chat_session_pb2 import ModelSettings, Turn

PROMPT = "> "
_REPEAT = "Enter the same message to repeat it; it will not be sent twice"


class Talk:
    """Messages from stdin, answers to stdout, one session.

    settings: for every message. is_markdown: renders answers when they are whole, instead of streaming their text.
    """

    def __init__(
        self,
        client: ChatClient,
        screen: Screen,
        *,
        target: str,
        session_id: str,
        settings: ModelSettings | None,
        is_markdown: bool,
        timeout_s: float,
    ) -> None:
        self._client = client
        self._screen = screen
        self._target = target
        self._session_id = session_id
        self._settings = settings
        self._is_markdown = is_markdown and screen.is_interactive
        self._timeout_s = timeout_s

    def resume(self) -> None:
        """Show the last exchange of the session, and the rest of an answer that is still being written."""
        newest = next(self._client.history_pages(self._session_id, newest_first=True, page_size=2))
        if self._screen.is_interactive:
            for message in reversed(newest.history):
                self._screen.text(f"{PROMPT if message.role == 'user' else ''}{message.content}")
                self._screen.end_line()
        if newest.active_turn_id:
            self._screen.note("an answer is still being written:")
            self._show(self._client.attach(self._session_id, newest.active_turn_id, timeout_s=self._timeout_s))

    def run(self) -> int:
        """Talk until the input ends, and return the exit code.

        A person sees errors and goes on; a pipe stops at the first, so that no message is sent after one that failed.
        """
        request_ids: dict[str, str | None] = {}
        for message in self._typed() if self._screen.is_interactive else _piped():
            stream = self._client.stream(
                self._session_id,
                message,
                request_id=request_ids.get(message),
                settings=self._settings,
                timeout_s=self._timeout_s,
            )
            request_ids.clear()
            try:
                self._show(stream)
            except ChatSessionError as error:
                self._screen.error(describe(error, self._target, how_to_repeat=_REPEAT))
                if not self._screen.is_interactive or isinstance(error, SessionNotFound):
                    return exit_code(error)
                if is_uncertain(error):
                    request_ids[message] = error.request_id
        return 0

    def _typed(self) -> Iterator[str]:
        """Yield what a person types, until Ctrl-C or Ctrl-D at the prompt."""
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() line editing and history
        while True:
            try:
                line = input(PROMPT)
            except (EOFError, KeyboardInterrupt):
                sys.stdout.write("\n")
                return
            if line.strip():
                yield line

    def _show(self, stream: BlockingAnswerStream) -> None:
        """Show an answer. Ctrl-C cancels the turn and shows what had been said; where nobody types, it leaves."""
        with stream:
            try:
                turn = self._render(stream)
            except KeyboardInterrupt:
                if not self._screen.is_interactive:
                    raise
                turn = self._cancel(stream)
        if turn is not None and turn.state == Turn.INCOMPLETE:
            self._screen.note(f"(incomplete: {_why(turn)})")
        elif turn is None or turn.state == Turn.CANCELLED:
            self._screen.note("(cancelled)")
        self._screen.end_line()

    def _cancel(self, stream: BlockingAnswerStream) -> Turn | None:
        if stream.cancel() is None:
            return None
        return self._render(stream)

    def _render(self, stream: BlockingAnswerStream) -> Turn | None:
        if not self._is_markdown:
            return show_text(stream, self._screen)
        with self._screen.out.status("…"):
            turn = stream.answer().turn
        self._screen.out.print(Markdown(stream.text))
        return turn


def show_text(stream: BlockingAnswerStream, screen: Screen) -> Turn | None:
    """Write the text of an answer as it comes, and return the turn as it ended.

    Text that replaces what was shown comes after a line that says so.
    """
    turn = None
    for event in stream.events():
        if isinstance(event, Text):
            screen.text(event.text)
        elif isinstance(event, Replaced):
            screen.note("(this replaces what was shown:)")
            screen.text(event.text)
        elif isinstance(event, Ended):
            turn = event.turn
    return turn


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        if message := line.rstrip("\n"):
            yield message


def _why(turn: Turn) -> str:
    """Name of the finish reason; its number if this release does not know it."""
    known = {number: name for name, number in Turn.FinishReason.items()}
    return known.get(turn.finish_reason, str(turn.finish_reason))

"""What is written to the terminal, or into a pipe."""

import itertools
import re
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# C0 and C1 controls but tab and newline: text of a model must not move the cursor or rename the window.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ANY_WIDTH = 100_000


class Screen:
    """Answers go to stdout as they are, everything about them to stderr; colour only on a terminal."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character must not end the answer.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        self.notes = Console(stderr=True, highlight=False, soft_wrap=True)
        self.out = Console(highlight=False, soft_wrap=True)
        self._is_line_open = False

    @property
    def is_interactive(self) -> bool:
        """Whether a person types and reads."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    def text(self, text: str) -> None:
        """Write a piece of an answer at once. On a terminal, control characters are left out."""
        shown = _CONTROLS.sub("", text) if sys.stdout.isatty() else text
        sys.stdout.write(shown)
        sys.stdout.flush()
        if shown:
            self._is_line_open = not shown.endswith("\n")

    def end_line(self) -> None:
        """Begin a new line unless at the start of one."""
        if self._is_line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._is_line_open = False

    def table(
        self, names: Sequence[str], rows: Iterable[Sequence[str]], *, marks: Sequence[Sequence[tuple[int, int]]] = ()
    ) -> None:
        """Write a table; on a terminal it is made to fit, in a pipe nothing is cut.

        marks: for each row, what stands out in its last cell: from one character to another.
        """
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(name, no_wrap=True)
        for row, marked in itertools.zip_longest(rows, marks, fillvalue=()):
            cells = [Text(_CONTROLS.sub(" ", cell).replace("\n", " ")) for cell in row]
            for start, end in marked:
                cells[-1].stylize("bold red", start, end)
            table.add_row(*cells)
        console = self.out if self.out.is_terminal else Console(highlight=False, width=_ANY_WIDTH)
        console.print(table, soft_wrap=False)

    def note(self, text: str) -> None:
        """Write a line about what happens."""
        self._make_room()
        self.notes.print(f"[dim]{escape(_one_line(text))}[/dim]")

    def error(self, text: str) -> None:
        """Write one red line."""
        self._make_room()
        self.notes.print(f"error: {escape(_one_line(text))}", style="red")

    def _make_room(self) -> None:
        """A terminal shows both streams: a note must not run into an answer. In a pipe the answer stays whole."""
        if sys.stdout.isatty():
            self.end_line()


def _one_line(text: str) -> str:
    return _CONTROLS.sub("", " ".join(text.split()))

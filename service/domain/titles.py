"""Pieces of titles, by which sessions are looked up: every title that contains a text has all of the text's pieces."""

from typing import Final

from service.domain.checks import MAX_TITLE_CHARS

PIECE_CHARS: Final = 3
# A character folds to three at most (Unicode, CaseFolding.txt), so no title that a caller may set is cut.
MAX_FOLDED_CHARS: Final = 3 * MAX_TITLE_CHARS


def fold_title(title: str) -> str:
    """Return a title as its pieces are taken from it.

    A NUL counts as a blank, as SQLite would end the text there: so a piece may find a title too many, but none too few.
    """
    return title.casefold().replace("\0", " ")[:MAX_FOLDED_CHARS]


def title_pieces(text: str) -> list[str]:
    """Return the different pieces of a text, in order; none of one that is too short."""
    folded = fold_title(text)
    starts = range(len(folded) - PIECE_CHARS + 1)
    return list(dict.fromkeys(folded[start : start + PIECE_CHARS] for start in starts))

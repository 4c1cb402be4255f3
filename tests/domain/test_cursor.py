import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.cursor import Cursor
from service.domain.errors import InvalidField

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


@given(IDS, st.integers(0, 2**40), st.integers(0, 2**40), st.booleans())
def test_round_trip(turn_id: str, fence: int, offset: int, has_ended: bool) -> None:
    cursor = Cursor(turn_id, fence, offset, has_ended)
    assert Cursor.decode(cursor.encode(), turn_id=turn_id, field="after_cursor") == cursor


@given(st.text(max_size=80))
def test_foreign_text_is_refused_by_field_name(text: str) -> None:
    with pytest.raises(InvalidField, match="after_cursor"):
        Cursor.decode(text, turn_id="t", field="after_cursor")


@pytest.mark.parametrize("end", ["=", "\n", " ", "AA"])
def test_only_the_exact_string_is_a_cursor(end: str) -> None:
    with pytest.raises(InvalidField):
        Cursor.decode(Cursor("t", 1, 2).encode() + end, turn_id="t", field="after_cursor")


def test_cursor_of_another_turn_is_refused() -> None:
    with pytest.raises(InvalidField, match="another turn"):
        Cursor.decode(Cursor("a", 1, 2).encode(), turn_id="b", field="after_cursor")


def test_cursor_is_base64url() -> None:
    assert set(Cursor("turn-1_x", 9, 9).encode()) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )

"""Filters hold for the sessions they should, and whatever is wrong in one is told with its place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.entities import ANONYMOUS, Session
from service.domain.errors import InvalidField
from service.domain.filters import MAX_CHARS, MAX_RESTRICTIONS, Filter, parse_filter
from service.domain.ranges import END, START, Place, SessionRange

NOW = datetime(2026, 3, 1, 12, 30, 0, 123000, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
SESSION = Session(
    "id",
    "uid",
    ANONYMOUS,
    NOW,
    NOW + timedelta(hours=1),
    title='The "Größe"',
    labels={"team": "blue", "env": "", "a.b/c": "x y", "ü k": "\n"},
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        'labels.team = "blue"',
        "labels.team=blue",
        "labels.team = 'blue'",
        " labels . team = blue ",
        'labels.env = ""',
        "labels:env",
        'labels:"ü k"',
        'labels."ü k" = "\n"',
        'labels.a.b/c = "x y"',
        'title = "The \\"Größe\\""',
        "title = 'The \"Größe\"'",
        "title:größe",
        'title:"GRÖSSE"',
        'title:""',
        "NOT title:other",
        "-labels:nothing AND NOT labels.team = red",
        "labels:team AND labels:env AND title:the",
        'create_time <= "2026-03-01T12:30:00.123Z"',
        "create_time >= 2026-03-01T12:30:00.123z",
        "create_time < 2026-03-01t12:30:00.123000001Z",
        "create_time > 2026-03-01T12:30:00.122999999Z",
        "create_time > 2026-03-01T14:30:00.122+02:00",
        "create_time < 2026-03-01T07:30:00.124-05:00",
        "create_time < 9999-12-31T23:59:59-14:00",
        "create_time > 0001-01-01T00:00:00+14:00",
        "update_time > 2026-03-01T13:00:00Z",
        "NOT expire_time < 2999-01-01T00:00:00Z",
    ],
)
def test_what_a_session_meets(text: str) -> None:
    assert parse_filter(text).matches(SESSION)


@pytest.mark.parametrize(
    "text",
    [
        "labels.team = Blue",
        "labels.TEAM = blue",
        "labels:tea",
        'labels.nothing = ""',
        "title = größe",
        "title:other",
        "NOT labels:team",
        "-title:the",
        "labels:team AND labels:nothing",
        "create_time < 2026-03-01T12:30:00.123Z",
        "create_time > 2026-03-01T12:30:00.123Z",
        "create_time > 2026-03-01T12:30:00.123000001Z",
        "create_time >= 2026-03-01T12:30:00.123000001Z",
        "create_time <= 2026-03-01T12:30:00.122999999Z",
        "expire_time < 2999-01-01T00:00:00Z",
        "expire_time > 1999-01-01T00:00:00Z",
    ],
)
def test_what_a_session_does_not_meet(text: str) -> None:
    assert not parse_filter(text).matches(SESSION)


@pytest.mark.parametrize(
    ("text", "position", "why"),
    [
        ("size = 1", 1, "expected labels, title"),
        ("title", 6, "expected = or :"),
        ("title != a", 7, "expected = or :"),
        ("title =", 8, "expected a text"),
        ('title = "a', 9, "expected a text"),
        ('title = "a\\n"', 9, "expected a text"),
        ("title = AND", 9, "expected a text"),
        ("title = (a)", 9, "expected a text"),
        ("title = a AND", 14, "expected labels, title"),
        ("title = a title = b", 11, "expected AND"),
        ("title = a OR title = b", 11, "expected AND"),
        ("title = a ANDtitle = b", 11, "expected AND"),
        ("title = a and title = b", 11, "expected AND"),
        ("(title = a)", 1, "expected labels, title"),
        ("NOT NOT title = a", 5, "expected labels, title"),
        ("--title = a", 2, "expected labels, title"),
        ("NOTtitle = a", 1, "expected labels, title"),
        ("labels = a", 8, "expected . or :"),
        ("labels. = a", 9, "expected a label's key"),
        ("labels.a", 9, "expected ="),
        ("labels.a:b", 9, "expected ="),
        ("labels:", 8, "expected a label's key"),
        ("create_time = 2026-03-01T12:30:00Z", 13, "expected < or <= or > or >="),
        ("create_time < 2026-03-01", 15, "expected a time as in"),
        ("create_time < 2026-03-01T12:30:00", 15, "expected a time as in"),
        ('create_time < "2026-03-01 12:30:00Z"', 15, "expected a time as in"),
        ("create_time < 2026-02-29T12:30:00Z", 15, "there is no such time"),
        ("create_time < 2026-03-01T12:30:60Z", 15, "there is no such time"),
        ("create_time < 0000-03-01T12:30:00Z", 15, "there is no such time"),
        ("create_time < 2026-03-01T12:30:00+24:00", 15, "there is no such zone"),
        ("create_time < 2026-03-01T12:30:00-02:60", 15, "there is no such zone"),
        ("create_time < \u0662026-03-01T12:30:00Z", 15, "expected a time as in"),
        (" AND ".join(["labels:a"] * (MAX_RESTRICTIONS + 1)), 13 * MAX_RESTRICTIONS + 1, "more than 32 restrictions"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, position: int, why: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_filter(text)
    assert caught.value.field == "filter"
    assert caught.value.description.startswith(f"at character {position}: {why}")


def test_the_most_that_a_filter_may_be() -> None:
    parse_filter(" AND ".join(["labels:a"] * MAX_RESTRICTIONS))
    assert parse_filter("title = " + "x" * (MAX_CHARS - 8))
    with pytest.raises(InvalidField, match="filter: must be at most 4096 characters"):
        parse_filter("title = " + "x" * (MAX_CHARS - 7))


_pieces = st.sampled_from(
    [
        *("labels", "title", "create_time", "expire_time", "AND", "NOT", "OR", "-", ".", ":", "=", "<", "<=", ">="),
        *("!=", '"', "'", "\\", "(", ")", ",", " ", "\n", "\x00", "a", "é", '"a b"', "2026-03-01T12:30:00Z", "\u2028"),
    ]
)


@given(st.one_of(st.text(), st.lists(_pieces, max_size=20).map("".join), st.lists(_pieces, max_size=20).map(" ".join)))
@example('title = "' + '\\"' * 2000)
@example('title = "' + "\\" * 4000)
@example("create_time < " + "9" * 4000)
def test_any_text_is_a_filter_or_wrong_at_a_place(text: str) -> None:
    found = parsed(text)
    if isinstance(found, InvalidField):
        place = found.description.removeprefix("at character ").partition(":")[0]
        assert found.field == "filter"
        assert len(text) > MAX_CHARS or 1 <= int(place) <= len(text) + 1
    else:
        assert found.matches(SESSION) in (True, False)


def parsed(text: str) -> Filter | InvalidField:
    try:
        return parse_filter(text)
    except InvalidField as error:
        return error


_quoted = st.text(st.characters(codec="utf-8"), max_size=20)


@given(key=_quoted, value=_quoted)
def test_any_label_can_be_asked_for(key: str, value: str) -> None:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    wanted = parse_filter(f"labels.{quote(key)} = {quote(value)} AND labels:{quote(key)} AND title = {quote(value)}")
    session = replace(SESSION, labels={key: value}, title=value)
    assert wanted.matches(session)
    assert not wanted.matches(replace(session, labels={key: value + "."}))
    assert wanted.labels() == [(key, value)]


_moments = st.integers(-3_000_000, 3_000_000)
_comparisons = {"<": int.__lt__, "<=": int.__le__, ">": int.__gt__, ">=": int.__ge__}


@given(moment_ns=_moments, comparison=st.sampled_from(sorted(_comparisons)), ms=st.integers(-4, 4))
def test_times_are_compared_to_the_nanosecond_and_bounds_say_the_same(moment_ns: int, comparison: str, ms: int) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    whole = start + timedelta(seconds=moment_ns // 10**9)
    text = f"{whole:%Y-%m-%dT%H:%M:%S}.{moment_ns % 10**9:09}Z"
    wanted = parse_filter(f"create_time {comparison} {text} AND update_time > 2000-01-01T00:00:00Z")
    session = replace(SESSION, create_time=start + ms * MILLISECOND)
    expected = _comparisons[comparison](ms * 10**6, moment_ns)
    assert wanted.matches(session) == expected
    low, high = wanted.bounds("create_time")
    assert (low < Place(session.create_time, session.session_id) < high) == expected
    assert wanted.bounds("expire_time") == (START, END)


def test_bounds_are_the_narrowest() -> None:
    times = [f"2026-03-0{day}T00:00:00Z" for day in range(1, 7)]
    text = " AND ".join(
        [
            f"create_time > {times[0]}",
            f"create_time >= {times[2]}",
            f"create_time < {times[4]}",
            f"create_time < {times[5]}",
        ]
    )
    day = timedelta(days=1)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    assert parse_filter(text).bounds("create_time") == (Place(start + 2 * day, ""), Place(start + 4 * day, ""))
    assert parse_filter(f"NOT create_time < {times[0]}").bounds("create_time") == (START, END)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", []),
        ("NOT labels:a", []),
        ("labels:a", [("a",)]),
        ("labels:a AND labels.b = c", [("b", "c"), ("a",)]),
        ("labels:b AND labels.b = c AND labels.d = e", [("b", "c"), ("d", "e")]),
        ("labels.b = c AND labels.b = d AND labels.b = c AND labels:a AND labels:a", [("b", "c"), ("b", "d"), ("a",)]),
    ],
)
def test_the_labels_that_an_index_may_be_asked_for(text: str, labels: list[tuple[str, ...]]) -> None:
    assert parse_filter(text).labels() == labels


def test_a_range_gets_narrower_only() -> None:
    places = [Place(NOW + number * MILLISECOND, "a") for number in range(4)]
    newest: Any = SessionRange("create_time", newest_first=True, low=places[0], high=places[2])
    assert newest.after(places[1]) == replace(newest, high=places[1])
    assert newest.after(places[3]) == newest
    oldest = replace(newest, newest_first=False)
    assert oldest.after(places[1]) == replace(oldest, low=places[1])

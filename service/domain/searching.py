"""Finds messages by their words, newest first. What a message has to have is decided here, for every store."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from service.domain.access import is_expired, look
from service.domain.entities import Message, Principal, SessionKey, messages_of
from service.domain.errors import InvalidField
from service.domain.pagetoken import malformed, read_token, write_token
from service.domain.ports import FoundTurn, ListStore, SearchStore, TurnStore, UnknownPlace
from service.domain.words import Word, word_texts, words

MAX_QUERY_CHARS: Final = 256
MAX_PAGE_SIZE: Final = 100
MAX_READS: Final = 10
MAX_EXAMINED_CHARS: Final = 1_048_576
SNIPPET_CHARS: Final = 200
_BEFORE_CHARS: Final = 60
_PAGE_SIZE: Final = 20
_BATCH: Final = 50
_TERM: Final = re.compile(r'"([^"]*)"?|[^\s"]+')

Phrases = Sequence[tuple[str, ...]]


class Span(NamedTuple):
    """A piece of a text, in code points."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What a caller asks of a search, as in the contract. page_size 0 = 20; an empty session_id = all sessions."""

    query: str
    session_id: str = ""
    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A message that was found. spans: what was found in `snippet`, which is a piece of its text."""

    session_id: str
    message: Message
    snippet: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class MatchPage:
    """Matches, newest first. An empty token = nothing follows."""

    matches: Sequence[Match]
    next_page_token: str


class _Store(TurnStore, ListStore, SearchStore, Protocol):
    pass


class MessageSearch:
    """Finds messages in an owner's sessions."""

    def __init__(self, store: _Store, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def page(self, principal: Principal, query: SearchQuery) -> MatchPage:
        """Return one page; raises InvalidField, SessionNotFound, SessionExpired or StoreUnavailable."""
        phrases = parse_query(query.query)
        if query.page_size < 0:
            raise InvalidField("page_size", "must not be negative")
        limit = min(query.page_size, MAX_PAGE_SIZE) or _PAGE_SIZE
        bound = [principal.tenant, principal.subject, "messages", query.query, query.session_id]
        start = _Start(*read_token(query.page_token, bound, (str, str, int))) if query.page_token else _Start()
        uid = ""
        if query.session_id:
            uid = (await look(self._store, principal, query.session_id, self._now())).uid
        matches, rest = await self._collect(principal, phrases, uid, start, limit)
        return MatchPage(matches, write_token(bound, rest) if rest else "")

    async def _collect(
        self, principal: Principal, phrases: Phrases, uid: str, start: "_Start", limit: int
    ) -> tuple[list[Match], "_Start | None"]:
        """Return the matches of a page, and where the next one starts unless nothing follows."""
        matches: list[Match] = []
        chars = 0
        for _ in range(MAX_READS):
            try:
                turns, behind = await self._store.find_turns(
                    principal, phrases, uid=uid, after=start.after, limit=min(2 * limit, _BATCH)
                )
            except UnknownPlace:
                raise malformed() from None
            there = await self._there(principal, turns)
            for found in turns:
                chars += len(found.turn.user_text) + (len(found.turn.ending.text) if found.turn.ending else 0)
                messages = reversed(messages_of(found.turn)) if found.key in there else ()
                for message in messages:
                    if found.turn.turn_id == start.turn_id and message.seq >= start.seq:
                        continue
                    match = match_of(found.key.session_id, message, phrases)
                    if match is None:
                        continue
                    if len(matches) == limit:
                        return matches, start
                    matches.append(match)
                    start = _Start(start.after, found.turn.turn_id, message.seq)
                start = _Start(found.place)
                if chars > MAX_EXAMINED_CHARS:
                    return matches, start
            if not behind:
                return matches, None
            start = _Start(behind)
        return matches, start

    async def _there(self, principal: Principal, turns: Sequence[FoundTurn]) -> set[SessionKey]:
        """Return the sessions of turns that are still there."""
        session_ids = list({found.key.session_id for found in turns})
        sessions = await self._store.listed_sessions(principal, session_ids) if session_ids else ()
        now = self._now()
        return {s.key for s in sessions if s.deleted_at is None and not s.purging and not is_expired(s, now)}


class _Start(NamedTuple):
    """Where a page starts: behind the place `after`, and of the turn turn_id with messages before `seq` only."""

    after: str = ""
    turn_id: str = ""
    seq: int = 0


def parse_query(query: str) -> Phrases:
    """Return what has to be in a message: words, and words that stand together; raises InvalidField."""
    if len(query) > MAX_QUERY_CHARS:
        raise InvalidField("query", f"must be at most {MAX_QUERY_CHARS} characters")
    terms = (term[0] for term in _TERM.finditer(query))
    phrases = dict.fromkeys(tuple(word_texts(term)) for term in terms)
    phrases.pop((), None)
    if not phrases:
        raise InvalidField("query", "must have a word: letters or digits")
    return list(phrases)


def match_of(session_id: str, message: Message, phrases: Phrases) -> Match | None:
    """Return what a search for phrases shows of a message, or None if it has not all of them."""
    content = list(words(message.content))
    places: dict[str, list[int]] = {}
    for at, word in enumerate(content):
        places.setdefault(word.text, []).append(at)
    hits = [_hits(content, places, phrase) for phrase in phrases]
    if not all(hits):
        return None
    snippet, spans = _cut(message.content, content, _best(hits), sorted(span for spans in hits for span in spans))
    return Match(session_id, message, snippet, spans)


def _hits(content: Sequence[Word], places: Mapping[str, Sequence[int]], phrase: tuple[str, ...]) -> list[Span]:
    """Return where a phrase stands. places: where in `content` each word is."""
    first, *rest = phrase
    return [
        Span(content[at].start, content[at + len(rest)].end)
        for at in places.get(first, ())
        if [word.text for word in content[at + 1 : at + len(phrase)]] == rest
    ]


def _best(hits: Sequence[Sequence[Span]]) -> Span:
    """Return the first hit with the most phrases within reach of a snippet behind it."""
    ordered = sorted((span, phrase) for phrase, spans in enumerate(hits) for span in spans)
    reached: Counter[int] = Counter()
    best, most, end = ordered[0][0], 0, 0
    for span, phrase in ordered:
        while end < len(ordered) and ordered[end][0].start < span.start + SNIPPET_CHARS - _BEFORE_CHARS:
            reached[ordered[end][1]] += 1
            end += 1
        if len(+reached) > most:
            best, most = span, len(+reached)
        reached[phrase] -= 1
    return best


def _cut(text: str, content: Sequence[Word], best: Span, spans: Sequence[Span]) -> tuple[str, list[Span]]:
    """Return the piece of a text around a hit, from a word's start to a word's end, and the hits in it."""
    begin = best.start - _BEFORE_CHARS
    begin = content[bisect_left(content, begin, key=lambda word: word.start)].start if begin > 0 else 0
    end = begin + SNIPPET_CHARS
    if end < len(text):
        last = content[max(bisect_right(content, end, key=lambda word: word.end) - 1, 0)]
        end = last.end if best.end <= last.end <= end else end
    shown: list[Span] = []
    for span in spans:
        if not begin <= span.start < min(end, len(text)):
            continue
        start, stop = span.start - begin, min(span.end, end) - begin
        if shown and start < shown[-1].end:
            start, stop = shown[-1].start, max(shown.pop().end, stop)
        shown.append(Span(start, stop))
    return text[begin:end], shown

"""The template grammar: rules S4, S5, S13, P6 and P8 of the transcoding rules."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rest.template import TemplateError, Variable, Wildcard, parse
from tests.rest.kit import attempt, unhurried

ONE, MANY = Wildcard.ONE, Wildcard.MANY


@pytest.mark.parametrize(
    ("text", "segments", "verb"),
    [
        pytest.param("/v1/things", ("v1", "things"), "", id="S4-literals"),
        pytest.param("/v1/*/x", ("v1", ONE, "x"), "", id="S4-wildcard"),
        pytest.param("/v1/**", ("v1", MANY), "", id="S4-many"),
        pytest.param("/{id}", (ONE,), "", id="S4-variable"),
        pytest.param("/v1/{a.b_c.d}", ("v1", ONE), "", id="S4-field-path"),
        pytest.param("/{name=shelves/*/books/*}", ("shelves", ONE, "books", ONE), "", id="S4-pattern"),
        pytest.param("/{name=**}", (MANY,), "", id="S4-pattern-many"),
        pytest.param("/{name=fixed}", ("fixed",), "", id="S4-pattern-literal"),
        pytest.param("/v1/{id}:cancel", ("v1", ONE), "cancel", id="S4-verb-after-variable"),
        pytest.param("/v1/*:cancel", ("v1", ONE), "cancel", id="S4-verb-after-wildcard"),
        pytest.param("/chat:stream", ("chat",), "stream", id="S4-verb-after-literal"),
        pytest.param("/a:b/c", ("a:b", "c"), "", id="S4-colon-inside-is-data"),
        pytest.param("/{a=x:y/*}/z", ("x:y", ONE, "z"), "", id="S4-colon-in-pattern-is-data"),
        pytest.param("/**/tail", (MANY, "tail"), "", id="S5-literal-after-many"),
        pytest.param("/files/{p=**}/raw/x:y", ("files", MANY, "raw", "x"), "y", id="S5-literals-after-many"),
        pytest.param("/v1/%73essions", ("v1", "sessions"), "", id="P6-escaped-literal"),
        pytest.param("/a%2Fb/%2A", ("a/b", "*"), "", id="P6-escaped-specials-are-literals"),
        pytest.param("/a=b/c!$&'()+,;@~-._", ("a=b", "c!$&'()+,;@~-._"), "", id="S4-all-of-pchar"),
    ],
)
def test_parses(text: str, segments: tuple[object, ...], verb: str) -> None:
    template = parse(text)
    assert (template.segments, template.verb) == (segments, verb)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="S4-empty"),
        pytest.param("v1/x", id="S4-no-slash"),
        pytest.param("/", id="S4-no-segment"),
        pytest.param("/v1//x", id="S4-empty-segment"),
        pytest.param("/v1/", id="S4-trailing-slash"),
        pytest.param("/v1/{a}/{a}", id="S4-variable-twice"),
        pytest.param("/v1/{a.b}/{a.b}", id="S4-nested-path-twice"),
        pytest.param("/v1/{a={b}}", id="S4-variable-inside"),
        pytest.param("/v1/{1x}", id="S4-bad-name"),
        pytest.param("/v1/{a..b}", id="S4-bad-path"),
        pytest.param("/v1/{a.}", id="S4-dot-at-end"),
        pytest.param("/v1/{}", id="S4-no-name"),
        pytest.param("/v1/{a=}", id="S4-no-pattern"),
        pytest.param("/v1/{a=/x}", id="S4-pattern-with-leading-slash"),
        pytest.param("/v1/{a=x/}", id="S4-pattern-with-trailing-slash"),
        pytest.param("/v1/{a", id="S4-open-brace"),
        pytest.param("/v1/a}", id="S4-close-brace"),
        pytest.param("/v1/{a}b", id="S4-text-after-variable"),
        pytest.param("/v1/b{a}", id="S4-text-before-variable"),
        pytest.param("/v1/a*", id="S4-star-in-literal"),
        pytest.param("/v1/***", id="S4-three-stars"),
        pytest.param("/v1/{a}:", id="S4-empty-verb"),
        pytest.param("/v1/{a}:x/y", id="S4-segment-after-verb"),
        pytest.param("/v1/{a}:x{b}", id="S4-variable-after-verb"),
        pytest.param("/v1/:x", id="S4-verb-without-segment"),
        pytest.param("/v1/a b", id="S4-blank"),
        pytest.param("/v1/a?b", id="S4-query"),
        pytest.param("/v1/a#b", id="S4-fragment"),
        pytest.param("/v1/é", id="S4-not-ascii"),
        pytest.param("/v1/%zz", id="S4-bad-escape"),
        pytest.param("/v1/%4", id="S4-short-escape"),
        pytest.param("/v1/%ff", id="S4-escape-not-utf8"),
        pytest.param("/v1/a\n", id="S4-newline"),
        pytest.param("/**/**", id="S5-two-many"),
        pytest.param("/**/*", id="S5-one-after-many"),
        pytest.param("/**/{a}", id="S5-variable-after-many"),
        pytest.param("/{a=**}/{b=**}", id="S5-two-many-variables"),
        pytest.param("/v1/{a}:b:c", id="P8-verb-with-colon"),
        pytest.param("/v1/a:b:c", id="P8-literal-with-two-colons"),
        pytest.param("/v1/{a=x:y}", id="P8-colon-in-last-pattern"),
    ],
)
def test_refuses_and_quotes_the_template(text: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(repr(text))):
        parse(text)


def test_variables_know_what_they_span() -> None:
    template = parse("/v1/{a.b=x/*/y}/{c}/{d=**}/end:go")
    assert template.variables == (
        Variable(("a", "b"), 1, 4, multi=True),
        Variable(("c",), 4, 5, multi=False),
        Variable(("d",), 5, 6, multi=True),
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("/" * 64_000, id="S13-slashes"),
        pytest.param("/a" * 64_000, id="S13-literals"),
        pytest.param("/*" * 64_000, id="S13-wildcards"),
        pytest.param("/{" * 64_000, id="S13-braces"),
        pytest.param("".join(f"/{{f{i}}}" for i in range(20_000)), id="S13-variables"),
        pytest.param("/a" + ":" * 64_000, id="S13-colons"),
        pytest.param("/a" + "%41" * 64_000 + "%", id="S13-escapes"),
    ],
)
def test_takes_linear_time(text: str) -> None:
    start = time.process_time()
    found = attempt(lambda: parse(text))
    assert not isinstance(found, TemplateError) or len(str(found)) < 1000
    assert time.process_time() - start < 2


@unhurried
@given(st.text(alphabet="/{}=*:.ab%4é ", max_size=40))
def test_raises_nothing_else_whatever_the_text(text: str) -> None:
    try:
        template = parse(text)
    except TemplateError:
        return
    assert template.text == text
    assert "" not in template.segments


_LITERAL = st.from_regex(r"[a-z0-9._~-]{1,5}", fullmatch=True)
_NAME = st.from_regex(r"[a-z_][a-z0-9_]{0,4}", fullmatch=True)


@unhurried
@given(
    st.lists(
        st.one_of(_LITERAL, st.just("*"), st.builds(lambda name: "{" + name + "}", _NAME)), min_size=1, max_size=8
    ),
    st.one_of(st.just(""), _LITERAL),
)
def test_accepts_all_that_the_grammar_allows(pieces: list[str], verb: str) -> None:
    names = [piece for piece in pieces if piece.startswith("{")]
    text = "/" + "/".join(pieces) + (f":{verb}" if verb else "")
    if len(set(names)) < len(names):
        with pytest.raises(TemplateError, match="twice"):
            parse(text)
        return
    template = parse(text)
    assert template.verb == verb
    assert [piece if isinstance(piece, str) else ONE for piece in template.segments] == [
        ONE if piece == "*" or piece in names else piece for piece in pieces
    ]

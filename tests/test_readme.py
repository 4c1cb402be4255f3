"""What the README says about settings and links is true."""

import re
from pathlib import Path

import pytest

from service.config import Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = {
    name: (default, text) for name, default, text in re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", README, re.M)
}


def shown_default(name: str) -> str:
    value = Config.model_fields[name].default
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


def test_every_setting_is_in_the_table() -> None:
    assert list(ROWS) == [name.upper() for name in Config.model_fields]


@pytest.mark.parametrize("name", Config.model_fields)
def test_row_tells_default_and_meaning(name: str) -> None:
    assert ROWS[name.upper()] == (shown_default(name), Config.model_fields[name].description)


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(path: str) -> None:
    folder = (ROOT / path).parent
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / path).read_text())
    assert [link for link in links if not (folder / link).exists()] == []

"""The result as a table in Markdown, and as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.compare import Bar, Figures, Result

Results = Mapping[str, Sequence[Result]]


def machine() -> dict[str, object]:
    """Describe the machine by what matters for the figures."""
    return {
        "cpu": _told("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_told("/proc/meminfo", "MemTotal").split()[0]) / 2**20),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
    }


def _told(path: str, name: str) -> str:
    """Return what a file of "name: value" lines says."""
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def to_markdown(results: Results, how: str) -> str:
    """Write the bars first, then each comparison's figures."""
    about = machine()
    lines = [
        "# Benchmark results",
        "",
        f"{how} {about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB, Linux {about['kernel']}, "
        f"Python {about['python']}.",
        "Ratios are medians of the paired ratios of each round. CPU is user + system time of the server's processes.",
        "",
        "| comparison | what | measured | bar | met |",
        "|---|---|---|---|---|",
    ]
    lines += [_bar_row(name, bar) for name, found in results.items() for result in found for bar in result.bars]
    for name, found in results.items():
        for result in found:
            lines += ["", f"## {name}: {result.title}", "", *_figures_table(result.figures)]
            lines += ["", *(f"- {note}" for note in result.notes)] if result.notes else []
    return "\n".join(lines) + "\n"


def to_json(results: Results, how: str) -> str:
    """Write everything."""
    found = {name: [asdict(result) for result in of] for name, of in results.items()}
    return json.dumps({"machine": machine(), "how": how, "results": found}, indent=1) + "\n"


def bar_line(bar: Bar) -> str:
    """Write a bar in a line for the terminal."""
    met = {True: "met", False: "MISSED", None: ""}[bar.is_met]
    return f"  {bar.what}: {_number(bar.value)} {bar.unit} {_limit(bar)} {met}".rstrip()


def figures_lines(figures: Sequence[Figures]) -> list[str]:
    """Write figures for the terminal."""
    return [f"  {line}" for line in _figures_table(figures)]


def _bar_row(name: str, bar: Bar) -> str:
    met = {True: "yes", False: "**no**", None: ""}[bar.is_met]
    return f"| {name} | {bar.what} | {_number(bar.value)} {bar.unit} | {_limit(bar)} | {met} |"


def _limit(bar: Bar) -> str:
    if bar.limit is None:
        return ""
    return f"{'≥' if bar.at_least else '≤'} {_number(bar.limit)} {bar.unit}"


def _figures_table(figures: Sequence[Figures]) -> list[str]:
    if not figures:
        return []
    rows = ["| who | CPU, ms | per s | p50, ms | p99, ms | errors | |", "|---|---|---|---|---|---|---|"]
    for row in figures:
        cells = [row.name, *map(_number, (row.cpu_ms, row.per_s, row.p50_ms, row.p99_ms)), str(row.errors), row.note]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _number(value: float | None) -> str:
    """Write three digits that count."""
    if value is None or value != value:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

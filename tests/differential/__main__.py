"""Print how other gateways differ from our shim, rule by rule: `python -m tests.differential`."""

import argparse
import asyncio
import logging
import sys

from tests.differential import run
from tests.differential.differences import GATEWAYS, SPARED, Report, report, spared
from tests.differential.gateways import Unavailable

_EXAMPLES_SHOWN = 20


def main() -> int:
    """Compare with each gateway that can be had; 1 if something differs by no rule, or a rule explains nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--gateway", choices=list(GATEWAYS), action="append", help="only this one")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # of the bad requests, of which there are many
    failed = False
    for name in options.gateway or GATEWAYS:
        try:
            pairs = asyncio.run(run.compare(GATEWAYS[name], lambda request, name=name: spared(name, request)))
        except Unavailable as error:
            print(f"{name}: not compared, {error}\n")
            continue
        found = report(name, pairs)
        _show(found)
        failed = failed or bool(found.unexplained or found.stale)
    return int(failed)


def _show(found: Report) -> None:
    print(f"{found.gateway}: {found.requests} requests, {found.alike} with the same outcome\n")
    print(f"{'rule':5} {'requests':>8}  what it does instead, and an example")
    for row, pairs in sorted(found.met.items(), key=lambda item: _order(item[0].rule)):
        print(f"{row.rule:5} {len(pairs):8}  {row.why}\n{'':16}{str(pairs[0].request)[:100]}")
    for glob, why in SPARED[found.gateway].items():
        print(f"not sent: {glob}: {why}")
    for row in found.stale:
        print(f"EXPLAINS NOTHING: {row.rule} {row.about}: {row.why}")
    for pair, difference in found.unexplained[:_EXAMPLES_SHOWN]:
        print(f"BY NO RULE: {pair.request}\n{'':12}{difference}\n{'':12}{pair.ours.shown} | {pair.theirs.shown}")
    print(f"{len(found.unexplained)} differences by no rule, {len(found.stale)} rows that explain nothing\n")


def _order(rule: str) -> tuple[int, int, str]:
    letter, number = rule.rstrip("0123456789"), rule.lstrip("SPBJRMWL")
    return "SPB4JRMW".index(letter[:1] or "4"), int(number.rstrip("ab") or 0), rule


if __name__ == "__main__":
    sys.exit(main())

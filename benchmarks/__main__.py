"""`python -m benchmarks [--quick] [--only NAME ...] [--rounds N]`: run the comparisons and write the table."""

import argparse
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from benchmarks import cases, report
from benchmarks.compare import Result
from benchmarks.lab import Lab, Size
from benchmarks.registry import CASES, QUICK
from benchmarks.venvs import NotInstalledError

_RESULTS = Path(__file__).parent / "results"
_FULL = Size(rounds=4)
_QUICK = Size(rounds=2, scale=0.2)
_LEAST_ROUNDS = 2
# A full run is to take no longer than a quarter of an hour.
_MOST_S = 840.0


def main() -> int:
    """Return the exit code: 0, whether or not the bars are met, which the table tells; 1 if a comparison failed."""
    assert cases
    arguments = _arguments()
    base = _QUICK if arguments.quick else _FULL
    size = Size(arguments.rounds or base.rounds, base.scale)
    started = time.monotonic()
    results: dict[str, list[Result]] = {}
    failed: list[str] = []
    with Lab(size) as lab:
        names = arguments.only or list(QUICK if arguments.quick else CASES)
        for number, name in enumerate(names):
            print(f"\n{name}: {CASES[name].__doc__}", flush=True)
            before = time.monotonic()
            if not arguments.rounds and number:
                rounds = _rounds(lab.size.rounds, before - started, number, len(names) - number)
                lab.size = replace(size, rounds=rounds)
            try:
                results[name] = CASES[name](lab)
            except NotInstalledError as exc:
                results[name] = [Result("SKIPPED", notes=[f"SKIPPED: {exc}"])]
            except Exception as exc:
                # The others are worth their time all the same.
                traceback.print_exc()
                failed.append(name)
                lab.keep_logs()
                results[name] = [Result("FAILED", notes=[f"FAILED: {exc}"[:500]])]
            finally:
                lab.stop_servers()
            for result in results[name]:
                print("\n".join([f" {result.title}", *report.figures_lines(result.figures), *result.notes]))
                print("\n".join(map(report.bar_line, result.bars)), flush=True)
            print(f"  ({time.monotonic() - before:.0f} s)", flush=True)
    took_s = time.monotonic() - started
    told = f"{size.rounds} rounds" if lab.size == size else f"{size.rounds}, later {lab.size.rounds} rounds"
    how = f"{'A quick run' if arguments.quick else 'A full run'} of {told} in {took_s / 60:.1f} minutes."
    if not arguments.only or arguments.out:
        folder = arguments.out or _RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        name = "quick" if arguments.quick else "latest"
        (folder / f"{name}.md").write_text(report.to_markdown(results, how))
        (folder / f"{name}.json").write_text(report.to_json(results, how))
        print(f"\nwritten to {folder}")
    return 1 if failed else 0


def _rounds(now: int, passed_s: float, done: int, left: int) -> int:
    """Return how many rounds the next comparison may take: fewer on a slow machine, so that the run ends in time."""
    is_late = passed_s / done > (_MOST_S - passed_s) / left
    return max(_LEAST_ROUNDS, now - 1) if is_late else now


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the main ones only, two short rounds; under two minutes")
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--out", type=Path, help="folder for the table, as .md and .json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

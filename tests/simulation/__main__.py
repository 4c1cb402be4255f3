"""Run seeds: `python -m tests.simulation --seed N [--trace]`, or many: `--seeds FROM:TO`."""

import argparse
import sys
import time

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import NONE, simulate


def main() -> int:
    """Run what is asked for; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--seeds", default="", help="FROM:TO, without TO itself")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    parser.add_argument("--mutation", default="", help="break this rule (tests/simulation/mutations.py)")
    options = parser.parse_args()
    mutation = MUTATIONS[options.mutation] if options.mutation else NONE
    begin, _, end = options.seeds.partition(":")
    seeds = range(int(begin or 0), int(end)) if end else [options.seed or 0]
    broken, started = 0, time.monotonic()
    for seed in seeds:
        outcome = simulate(seed, mutation=mutation, trace=options.trace)
        for line in outcome.lines:
            print(line)
        if outcome.violations or len(seeds) == 1:
            print(seed, *(outcome.violations or ["all promises kept"]), sep="\n  ")
        broken += bool(outcome.violations)
    print(f"{broken} of {len(seeds)} broke a promise, {time.monotonic() - started:.1f} s")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Run seeds: `python -m tests.lifecycle --seed N [--trace]`, or many: `--seeds FROM:TO`."""

import argparse
import sys

from tests.lifecycle.run import run


def main() -> int:
    """Run what is asked for; 1 if the service and the model disagree."""
    parser = argparse.ArgumentParser(prog="python -m tests.lifecycle", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="one seed")
    parser.add_argument("--seeds", default="", help="FROM:TO, without TO itself")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    options = parser.parse_args()
    begin, _, end = options.seeds.partition(":")
    seeds = range(int(begin or 0), int(end)) if end else [options.seed]
    broken = 0
    for seed in seeds:
        if what := run(seed, trace=print if options.trace else None):
            print(f"{seed}: {what}")
            broken += 1
    print(f"{broken} of {len(seeds)} disagree")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

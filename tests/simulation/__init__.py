"""The turn use cases under a seeded scheduler: several processes, one store, and everything that can go wrong.

One seed is one run: `python -m tests.simulation --seed N --trace` shows it. See `run.py` for what a run is,
`ledger.py` for what must hold, `mutations.py` for the rules whose absence must be found.
"""

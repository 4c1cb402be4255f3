"""Random lives of sessions against a plain model.

A run is drawn from its seed alone: `python -m tests.lifecycle --seed N --trace` replays one.
"""

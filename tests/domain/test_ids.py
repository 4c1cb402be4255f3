"""Ids are random, of one form, and nobody else's."""

import re
import subprocess
import sys

from service.domain.ids import new_id


def test_ids_have_one_form_and_do_not_repeat() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in ids)
    assert len(set(ids)) == len(ids)


def test_a_forked_process_does_not_use_its_parents_ids() -> None:
    program = """
import os
from service.domain.ids import new_id
new_id()
if child := os.fork():
    os.waitpid(child, 0)
print(new_id(), flush=True)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    ours, theirs = printed.stdout.split()
    assert ours != theirs

import os
import sys
from pathlib import Path

from benchmarks import cores, processes


def test_a_server_is_apart_from_all_else_for_a_while(tmp_path: Path) -> None:
    everywhere = os.sched_getaffinity(0)
    server = processes.start([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, name="sleeper")
    try:
        with cores.apart(server):
            theirs, ours = os.sched_getaffinity(server.pid), os.sched_getaffinity(0)
            assert theirs | ours == everywhere
            assert len(everywhere) == 1 or (len(theirs) == 1 and not theirs & ours)
        assert os.sched_getaffinity(server.pid) == os.sched_getaffinity(0) == everywhere
    finally:
        server.kill()

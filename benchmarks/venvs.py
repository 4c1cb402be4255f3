"""Virtual environments of peers: made once under .cache, from pinned requirements."""

import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT

PEERS = Path(__file__).parent / "peers"
_CACHE = ROOT / ".cache" / "benchmarks"
_TIMEOUT_S = 300.0


class NotInstalledError(Exception):
    """A peer cannot be installed; the message says why, in a line."""


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, made if its requirements have changed."""
    requirements = PEERS / peer / "requirements.txt"
    folder = _CACHE / peer
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == requirements.read_text()):
        print(f"installing {peer} ...", file=sys.stderr, flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
        stamp.write_text(requirements.read_text())
    return python


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as exc:
        raise NotInstalledError((exc.stderr.strip().splitlines() or [str(exc)])[-1]) from exc
    except subprocess.TimeoutExpired as exc:
        raise NotInstalledError(f"not done in {_TIMEOUT_S:.0f} s") from exc

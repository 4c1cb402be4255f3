"""The distribution: what it needs, what is in it, and that it works on its own."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import chatsession
import pytest

PROJECT = Path(__file__).parents[2] / "clients" / "python"

_IMPORTED = """
import sys
import chatsession, chatsession.v1.error_reason_pb2
site = next(path for path in sys.path if path.endswith("site-packages"))
found = {name.partition(".")[0] for name, module in sys.modules.items()
         if (getattr(module, "__file__", None) or "").startswith(site)}
print(*sorted(found))
"""

_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def pip(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=_ENVIRONMENT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the source tree stays clean."""
    directory = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    source = shutil.copytree(PROJECT, directory / "source", ignore=skipped)
    built = pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(source))
    assert built.returncode == 0, built.stderr
    return next(directory.glob("*.whl"))


def test_needs_three_packages_and_no_more() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [
        "googleapis-common-protos>=1.72,<2",
        "grpcio>=1.76,<2",
        "protobuf>=6.33.5,<8",
    ]
    assert project["version"] == chatsession.__version__


@pytest.mark.timeout(300)
def test_the_wheel_holds_code_types_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name == "chatsession_client-0.1.0-py3-none-any.whl"
    assert {
        "chatsession/py.typed",
        "chatsession/cli/app.py",
        "chatsession/v1/chat_session_pb2.pyi",
        "chatsession/v1/chat_session_pb2_grpc.py",
        "chatsession_client-0.1.0.dist-info/licenses/LICENSE",
    } <= names


@pytest.mark.timeout(600)
def test_works_alone_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    if pip("download", "--no-deps", "--dest", str(tmp_path), "googleapis-common-protos>=1.72,<2").returncode:
        pytest.skip("NOT TESTED: the wheel in a clean environment, because pip reaches no package registry")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    scripts = tmp_path / "venv" / "bin"
    installed = pip("install", str(wheel), python=str(scripts / "python"))
    assert installed.returncode == 0, installed.stderr

    # -I: nothing of this source tree is seen. -W error: and nothing warns.
    imported = subprocess.run(
        [scripts / "python", "-I", "-W", "error", "-c", _IMPORTED], capture_output=True, text=True, timeout=60
    )
    assert imported.stderr == ""
    # What grpcio needs itself, and what the environment brings on Python 3.11.
    known = {"typing_extensions", "_distutils_hack"}
    assert set(imported.stdout.split()) - known == {"chatsession", "google", "grpc"}

    command = subprocess.run([scripts / "chatsession", "new"], capture_output=True, text=True, timeout=60, env={})
    assert command.returncode == 1
    assert command.stderr == (
        "chatsession: the command line needs more packages: pip install 'chatsession-client[cli]'\n"
    )

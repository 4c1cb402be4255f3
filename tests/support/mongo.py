"""A MongoDB for tests: MONGO_TEST_URI, else a `mongod` on PATH, else mongo-java-server (tests/mongo_server).

A conftest takes the fixtures it needs: `from tests.support.mongo import mongo_database, mongo_uri`. Tests that start
servers of their own, or harm the database, call `start_mongo()`.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
import pytest

_SOURCES = Path(__file__).parents[1] / "mongo_server"
_BUILT = _SOURCES / "target"
_START_TIMEOUT_S = 30.0
_BUILD_TIMEOUT_S = 300.0
_HOW = "set MONGO_TEST_URI, or put `mongod`, or `java` (17 or newer) with `mvn`, on PATH"


class NoMongo(Exception):
    """No MongoDB can be had; the message says how to get one."""


class MongoHandle:
    """A running MongoDB: its `uri`, and ways to end or harm it. A context manager that stops it.

    process: None for a server that is not ours; it is left alone, and `kill`, `suspend` and `resume` are refused.
    """

    def __init__(self, uri: str, process: subprocess.Popen[str] | None, clean_up: Callable[[], None]) -> None:
        self.uri = uri
        self._process = process
        self._clean_up = clean_up

    def stop(self) -> None:
        """End the server; may be called twice."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.communicate()
        self._clean_up()

    def kill(self) -> None:
        """End the server as a crash does. The Java server's data is gone then."""
        self._ours().kill()
        self._ours().wait()

    def suspend(self) -> None:
        """Let the server hang: connections stay, no answer comes."""
        self._ours().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server go on."""
        self._ours().send_signal(signal.SIGCONT)

    def _ours(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("this MongoDB was not started by the tests")
        return self._process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def start_mongo(*, own: bool = False, port: int = 0, heap: str = "1g") -> MongoHandle:
    """Return a running MongoDB; raises NoMongo.

    own: start one even if MONGO_TEST_URI names another, for tests that kill it.
    port: 0 takes a free one. heap: most memory for the Java server's data.
    """
    if (uri := os.environ.get("MONGO_TEST_URI")) and not own:
        return MongoHandle(uri, None, _nothing)
    if mongod := shutil.which("mongod"):
        return _start_mongod(mongod, port)
    if shutil.which("java") and shutil.which("mvn"):
        return _start_java(port, heap)
    raise NoMongo(f"no MongoDB for the tests: {_HOW}")


def database_name() -> str:
    """Return the name of a database that nobody else uses."""
    return f"test_{uuid.uuid4().hex[:20]}"


@pytest.fixture(scope="session")
def mongo_uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of a MongoDB for this test process; skips, with one loud line, if none can be had."""
    try:
        handle = start_mongo()
    except NoMongo as exc:
        _say_loudly(request.config, f"ALL TESTS WITH MONGODB ARE SKIPPED: {exc}")
        pytest.skip(str(exc))
    with handle:
        yield handle.uri


@pytest.fixture(scope="session")
def mongo_client(mongo_uri: str) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    """A blocking client, to look behind the store's back and to clean up."""
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        yield client


@pytest.fixture
def mongo_database(mongo_client: pymongo.MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database for one test, dropped after it."""
    name = database_name()
    yield name
    mongo_client.drop_database(name)


def _say_loudly(config: pytest.Config, line: str) -> None:
    """Write to the terminal; in xdist's workers, which have none, the reason of the skip has to do."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    if reporter and capture:
        with capture.global_and_fixture_disabled():
            reporter.write_line(line, red=True, bold=True)


def _nothing() -> None:
    pass


def _start_java(port: int, heap: str) -> MongoHandle:
    _build()
    command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Xmx{heap}"]
    command += ["-cp", f"{_BUILT / 'classes'}:{_BUILT / 'dependency'}/*", "MongoTestServer", str(port)]
    # The server ends when its standard input closes: with this process, however that ends.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    bound = process.stdout.readline().strip()
    if not bound:
        raise NoMongo(f"mongo-java-server did not start (exit status {process.wait()}): {_HOW}")
    return MongoHandle(f"mongodb://127.0.0.1:{bound}", process, _nothing)


def _build() -> None:
    """Compile the Java server unless its sources are those of the last build; one process at a time."""
    sources = sorted([_SOURCES / "pom.xml", *_SOURCES.glob("src/**/*.java")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = _BUILT / "sources.sha256"
    _BUILT.mkdir(exist_ok=True)
    with _locked(_BUILT / "lock"):
        if stamp.exists() and stamp.read_text() == digest:
            return
        command = ["mvn", "-q", "-B", "-f", str(_SOURCES), "package", "dependency:copy-dependencies"]
        built = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False)
        if built.returncode:
            raise NoMongo(f"mongo-java-server cannot be built: {_HOW}\n{built.stdout}{built.stderr}")
        stamp.write_text(digest)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start_mongod(mongod: str, port: int) -> MongoHandle:
    """Start a replica set of one, so that it has sessions and majority reads as production has."""
    directory = tempfile.mkdtemp(prefix="mongo-test-")
    port = port or _free_port()
    command = [mongod, "--dbpath", directory, "--bind_ip", "127.0.0.1", "--port", str(port), "--replSet", "test"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    address = f"127.0.0.1:{port}"
    handle = MongoHandle(
        f"mongodb://{address}/?replicaSet=test", process, lambda: shutil.rmtree(directory, ignore_errors=True)
    )
    try:
        _initiate(address)
    except BaseException:
        handle.stop()
        raise
    return handle


def _initiate(address: str) -> None:
    limit_ms = int(_START_TIMEOUT_S * 1000)
    with pymongo.MongoClient[dict[str, Any]](
        f"mongodb://{address}/?directConnection=true", serverSelectionTimeoutMS=limit_ms
    ) as client:
        client.admin.command("replSetInitiate", {"_id": "test", "members": [{"_id": 0, "host": address}]})
        due_s = time.monotonic() + _START_TIMEOUT_S
        while not client.admin.command("hello")["isWritablePrimary"]:
            if time.monotonic() > due_s:
                raise NoMongo(f"mongod did not become primary: {_HOW}")
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

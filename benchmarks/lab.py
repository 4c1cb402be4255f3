"""What all comparisons share: database, provider, load generator, and the servers that were started."""

import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo.database import Database

from benchmarks import measure, preload, processes, venvs
from benchmarks.load import Load
from benchmarks.measure import Sample
from benchmarks.plans import Outcome, Plan
from benchmarks.processes import Server
from tests.support.mongo import database_name, start_mongo

# For what servers do behind their answers, such as archiving, to be counted too.
_SETTLE_S = 0.6
# The same where nothing is measured.
_WARM_SETTLE_S = 0.3
# Rivals that would otherwise call home.
_QUIET = {
    "LANGSMITH_TRACING": "false",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Size:
    """How much to do. scale: of the number of operations in each round."""

    rounds: int
    scale: float = 1.0

    def ops(self, count: int) -> int:
        """Return a number of operations for this size."""
        return max(1, round(count * self.scale))


class Lab:
    """A context manager that ends everything it has started."""

    cores = os.cpu_count()

    def __init__(self, size: Size) -> None:
        self.size = size
        self._opened = ExitStack()
        self._servers = ExitStack()
        self._keeps_logs = False

    def __enter__(self) -> Self:
        processes.allow_many_files()
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.mongo_uri = self._opened.enter_context(start_mongo()).uri
        self.load = self._opened.enter_context(Load())
        self.provider = processes.start_module("benchmarks.provider", self.folder)
        self._opened.callback(self.provider.stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop_servers()
        self._opened.close()
        if exc is None and not self._keeps_logs:
            shutil.rmtree(self.folder)
        else:
            print(f"the logs of the servers are in {self.folder}", file=sys.stderr)

    def keep_logs(self) -> None:
        """Leave the servers' logs behind, to see why something failed."""
        self._keeps_logs = True

    def keep(self, server: Server) -> Server:
        """Stop a server at the end of the comparison."""
        self._servers.callback(server.stop)
        return server

    def stop_servers(self) -> None:
        """Stop all that a comparison has started, and drop its databases."""
        self._servers.close()

    def new_database(self) -> Database[dict[str, Any]]:
        """Return a database of its own for a comparison."""
        database = preload.connect(self.mongo_uri, database_name())
        self._servers.callback(database.client.close)
        self._servers.callback(database.client.drop_database, database.name)
        return database

    def start_service(self, database: str | None, **settings: str) -> Server:
        """Start the service on a database of MongoDB, or with None on a SQLite file."""
        if database is not None:
            settings = {"MONGO_URI": self.mongo_uri, "MONGO_DATABASE": database, **settings}
        settings = {"OPENAI_BASE_URL": f"{self.provider.http}/v1", "OPENAI_API_KEY": "key", **settings}
        return self.keep(processes.start_service(self.folder, **settings))

    def start_peer(self, name: str, database: str, *options: str) -> Server:
        """Start a bare peer: `bare` or `parts`."""
        arguments = (self.mongo_uri, database, self.provider.http, *options)
        return self.keep(processes.start_module(f"benchmarks.peers.{name}", self.folder, *arguments))

    def start_seed_style(self, database: str) -> Server:
        """Start the seed-style app with one worker; raises NotInstalledError."""
        port = processes.free_port()
        command = [str(venvs.python_of("seed_style")), "-m", "uvicorn", "benchmarks.peers.seed_style.app:app"]
        settings = {
            "MONGO_URI": self.mongo_uri,
            "MONGO_DATABASE": database,
            "OPENAI_BASE_URL": f"{self.provider.http}/v1",
        }
        server = processes.start([*command, "--port", str(port)], self.folder, name="seed_style", settings=settings)
        self.keep(server).wait_for_port(port)
        server.http = f"http://127.0.0.1:{port}"
        return server

    def start_rival(self, name: str, *command: str) -> Server:
        """Start a server of `peers/NAME` in a copy of its folder, as it keeps data there; raises NotInstalledError.

        command: a program of its environment with arguments; `--port` is added.
        """
        port = processes.free_port()
        folder = self.folder / name
        shutil.copytree(venvs.PEERS / name, folder, dirs_exist_ok=True)
        programs = venvs.python_of(name).parent
        settings = {
            "OPENAI_BASE_URL": f"{self.provider.http}/v1",
            "OPENAI_API_KEY": "key",
            "PATH": f"{programs}:{os.environ['PATH']}",
            **_QUIET,
        }
        server = processes.start(
            [str(programs / command[0]), *command[1:], "--port", str(port)], folder, name=name, settings=settings
        )
        self.keep(server).wait_for_port(port)
        server.http = f"http://127.0.0.1:{port}"
        return server

    def start_no_op(self) -> Server:
        """Start the service's layers over a servicer that does nothing."""
        return self.keep(processes.start_module("benchmarks.peers.no_op", self.folder))

    def start_gateway(self, name: str, upstream: Server) -> Server:
        """Start `grpc-gateway` or `envoy` in front of a server's gRPC port; raises NotInstalledError."""
        try:
            server = processes.start_module("benchmarks.peers.gateway", self.folder, name, upstream.grpc)
        except processes.NotStartedError as exc:
            raise venvs.NotInstalledError(f"{name}: {str(exc).strip().splitlines()[-1]}") from exc
        return self.keep(server)

    def warm(self, plan: Plan) -> None:
        """Carry a plan out without measuring; raises if a call fails, as what follows would measure failures."""
        outcome: Outcome = self.load.run(plan)
        if outcome.errors:
            raise RuntimeError(f"{len(outcome.errors)} calls failed: {outcome.errors[0]}")
        time.sleep(_WARM_SETTLE_S)

    def sample(self, plan: Plan, *servers: Server) -> Sample:
        """Carry a plan out and measure what it costs the servers."""
        before = [server.cpu_by_pid_s() for server in servers]
        provider_before = measure.cpu_s(self.provider.pid)
        outcome: Outcome = self.load.run(plan)
        provider_s = measure.cpu_s(self.provider.pid) - provider_before
        time.sleep(_SETTLE_S)
        by_pid = {
            pid: after_s - earlier.get(pid, 0.0)
            for server, earlier in zip(servers, before, strict=True)
            for pid, after_s in server.cpu_by_pid_s().items()
        }
        if outcome.errors:
            print(f"  {len(outcome.errors)} errors, such as {outcome.errors[0][:200]}", file=sys.stderr)
        return Sample(
            ops=len(outcome.latencies_ms),
            wall_s=outcome.wall_s,
            cpu_s=sum(by_pid.values()),
            latencies_ms=outcome.latencies_ms,
            first_ms=outcome.first_ms,
            errors=len(outcome.errors),
            busy={"load": outcome.cpu_s / outcome.wall_s, "provider": provider_s / outcome.wall_s},
            cpu_by_pid_s=by_pid,
        )

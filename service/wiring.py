"""Puts the parts together: the only module that knows them all. Starts them in order, stops them last opened first."""

import asyncio
import resource
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import grpc
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from service.config import Config, ConfigError, join_address, split_address
from service.domain import words
from service.domain.entities import utc_now
from service.domain.erasing import Eraser
from service.domain.exporting import Exporter
from service.domain.history import History
from service.domain.ids import new_id
from service.domain.importing import Importer
from service.domain.lag import LagWatch
from service.domain.lifetime import Lifetimes
from service.domain.listing import SessionLister
from service.domain.log import Log
from service.domain.ports import ChatModel, SessionStore
from service.domain.purger import Purger
from service.domain.runner import TurnLimits
from service.domain.searching import MessageSearch
from service.domain.sessions import Sessions
from service.domain.tasks import TaskOwner
from service.domain.turns import Turns
from service.llm.late import LateModel
from service.llm.retrying import RetryingModel
from service.rest import Limits as RestLimits
from service.rest import Listener, ListenerLimits, RestApp
from service.rpc.constraints import CONSTRAINTS
from service.rpc.health import Readiness
from service.rpc.inprocess import InProcessInvoker
from service.rpc.pipeline import SENDS, SERVICE_NAME, CallLimits, Handlers, build_handlers, build_refusals
from service.rpc.probe import Probe
from service.rpc.server import CLIENTS_TAKE_BYTES, Door, build_server
from service.rpc.servicer import ChatSessionServicer
from service.rpc.status import DOMAIN
from service.threads import make_batch_threads

_CONTRACT = Path(__file__).parent / "rpc" / "contract.binpb"
# For calls that have their answer, to get it out. Health watches last until then.
_LAST_CALLS_S = 2.0
# Calls, open at once, beyond those of the turns that run: watchers, reads, health.
_FURTHER_CALLS = 20_000
_TOKENS_PER_MIB = 1024 * 1024 // 3


_SEND_EXAMPLE = {"sessionId": "the-sessionId-that-POST-session-answered", "message": "Hello"}
_EXAMPLES = {f"{SERVICE_NAME}.{method}": _SEND_EXAMPLE for method in ("SendMessage", "StreamMessage")}


class StartError(Exception):
    """A part could not start; one line that says which and why."""


class Service:
    """The whole service in one process.

    reuse_port: share the ports with other processes.
    on_loaded: called behind the start, once all modules are there; not if the model's SDK cannot be loaded.
    """

    def __init__(
        self, config: Config, log: Log, *, reuse_port: bool = False, on_loaded: Callable[[], None] = lambda: None
    ) -> None:
        self._config = config
        self._log = log
        self._reuse_port = reuse_port
        self._on_loaded = on_loaded
        self._opened = AsyncExitStack()
        self._background = TaskOwner()
        self._hurried = asyncio.Event()
        self.grpc_port = 0
        self.http_port = 0
        self._turns: Turns
        self._readiness: Readiness
        self._server: grpc.aio.Server
        self._rest: RestApp
        self._listener: Listener

    async def start(self) -> None:
        """Open everything and serve; raises StartError or ConfigError, with nothing left open."""
        try:
            await self._start()
        except BaseException:
            await self._background.cancel()
            await self._opened.aclose()
            raise

    async def _start(self) -> None:
        config = self._config
        store = await self._open_store()
        model = LateModel(self._load_model)
        self._opened.push_async_callback(model.close)
        if config.uses_demo_model:
            self._log.warning("no OPENAI_API_KEY and no OPENAI_BASE_URL: the built-in demo model answers")
        self._turns = Turns(
            store,
            RetryingModel(model, max_attempts=config.model_attempts),
            context_tokens=config.context_tokens,
            recent_tokens=config.session_cache_mib * _TOKENS_PER_MIB,
            limits=TurnLimits(
                lease_s=config.lease_seconds,
                turn_timeout_s=config.turn_timeout_seconds,
                heartbeat_s=config.heartbeat_seconds,
                max_waiting=config.max_waiting,
            ),
            max_turns=config.max_turns,
            now=utc_now,
            new_id=new_id,
            clock=time.monotonic,
            log=self._log,
        )
        self._readiness = Readiness(store.ping, log=self._log)
        await self._readiness.start()
        await self._readiness.check()
        lifetimes = _lifetimes(config)
        purger = Purger(
            store,
            lifetimes=lifetimes,
            interval_s=config.purge_interval_seconds,
            rate=config.purge_rate,
            now=utc_now,
            log=self._log,
        )
        eraser = Eraser(
            store,
            purger,
            interval_s=config.purge_interval_seconds,
            now=utc_now,
            new_id=new_id,
            log=self._log,
        )
        servicer = ChatSessionServicer(
            Sessions(store, lifetimes=lifetimes, now=utc_now, new_id=new_id, on_delete=self._turns.stop_deleted),
            self._turns.sender,
            self._turns.watcher,
            History(store, now=utc_now),
            exporter=Exporter(store, now=utc_now),
            importer=Importer(
                store, lifetimes=lifetimes, max_bytes=config.import_max_bytes, now=utc_now, new_id=new_id
            ),
            eraser=eraser,
            lister=SessionLister(store, now=utc_now),
            search=MessageSearch(store, now=utc_now),
        )
        limits = CallLimits(config.unary_timeout_seconds, config.stream_timeout_seconds)
        wire_limits = replace(limits, message_bytes=CLIENTS_TAKE_BYTES)
        refusals = build_refusals(SENDS, self._turns.admission.refusal, log=self._log)
        door = Door(lambda: self._turns.admission.is_full, refusals)
        await self._serve_grpc(build_handlers(servicer, limits=wire_limits, log=self._log), door)
        await self._serve_http(build_handlers(servicer, limits=limits, log=self._log))
        self._background.start(self._readiness.run())
        self._background.start(LagWatch(self._log).run())
        self._background.start(make_batch_threads())
        self._background.start(self._turns.reaper.run())
        self._background.start(purger.run())
        self._background.start(eraser.run())
        self._log.info(
            "serving",
            grpc=join_address(config.grpc_address, self.grpc_port),
            http=f"http://{join_address(config.http_address, self.http_port)}",
            health=self._readiness.status(""),
        )
        self._background.start(self._load_the_rest(model))

    async def _open_store(self) -> SessionStore:
        config = self._config
        timeout_s = config.store_timeout_seconds
        if config.mongo_uri is not None:
            # Its drivers take a quarter second to load.
            from service.store.mongo import MongoStore, UnusableDatabaseName, UnusableUri

            mongo = MongoStore(
                config.mongo_uri.get_secret_value(), config.mongo_database, operation_timeout_s=timeout_s
            )
            try:
                await mongo.open()
            except UnusableUri as exc:
                raise ConfigError(f"MONGO_URI: {exc}") from exc
            except UnusableDatabaseName as exc:
                raise ConfigError(f"MONGO_DATABASE: {exc}") from exc
            self._opened.push_async_callback(mongo.close)
            self._log.info("store", kind="MongoDB", database=config.mongo_database)
            return mongo
        from service.store.sqlite import SqliteStore, UnusableFile

        sqlite = SqliteStore(config.sqlite_path, operation_timeout_s=timeout_s)
        try:
            await sqlite.open()
        except UnusableFile as exc:
            raise StartError(f"SQLITE_PATH: {exc}") from exc
        self._opened.push_async_callback(sqlite.close)
        self._log.info("store", kind="SQLite", path=config.sqlite_path)
        return sqlite

    async def _load_model(self, opened: AsyncExitStack) -> ChatModel:
        """Make the model and load its SDK, which takes a second: behind the start, in a thread."""
        await asyncio.to_thread(import_module, "service.llm.openai")
        from service.llm.openai import Limits, OpenAIModel

        config = self._config
        base_url, api_key = config.openai_base_url, config.openai_api_key
        if config.uses_demo_model:
            await asyncio.to_thread(import_module, "service.llm.demo")
            from service.llm.demo import DemoServer

            demo = DemoServer()
            base_url = await demo.start()
            opened.push_async_callback(demo.stop)
        model = OpenAIModel(
            model=config.openai_model,
            api_key=api_key.get_secret_value() if api_key else None,
            base_url=base_url,
            streaming=config.openai_streaming,
            limits=Limits(
                connect_s=config.connect_timeout_seconds,
                first_token_s=config.first_token_timeout_seconds,
                silence_s=config.stall_timeout_seconds,
            ),
        )
        opened.push_async_callback(model.close)
        await model.open()
        return model

    async def _load_the_rest(self, model: LateModel) -> None:
        """Load, behind the start, what the first calls would wait for."""
        await asyncio.to_thread(words.prepare)
        try:
            await model.open()
        except Exception:
            self._log.exception("the model's SDK could not be loaded")
        else:
            self._on_loaded()

    async def _serve_grpc(self, handlers: Handlers, door: Door) -> None:
        self._server = build_server(
            handlers,
            self._readiness.servicer,
            door=door,
            reuse_port=self._reuse_port,
            max_calls=self._config.max_turns + _FURTHER_CALLS,
        )
        try:
            self.grpc_port = self._server.add_insecure_port(self._config.grpc_address)
        except RuntimeError as exc:
            raise StartError(f"GRPC_ADDRESS: cannot listen on {self._config.grpc_address}") from exc
        await self._watch_admission()
        await self._server.start()
        self._opened.push_async_callback(self._server.stop, 0)

    async def _watch_admission(self) -> None:
        """Measure how long callers wait; without it only the bounds hold."""
        try:
            probe = Probe(self._server)
        except RuntimeError as exc:
            self._log.warning("no overload control: the process cannot call itself", error=str(exc))
            return
        self._opened.push_async_callback(probe.close)
        self._background.start(self._turns.admission.watch(probe))

    async def _serve_http(self, handlers: Handlers) -> None:
        config = self._config
        self._rest = build_rest_app(config, InProcessInvoker(handlers), self._readiness.status)
        host, port = split_address(config.http_address)
        self._listener = Listener(
            self._rest,
            host=host,
            port=port,
            limits=ListenerLimits(max_connections=self._most_connections()),
            domain=DOMAIN,
            reuse_port=self._reuse_port,
        )
        try:
            await self._listener.start()
        except OSError as exc:
            raise StartError(f"HTTP_ADDRESS: cannot listen on {config.http_address}: {exc.strerror}") from exc
        self.http_port = self._listener.port
        self._opened.push_async_callback(self._listener.stop, 0)

    def _most_connections(self) -> int:
        """As many as is set, or half of the files that may be open: a caller may need another one to the model."""
        wanted, files = self._config.max_http_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if wanted > files // 2:
            self._log.warning(
                "too few open files allowed for MAX_HTTP_CONNECTIONS", files=files, connections=files // 2
            )
        return min(wanted, files // 2)

    async def stop(self, grace_s: float) -> None:
        """Stop in good order: no new turns, running ones get the grace, the rest is handed over, stores close last."""
        await self._background.cancel()
        await self._readiness.stop()
        await self._turns.drain(grace_s, self._hurried)
        self._rest.drain()
        await asyncio.gather(self._server.stop(_LAST_CALLS_S), self._listener.stop(_LAST_CALLS_S))
        await self._opened.aclose()

    def hurry(self) -> None:
        """Cut the grace of a stop that is under way to nothing."""
        self._hurried.set()


def _lifetimes(config: Config) -> Lifetimes:
    def seconds(value: float | None) -> timedelta | None:
        return None if value is None else timedelta(milliseconds=round(value * 1000))

    return Lifetimes(
        ttl=seconds(config.session_ttl_seconds),
        max_ttl=seconds(config.session_max_ttl_seconds),
        idle_ttl=seconds(config.session_idle_ttl_seconds),
        max_idle_ttl=seconds(config.session_max_idle_ttl_seconds),
        grace=timedelta(milliseconds=round(config.purge_grace_seconds * 1000)),
    )


def build_rest_app(config: Config, invoker: InProcessInvoker, ready: Callable[[str], str]) -> RestApp:
    """Build the REST shim over the contract."""
    return RestApp(
        [pb.DESCRIPTOR.services_by_name["ChatSessionService"]],
        invoker,
        title="Chat Session Service",
        version=version("chat-session-service"),
        description="Keeps chat sessions with a language model, and never loses a message.",
        domain=DOMAIN,
        source_info=FileDescriptorSet.FromString(_CONTRACT.read_bytes()),
        event_id=_cursor_of,
        uploads=True,
        ready=ready,
        examples=_EXAMPLES,
        constraints=CONSTRAINTS,
        limits=RestLimits(
            unary_timeout_s=config.unary_timeout_seconds,
            stream_timeout_s=config.stream_timeout_seconds,
            max_upload_bytes=config.import_max_bytes,
            heartbeat_s=config.heartbeat_seconds,
        ),
        cors_origins=config.cors_origins,
    )


def _cursor_of(message: object) -> str:
    return message.cursor if isinstance(message, pb.TurnEvent) else ""

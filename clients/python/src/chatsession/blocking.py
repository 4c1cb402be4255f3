"""The client for programs without an event loop: AsyncChatClient, run by a loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import grpc

from chatsession.answer import Answer
from chatsession.channel import Option
from chatsession.client import DEFAULT_POLICY, AsyncChatClient
from chatsession.events import Event
from chatsession.retry import RetryPolicy
from chatsession.rpcs import Metadata
from chatsession.stream import AnswerStream
from chatsession.v1.chat_session_pb2 import Turn

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_UP_S = 0.2


class _Call(Generic[T]):
    """A coroutine that a loop runs for another thread.

    That thread may be interrupted anywhere, so it touches no lock but one of C: what is written in Python may be left
    locked, and the loop with it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def start(self) -> None:
        """Begin; in the loop."""
        self._task = asyncio.create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            task.exception()  # nobody may be left to ask
        self._running.release()

    def cancel(self) -> None:
        """End it, whether or not it began; in the loop."""
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()

    def result(self) -> T:
        """Wait for the result."""
        # Python may sleep through a signal that comes just before an endless wait: look up now and then.
        while not self._running.acquire(timeout=_LOOK_UP_S):
            pass
        assert self._task is not None
        return self._task.result()


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), name="chatsession", daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return its result; an interrupt here cancels it there."""
        loop, call = self._started.result(), _Call(coroutine)
        try:
            loop.call_soon_threadsafe(call.start)
            return call.result()
        except BaseException:
            # Also of one that an interrupt came upon before it was known to have begun: it would go on, and take what
            # is the next one's.
            loop.call_soon_threadsafe(call.cancel)
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an asynchronous iterator yields."""
        while True:
            try:
                item = self.run(_next(items))
            except StopAsyncIteration:
                return
            yield item

    def stop(self) -> None:
        """End the loop and the thread."""
        self._started.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


class BlockingAnswerStream:
    """AnswerStream with `for` and `with` in place of `async for` and `async with`."""

    def __init__(self, stream: AnswerStream, loop: _LoopThread) -> None:
        self._stream = stream
        self._loop = loop

    @property
    def session_id(self) -> str:
        """The session of the turn."""
        return self._stream.session_id

    @property
    def request_id(self) -> str | None:
        """The request id that the message is sent with; None for an attached turn."""
        return self._stream.request_id

    @property
    def turn_id(self) -> str | None:
        """The turn; None until the message is accepted."""
        return self._stream.turn_id

    @property
    def turn(self) -> Turn | None:
        """The turn as it was told last."""
        return self._stream.turn

    @property
    def text(self) -> str:
        """All the text that has come and holds."""
        return self._stream.text

    @property
    def cursor(self) -> str:
        """Where the stream stands, for `attach`."""
        return self._stream.cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return self._loop.iterate(aiter(self._stream))

    def events(self) -> Iterator[Event]:
        """As `AnswerStream.events`."""
        return self._loop.iterate(self._stream.events())

    def answer(self) -> Answer:
        """As `AnswerStream.answer`."""
        return self._loop.run(self._stream.answer())

    def cancel(self) -> Turn | None:
        """As `AnswerStream.cancel`; may be called from another thread."""
        return self._loop.run(self._stream.cancel())

    def close(self) -> None:
        """Cancel the call. Iterating again attaches anew."""
        self._loop.run(self._stream.aclose())


def _blocking(
    method: Callable[Concatenate[AsyncChatClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["ChatClient", P], T]:
    @wraps(method)
    def call(self: "ChatClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncChatClient, P], AsyncIterator[T]],
) -> Callable[Concatenate["ChatClient", P], Iterator[T]]:
    @wraps(method)
    def call(self: "ChatClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._loop.iterate(method(self._client, *args, **kwargs))

    return call


def _streaming(
    method: Callable[Concatenate[AsyncChatClient, P], AnswerStream],
) -> Callable[Concatenate["ChatClient", P], BlockingAnswerStream]:
    @wraps(method)
    def call(self: "ChatClient", /, *args: P.args, **kwargs: P.kwargs) -> BlockingAnswerStream:
        return BlockingAnswerStream(method(self._client, *args, **kwargs), self._loop)

    return call


class ChatClient:
    """AsyncChatClient for programs without an event loop: same arguments, same errors, `with` and `for`.

    May be shared by threads. Not for use inside a running event loop, which it would block.
    """

    def __init__(
        self,
        target: str,
        *,
        secure: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        timeout_s: float = 60.0,
        stream_timeout_s: float = 600.0,
        retry: RetryPolicy = DEFAULT_POLICY,
        options: Sequence[Option] = (),
        interceptors: Sequence[Any] = (),
    ) -> None:
        """Arguments as in AsyncChatClient."""
        self._client = AsyncChatClient(
            target,
            secure=secure,
            credentials=credentials,
            metadata=metadata,
            timeout_s=timeout_s,
            stream_timeout_s=stream_timeout_s,
            retry=retry,
            options=options,
            interceptors=interceptors,
        )
        self._loop = _LoopThread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread. Calls that still run are cancelled; turns go on."""
        self._loop.run(self._client.close())
        self._loop.stop()

    create_session = _blocking(AsyncChatClient.create_session)
    get_session = _blocking(AsyncChatClient.get_session)
    list_sessions = _iterating(AsyncChatClient.list_sessions)
    update_session = _blocking(AsyncChatClient.update_session)
    delete_session = _blocking(AsyncChatClient.delete_session)
    undelete_session = _blocking(AsyncChatClient.undelete_session)
    search_messages = _iterating(AsyncChatClient.search_messages)
    export_session = _iterating(AsyncChatClient.export_session)
    import_session = _blocking(AsyncChatClient.import_session)
    erase_owner = _blocking(AsyncChatClient.erase_owner)
    get_erasure = _blocking(AsyncChatClient.get_erasure)
    send = _blocking(AsyncChatClient.send)
    stream = _streaming(AsyncChatClient.stream)
    attach = _streaming(AsyncChatClient.attach)
    get_turn = _blocking(AsyncChatClient.get_turn)
    cancel_turn = _blocking(AsyncChatClient.cancel_turn)
    history = _iterating(AsyncChatClient.history)
    history_pages = _iterating(AsyncChatClient.history_pages)

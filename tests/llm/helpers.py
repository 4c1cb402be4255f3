"""What the tests of the model adapter share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from service.domain.entities import ModelSettings, Role
from service.domain.errors import ModelError
from service.domain.ports import ChatModel, ContextMessage, Finish, ModelRequest
from service.llm.openai import OpenAIModel
from tests.support.proxy import accepted_are_served

MakeModel = Callable[..., Awaitable[OpenAIModel]]
"""Makes a model that is open, of its base URL and further options."""

KEY = "sk-proj-Secret_1234567890"


def ask(model: str | None = None, text: str = "hi", *, system: str = "", **settings: object) -> ModelRequest:
    messages = [ContextMessage(Role.SYSTEM, system)] if system else []
    return ModelRequest([*messages, ContextMessage(Role.USER, text)], ModelSettings(model=model, **settings))


@dataclass
class Outcome:
    pieces: list[str] = field(default_factory=list)
    finish: Finish | None = None
    error: ModelError | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


async def outcome_of(model: ChatModel, request: ModelRequest) -> Outcome:
    """Return all that a call gives, and check the order that the port promises."""
    outcome = Outcome()
    try:
        async with aclosing(model.stream(request)) as stream:
            async for piece in stream:
                assert outcome.finish is None, "nothing comes after Finish"
                if isinstance(piece, Finish):
                    outcome.finish = piece
                else:
                    assert piece, "no piece is empty"
                    outcome.pieces.append(piece)
    except ModelError as error:
        outcome.error = error
    assert (outcome.finish is None) != (outcome.error is None)
    return outcome


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def head(status: str, content_type: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def sending(*parts: bytes) -> Handler:
    """Return a handler that writes these parts, each as a packet of its own, and ends the connection in good order."""

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)

    return handle


@asynccontextmanager
async def raw_server(handle: Handler, requests: list[bytes] | None = None) -> AsyncIterator[str]:
    """Serve every connection by hand, once its request is read; gives the base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            request += await reader.readexactly(_content_length(request.splitlines()))
            if requests is not None:
                requests.append(request)
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await accepted_are_served()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def _content_length(lines: Iterable[bytes]) -> int:
    return next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)

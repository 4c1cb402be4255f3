"""The bare handler: `python -m benchmarks.peers.bare MONGO_URI DATABASE PROVIDER_URL`.

One RPC handler that makes a turn's store calls and a bare POST in a row, and keeps no promise: no lease, no check of a
write's outcome, no retry, no deadline, no log. It serves the same methods, so that the same load can be sent to it.
It has what is known to pay: uvloop, orjson, kept collection objects, kept connections, Motor with few threads.
"""

import argparse
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

# Read by Motor when it is imported; the service's own choice.
os.environ.setdefault("MOTOR_MAX_WORKERS", "8")

import aiohttp
import grpc
import orjson
import uvloop
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

_MODEL = "gpt-3.5-turbo"
_CONTEXT_TURNS = 50


class BareHandler(pb_grpc.ChatSessionServiceServicer):
    """Look, accept, ask, end, archive; the context is read once and then kept.

    looks: read the session before each turn; else only before the first, as a process that remembers it does.
    """

    def __init__(self, database: Any, http: aiohttp.ClientSession, url: str, *, streamed: bool, looks: bool) -> None:
        self._sessions = database.get_collection("sessions")
        self._turns = database.get_collection("turns")
        self._http = http
        self._url = url
        self._streamed = streamed
        self._looks = looks
        self._known: dict[str, dict[str, Any]] = {}
        self._contexts: dict[str, list[dict[str, str]]] = {}

    async def SendMessage(self, request: pb.SendMessageRequest, _context: Any) -> pb.SendMessageResponse:
        key = {"_id": request.session_id}
        session = None if self._looks else self._known.get(request.session_id)
        if session is None:
            session = self._known[request.session_id] = await self._sessions.find_one(key)
        context = self._contexts.get(request.session_id)
        if context is None:
            context = self._contexts[request.session_id] = await self._read_context(session)
        now = datetime.now(UTC)
        turn = {
            "turn_id": uuid4().hex,
            "request_key": f"s:{uuid4().hex}",
            "user_text": request.message,
            "sent_settings": {},
            "settings": {},
            "first_seq": session["last_seq"] + 1,
            "attempt": 1,
            "create_time": now,
        }
        active = {
            **turn,
            "on_disconnect": "CONTINUE",
            "deadline": now + timedelta(minutes=10),
            "state": "RUNNING",
            "lease_id": uuid4().hex,
            "fence": session["fence"] + 1,
            "beat": 0,
            "released": False,
            "cancel": False,
            "parts": [],
        }
        await self._sessions.update_one(key, {"$set": {"fence": active["fence"], "update_time": now, "active": active}})
        context.append({"role": "user", "content": request.message})
        text = await self._ask(context)
        context.append({"role": "assistant", "content": text})
        ending = {
            "state": "COMPLETED",
            "text": text,
            "n": 2,
            "last_seq": turn["first_seq"] + 1,
            "fence": active["fence"],
            "end_time": datetime.now(UTC),
            "finish_reason": "STOP",
            "model": _MODEL,
        }
        change = {"active.state": "ENDED", "active.ending": ending, "last_seq": ending["last_seq"]}
        await self._sessions.update_one(key, {"$set": change, "$unset": {"active.parts": ""}})
        session["fence"], session["last_seq"] = active["fence"], ending["last_seq"]
        uid = session["uid"]
        await self._turns.insert_one({"_id": f"{uid}:{turn['first_seq']:010d}", "uid": uid, **turn, "ending": ending})
        return pb.SendMessageResponse(response=text)

    async def StreamMessage(self, request: pb.SendMessageRequest, _context: Any) -> AsyncIterator[pb.TurnEvent]:
        """Pass each event on as it comes; no store."""
        body = self._body([{"role": "user", "content": request.message}], request.settings.model or _MODEL)
        rest = b""
        async with self._http.post(self._url, data=body) as response:
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if text := _text_of(event):
                        yield pb.TurnEvent(cursor="c", delta=pb.TextDelta(text=text))

    async def GetTurn(self, request: pb.GetTurnRequest, _context: Any) -> pb.Turn:
        """The call that does nothing."""
        return pb.Turn()

    async def _read_context(self, session: dict[str, Any]) -> list[dict[str, str]]:
        cursor = self._turns.find({"uid": session["uid"]}, sort=[("_id", -1)], limit=_CONTEXT_TURNS, hint="_id_")
        messages: list[dict[str, str]] = []
        for turn in reversed(await cursor.to_list(_CONTEXT_TURNS)):
            messages.append({"role": "user", "content": turn["user_text"]})
            messages.append({"role": "assistant", "content": turn["ending"]["text"]})
        return messages

    async def _ask(self, context: list[dict[str, str]]) -> str:
        async with self._http.post(self._url, data=self._body(context, _MODEL)) as response:
            data = await response.read()
        if not self._streamed:
            answer: str = orjson.loads(data)["choices"][0]["message"]["content"]
            return answer
        return "".join(map(_text_of, data.split(b"\n\n")))

    def _body(self, context: list[dict[str, str]], model: str) -> bytes:
        body: dict[str, Any] = {"model": model, "messages": context, "stream": self._streamed}
        if self._streamed:
            body["stream_options"] = {"include_usage": True}
        return orjson.dumps(body)


def _text_of(event: bytes) -> str:
    """Return the text of an event's line, if it has any."""
    if not event.startswith(b"data: {"):
        return ""
    choices = orjson.loads(event[6:])["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


def connect(uri: str, database: str) -> Any:
    """Return the database with the service's concerns: as safe, and as dear."""
    client: Any = AsyncIOMotorClient(uri, retryWrites=False, retryReads=False)
    return client.get_database(
        database, read_concern=ReadConcern("majority"), write_concern=WriteConcern("majority", j=True)
    )


def open_http() -> aiohttp.ClientSession:
    """Return a session that keeps its connections."""
    return aiohttp.ClientSession(
        headers={"Content-Type": "application/json", "Authorization": "Bearer key", "Accept-Encoding": "identity"},
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _serve(told: argparse.Namespace) -> None:
    database = connect(told.mongo_uri, told.database)
    url = f"{told.provider}/v1/chat/completions"
    handler = BareHandler(database, open_http(), url, streamed=not told.whole, looks=not told.remember)
    server = grpc.aio.server()
    pb_grpc.add_ChatSessionServiceServicer_to_server(handler, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def arguments() -> argparse.ArgumentParser:
    """Return a parser of what a peer of this kind is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mongo_uri")
    parser.add_argument("database")
    parser.add_argument("provider")
    parser.add_argument("--whole", action="store_true", help="ask for whole answers instead of streams")
    parser.add_argument("--remember", action="store_true", help="do not read a session that was read before")
    return parser


if __name__ == "__main__":
    uvloop.run(_serve(arguments().parse_args()))

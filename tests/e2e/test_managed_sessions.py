"""Sessions are managed over either face: created once, changed, gone and back, expired at the instant, removed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.e2e.conftest import Settings, store_and_face
from tests.e2e.refusals import check_refused
from tests.e2e.waiting import first_text
from tests.support.calls import Caller, send_request
from tests.support.door import connect
from tests.support.server import running_server
from tests.support.waiting import until

_SLOW = "demo/slow:chunks=200,delay_ms=100"


@pytest_asyncio.fixture
async def face(store: Settings, face_name: str, tmp_path: Path) -> AsyncIterator[Caller]:
    """A service of its own, which must have logged no error."""
    async with running_server(tmp_path, **store) as server:
        async with connect(face_name, server) as face:
            yield face
        assert [entry for entry in server.log if entry.get("level") not in ("info", "warning")] == []


async def create(face: Caller, session_id: str = "", **fields: Any) -> Any:
    request = pb.CreateSessionRequest(session_id=session_id, session=pb.Session(**fields), view=pb.FULL)
    return (await face.unary("CreateSession", request)).session


async def get(face: Caller, session_id: str) -> Any:
    return await face.unary("GetSession", pb.GetSessionRequest(session_id=session_id))


async def update(face: Caller, session_id: str, *paths: str, **fields: Any) -> Any:
    mask = FieldMask(paths=paths) if paths else None
    request = pb.UpdateSessionRequest(session_id=session_id, session=pb.Session(**fields), update_mask=mask)
    return await face.unary("UpdateSession", request)


async def delete(face: Caller, session_id: str, etag: str = "") -> Any:
    return await face.unary("DeleteSession", pb.DeleteSessionRequest(session_id=session_id, etag=etag))


async def undelete(face: Caller, session_id: str) -> Any:
    return await face.unary("UndeleteSession", pb.UndeleteSessionRequest(session_id=session_id))


async def refused(work: Any, code: str, reason: str) -> None:
    with pytest.raises(ChatSessionError) as caught:
        await work
    check_refused(caught.value, code, reason)


@store_and_face
async def test_a_session_can_be_created_once_changed_and_read(face: Caller) -> None:
    fields = {"title": "t", "labels": {"a": "b"}, "settings": pb.ModelSettings(temperature=0.5), "instructions": "i"}
    session = await create(face, "mine", **fields)
    assert session.session_id == "mine"
    assert await create(face, "mine", **fields) == session
    await refused(create(face, "mine", title="another"), "ALREADY_EXISTS", "SESSION_EXISTS")
    assert await get(face, "mine") == session
    assert (session.settings_version, session.labels["a"], session.settings.temperature) == (1, "b", 0.5)

    changed = await update(face, "mine", "title", "settings.seed", title="new", settings=pb.ModelSettings(seed=7))
    assert (changed.title, changed.settings.seed, changed.settings.temperature) == ("new", 7, 0.5)
    assert (changed.settings_version, changed.instructions) == (2, "i")
    assert changed.etag != session.etag
    await refused(update(face, "mine", title="x", etag=session.etag), "ABORTED", "STALE_ETAG")
    await refused(delete(face, "mine", session.etag), "ABORTED", "STALE_ETAG")
    assert (await update(face, "mine", title="newer", etag=changed.etag)).title == "newer"
    assert (await update(face, "mine", "labels", "instructions")).labels == {}

    turn = (await face.send(send_request("mine", "hi"))).turn
    assert (turn.settings_version, turn.settings.seed) == (4, 7)
    assert await face.get_turn("mine", turn.turn_id) == turn
    after = await get(face, "mine")
    assert (after.last_seq, after.settings_version, after.update_time) == (2, 4, turn.end_time)


@store_and_face
async def test_an_idempotency_key_makes_one_session(face: Caller) -> None:
    key = (("idempotency-key", "once"),)
    made = [await face.unary("CreateSession", pb.CreateSessionRequest(), metadata=key) for _ in range(2)]
    assert made[0] == made[1]
    another = await face.unary("CreateSession", pb.CreateSessionRequest(request_id="twice"))
    assert another.session_id != made[0].session_id
    assert await face.unary("CreateSession", pb.CreateSessionRequest(request_id="once")) == made[0]


@store_and_face
async def test_a_deleted_session_is_gone_at_once_and_can_be_brought_back(face: Caller) -> None:
    session_id = await face.create_session()
    await face.ask(session_id, "hi", "demo/echo")
    async with aclosing(face.stream(send_request(session_id, "tell me more", model=_SLOW))) as events:
        said = await first_text(events)
        deleted = await delete(face, session_id)
        assert deleted.HasField("delete_time")
        assert deleted.purge_time.ToDatetime() - deleted.delete_time.ToDatetime() == timedelta(days=7)
        for work in (get(face, session_id), face.said(session_id), face.ask(session_id, "hi")):
            await refused(work, "NOT_FOUND", "SESSION_NOT_FOUND")
        for work in (delete(face, session_id), update(face, session_id, title="x")):
            await refused(work, "NOT_FOUND", "SESSION_NOT_FOUND")
        undeleted = await undelete(face, session_id)
        assert not undeleted.HasField("delete_time")
        ended = [event async for event in events][-1].ended.turn
    assert ended.state == pb.Turn.CANCELLED
    assert ended.response.startswith(said)
    assert [content for _, content in await face.said(session_id)] == [
        *("hi", "hi", "tell me more"),
        ended.response,
    ]
    assert await undelete(face, session_id) == await get(face, session_id)


@store_and_face
async def test_a_session_is_gone_at_its_end_and_then_for_good(store: Settings, face_name: str, tmp_path: Path) -> None:
    soon = {"PURGE_GRACE_SECONDS": "1", "PURGE_INTERVAL_SECONDS": "0.1"}
    async with running_server(tmp_path, **store, **soon) as server, connect(face_name, server) as face:
        session = await create(face, "short", ttl=Duration(seconds=1))
        assert session.expire_time.ToMilliseconds() == session.create_time.ToMilliseconds() + 1000
        assert session.purge_time.ToMilliseconds() == session.expire_time.ToMilliseconds() + 1000
        kept = await create(face, "kept", idle_ttl=Duration(seconds=3600))
        await face.ask("kept", "hi")
        await asyncio.sleep(max(0.0, session.expire_time.ToMilliseconds() / 1000 + 0.01 - time.time()))
        for work in (get(face, "short"), face.said("short"), face.ask("short", "hi"), update(face, "short", title="x")):
            with pytest.raises(ChatSessionError) as caught:
                await work
            # Removed already, where this machine is slow.
            assert caught.value.reason in ("SESSION_EXPIRED", "SESSION_NOT_FOUND")

        async def is_free() -> bool:
            try:
                return bool(await create(face, "short", title="anew"))
            except ChatSessionError:
                return False

        await until(is_free)
        assert (await get(face, "short")).title == "anew"
        assert (await get(face, "kept")).etag == kept.etag
        assert len(await face.said("kept")) == 2


@store_and_face
async def test_server_wide_limits_of_life_hold(store: Settings, face_name: str, tmp_path: Path) -> None:
    limits = {"SESSION_TTL_SECONDS": "60", "SESSION_MAX_TTL_SECONDS": "120", "SESSION_MAX_IDLE_TTL_SECONDS": "30"}
    async with running_server(tmp_path, **store, **limits) as server, connect(face_name, server) as face:
        session = await create(face)
        assert session.expire_time.ToMilliseconds() == session.create_time.ToMilliseconds() + 60_000
        assert session.idle_ttl.seconds == 30
        assert (await create(face, ttl=Duration(seconds=120))).HasField("expire_time")
        await refused(create(face, ttl=Duration(seconds=121)), "INVALID_ARGUMENT", "INVALID_FIELD")
        await refused(
            update(face, session.session_id, idle_ttl=Duration(seconds=31)), "INVALID_ARGUMENT", "INVALID_FIELD"
        )


@store_and_face
async def test_deleting_at_one_process_cancels_the_turn_of_another(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    async with (
        running_server(tmp_path, **store) as one,
        running_server(tmp_path, **store) as other,
        connect(face_name, one) as here,
        connect(face_name, other) as there,
    ):
        session_id = await here.create_session()
        async with aclosing(here.stream(send_request(session_id, "hi", model=_SLOW))) as events:
            await first_text(events)
            await delete(there, session_id)
            ended = [event async for event in events][-1].ended.turn
        assert ended.state == pb.Turn.CANCELLED
        await refused(here.said(session_id), "NOT_FOUND", "SESSION_NOT_FOUND")

"""Answers as long as they may be reach clients with gRPC's default limits in every form; longer ones are told how."""

import hashlib
import json
from pathlib import Path

import grpc
import pytest
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from service.domain.checks import MAX_ANSWER_BYTES
from service.rpc.server import CLIENTS_TAKE_BYTES
from tests.support.calls import Seen, send_request, whole_history
from tests.support.door import connect
from tests.support.rest_calls import RestCaller
from tests.support.server import running_server


@pytest.mark.parametrize("model", ["demo/big:kib=1953", "demo/big:kib=2100"], ids=["fits", "is-cut-off"])
async def test_an_answer_of_any_length_can_be_had_in_every_form(tmp_path: Path, face_name: str, model: str) -> None:
    """2100 KiB are more than an answer may have."""
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        session_id, seen = await face.create_session(), Seen()
        sent = await face.send(send_request(session_id, "hi", model=model, request_id="r1"))
        text, turn = sent.response, sent.turn
        is_whole = turn.state == pb.Turn.COMPLETED
        assert is_whole == (model == "demo/big:kib=1953")
        assert MAX_ANSWER_BYTES - 100_000 < len(text) <= MAX_ANSWER_BYTES
        assert is_whole or turn.finish_reason == pb.Turn.PROVIDER_CUT
        assert turn.response == text
        await seen.read(face.stream(send_request(session_id, "hi", model=model, request_id="r1")))
        assert (seen.text, seen.ended) == (text, turn)
        assert (await Seen().read(face.attach(session_id, turn.turn_id))).ended == turn
        assert await face.get_turn(session_id, turn.turn_id) == turn
        assert await face.cancel_turn(session_id, turn.turn_id) == turn
        assert [message.content for message in await whole_history(face, session_id)] == ["hi", text]


async def test_a_longer_answer_that_was_imported_is_told_how_to_be_had(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect("grpc", server) as face, RestCaller(server) as rest:
        session_id = await face.create_session()
        turn_id = (
            await face.send(send_request(session_id, "hi", model="demo/big:kib=1", request_id="r1"))
        ).turn.turn_id
        file = _with_longer_answer(await face.export_session(session_id), 3 * 1024 * 1024)
        await face.import_session(file, "longer")
        text = (await face.get_turn("longer", turn_id)).response
        assert len(text) > MAX_ANSWER_BYTES
        again = send_request("longer", "hi", model="demo/big:kib=1", request_id="r1")
        with pytest.raises(ChatSessionError) as caught:
            await face.send(again)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.reason == "RESPONSE_TOO_LARGE"
        assert caught.value.metadata["limitBytes"] == str(CLIENTS_TAKE_BYTES)
        assert (caught.value.metadata["committed"], caught.value.metadata["retry"]) == ("true", "NO")
        again.view = pb.BASIC
        assert (await face.send(again)).response == text
        again.view = pb.FULL
        assert (await rest.send(again)).turn.response == text
        assert await face.export_session("longer") != b""


def _with_longer_answer(file: bytes, size: int) -> bytes:
    """Return an exported session whose only turn has an answer of so many bytes."""
    session, turn, end = (json.loads(line) for line in file.splitlines())
    turn["response"] = "x" * size
    lines = [_line(session), _line(turn)]
    return b"".join((*lines, _line({**end, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()})))


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"

"""A session of another principal is not there, on any method, nor are its page tokens and cursors of any use.

Principals stay the same one until there is authentication; here a metadata key says who calls.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError
from chatsession.status import from_rpc_error
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc
from google.protobuf.message_factory import GetMessageClass

from service.config import Config
from service.domain.entities import Principal
from service.rpc import servicer
from service.wiring import Service
from tests.domain.life import NoLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

METHODS = pb.DESCRIPTOR.services_by_name["ChatSessionService"].methods_by_name
# Those that are about one session that is there; the others are about all of an owner's.
OF_A_SESSION = [
    name
    for name, method in METHODS.items()
    if "session_id" in method.input_type.fields_by_name and name not in ("CreateSession", "ImportSession")
]
MORE: dict[str, dict[str, Any]] = {
    "UpdateSession": {"session": pb.Session(title="theirs")},
    "SendMessage": {"message": "hi"},
    "StreamMessage": {"message": "hi"},
    "SearchMessages": {"query": "hi"},
}


class Client:
    """Calls as one principal."""

    def __init__(self, channel: grpc.aio.Channel, subject: str) -> None:
        self._stub = pb_grpc.ChatSessionServiceStub(channel)
        self._metadata = (("x-test-subject", subject),)

    async def call(self, method: str, **fields: Any) -> Any:
        """Make a call and return its answer, or the first of its answers; raises ChatSessionError."""
        descriptor = METHODS[method]
        request = GetMessageClass(descriptor.input_type)(**fields)
        call = getattr(self._stub, method)(request, metadata=self._metadata)
        try:
            return await (call.read() if descriptor.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def reason(self, method: str, **fields: Any) -> str:
        """Return why a call is refused."""
        with pytest.raises(ChatSessionError) as caught:
            await self.call(method, **fields)
        return str(caught.value.reason)


def _principal(context: Any) -> Principal:
    return Principal("tenant", dict(context.invocation_metadata())["x-test-subject"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    patch = pytest.MonkeyPatch()
    patch.setattr(servicer, "_principal", _principal)
    config = Config(sqlite_path=":memory:", grpc_address="127.0.0.1:0", http_address="127.0.0.1:0")
    service = Service(config, NoLog())
    await service.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        yield channel
    await service.stop(0)
    patch.undo()


@pytest.fixture
def anna(channel: grpc.aio.Channel) -> Client:
    return Client(channel, "anna")


@pytest.fixture
def bert(channel: grpc.aio.Channel) -> Client:
    return Client(channel, "bert")


@pytest.mark.parametrize("method", OF_A_SESSION)
async def test_somebody_elses_session_is_not_found(anna: Client, bert: Client, method: str) -> None:
    session_id = (await anna.call("CreateSession")).session_id
    turn = (await anna.call("SendMessage", session_id=session_id, message="hi", view=pb.FULL)).turn
    fields = {"session_id": session_id, **MORE.get(method, {})}
    if "turn_id" in METHODS[method].input_type.fields_by_name:
        fields["turn_id"] = turn.turn_id
    assert await bert.reason(method, **fields) == "SESSION_NOT_FOUND"
    assert len((await anna.call("GetHistory", session_id=session_id)).history) == 2
    assert (await anna.call("GetSession", session_id=session_id)).title == ""


async def test_a_request_id_is_each_principals_own(anna: Client, bert: Client) -> None:
    made = [await client.call("CreateSession", request_id="r") for client in (anna, bert, anna)]
    assert made[0] == made[2] != made[1]


async def test_an_id_is_taken_for_all(anna: Client, bert: Client) -> None:
    await anna.call("CreateSession", session_id="mine")
    assert await bert.reason("CreateSession", session_id="mine") == "SESSION_EXISTS"


async def test_page_tokens_and_cursors_of_another_are_refused(anna: Client, bert: Client) -> None:
    sessions = [(await client.call("CreateSession")).session_id for client in (anna, bert)]
    for client, session_id in zip((anna, bert), sessions, strict=True):
        await client.call("SendMessage", session_id=session_id, message="hi")
    page = await anna.call("GetHistory", session_id=sessions[0], page_size=1)
    fields = {"page_size": 1, "page_token": page.next_page_token}
    assert await bert.reason("GetHistory", session_id=sessions[0], **fields) == "SESSION_NOT_FOUND"
    assert await bert.reason("GetHistory", session_id=sessions[1], **fields) == "INVALID_FIELD"
    event = await anna.call("StreamMessage", session_id=sessions[0], message="again")
    turn_id, cursor = event.accepted.turn.turn_id, event.cursor
    attach = {"turn_id": turn_id, "after_cursor": cursor}
    assert await bert.reason("AttachTurn", session_id=sessions[0], **attach) == "SESSION_NOT_FOUND"
    assert await bert.reason("AttachTurn", session_id=sessions[1], **attach) == "TURN_NOT_FOUND"

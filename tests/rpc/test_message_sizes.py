"""What the largest answers are in protobuf's form."""

from service.domain.entities import Message, Role, TurnState
from service.domain.history import MAX_PAGE_BYTES, MAX_PAGE_MESSAGES, HistoryPage
from service.rpc import convert
from service.rpc.server import CLIENTS_TAKE_BYTES
from tests.contract.build import NOW, a_session


def test_the_page_with_most_messages_fits_what_grpc_clients_receive() -> None:
    content = "x" * (MAX_PAGE_BYTES // MAX_PAGE_MESSAGES + 1)
    message = Message(Role.ASSISTANT, content, 2**31 - 1, "t" * 64, NOW, TurnState.INCOMPLETE)
    page = HistoryPage(a_session(), [message] * MAX_PAGE_MESSAGES, "token", 2**31 - 1)
    assert convert.history_to(page, is_full=True).ByteSize() < CLIENTS_TAKE_BYTES

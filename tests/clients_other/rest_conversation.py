"""A conversation through the client that openapi-generator makes of the OpenAPI document. Argument: the service's URL.

Prints what it saw as JSON. Runs as a program of its own, with the generated package on its path.
"""

import json
import sys
from collections.abc import Callable

from chat_rest import ApiClient, ChatSessionServiceApi, Configuration, OnBusy, TurnState, View
from chat_rest.exceptions import ApiException, NotFoundException
from chat_rest.models import ModelSettingsInput, SendMessageRequest, SendMessageRequestWithoutSessionId, SessionInput


def main(url: str) -> dict[str, object]:
    with ApiClient(Configuration(host=url)) as client:
        api = ChatSessionServiceApi(client)
        settings = ModelSettingsInput(temperature=0.5, stop_sequences=["STOP"])
        session = api.create_session(
            view=View.FULL, session_input=SessionInput(title="Tea", labels={"a": "b"}, settings=settings)
        )
        request = SendMessageRequest(
            session_id=session.session_id, message="hi", on_busy=OnBusy.REJECT, request_id="r-1", view=View.FULL
        )
        first = api.send_message(request)
        again = api.send_message(request)
        api.send_message2(session.session_id, SendMessageRequestWithoutSessionId(message="and again"))
        plain = api.get_history(session.session_id)
        full = api.get_history(session.session_id, view=View.FULL, page_size=3)
        turn = api.get_turn(session.session_id, first.turn.turn_id)
        lines = api.stream_message_without_preload_content(
            SendMessageRequest(session_id=session.session_id, message="streamed")
        ).read()
        return {
            "session": [session.session.title, session.session.labels, session.session.settings.temperature],
            "answers": [first.response, again.turn.turn_id == first.turn.turn_id],
            "plain": [[message.role, message.content, message.seq] for message in plain.history],
            "full": [[message.seq, message.turn_state is TurnState.COMPLETED] for message in full.history],
            "next": bool(full.next_page_token),
            "turn": [turn.state.value, turn.finish_reason.value, turn.end_time >= turn.create_time],
            "stream": json.loads(lines.splitlines()[-1]),
            "missing": _error(lambda: api.get_history("nobody")),
            "refused": _error(lambda: api.get_history(session.session_id, page_token="mine")),
        }


def _error(call: Callable[[], object]) -> list[object]:
    try:
        call()
    except ApiException as exc:
        reason = exc.data.details[0].additional_properties["reason"]
        return [exc.status, isinstance(exc, NotFoundException), type(exc.data).__name__, exc.data.code, reason]
    raise AssertionError("no error")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

"""Between the contract's lists and searches and the domain's."""

from chatsession.v1 import chat_session_pb2 as pb

from service.domain.listing import ListQuery
from service.domain.searching import Match, MatchPage, SearchQuery
from service.rpc.convert import timestamp_to


def list_query_from(request: pb.ListSessionsRequest) -> ListQuery:
    """Read what is asked of a list."""
    return ListQuery(request.page_size, request.page_token, request.filter, request.order_by, request.show_deleted)


def search_query_from(request: pb.SearchMessagesRequest) -> SearchQuery:
    """Read what is searched for."""
    return SearchQuery(request.query, request.session_id, request.page_size, request.page_token)


def matches_to(page: MatchPage) -> pb.SearchMessagesResponse:
    """Return a page of matches."""
    return pb.SearchMessagesResponse(matches=map(_match_to, page.matches), next_page_token=page.next_page_token)


def _match_to(match: Match) -> pb.MessageMatch:
    message = match.message
    return pb.MessageMatch(
        session_id=match.session_id,
        turn_id=message.turn_id,
        seq=message.seq,
        role=message.role.value,
        create_time=timestamp_to(message.create_time),
        snippet=match.snippet,
        spans=[pb.Span(start=span.start, end=span.end) for span in match.spans],
    )

"""What errors must say."""

from chatsession.errors import ChatSessionError


def check_refused(error: ChatSessionError, code: str, reason: str) -> None:
    """Check code and reason."""
    assert (error.code.name, error.reason) == (code, reason), vars(error)

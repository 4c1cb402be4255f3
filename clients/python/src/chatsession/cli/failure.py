"""What a failed command says, and its exit code."""

from chatsession import errors
from chatsession.errors import ChatSessionError, Retry

INTERRUPTED = 130

# The first class that fits decides: (class, exit code, what to do).
_TABLE: tuple[tuple[type[ChatSessionError], int, str], ...] = (
    (errors.InvalidField, 2, ""),
    (errors.InvalidImport, 2, "The file is cut or damaged, or not from: chatsession export"),
    (errors.SessionNotFound, 3, "Start one with: chatsession new"),
    (errors.NotFound, 3, ""),
    (errors.SessionBusy, 4, "Wait for the other turn, or use --on-busy queue or interrupt"),
    (errors.Conflict, 4, ""),
    (errors.TurnCancelled, 4, "What had been said is in: chatsession history"),
    (errors.RequestIdReused, 4, "Another message needs another --request-id"),
    (errors.SessionExists, 4, "Another id can be chosen with --session"),
    (errors.AlreadyExists, 4, ""),
    (errors.TurnLost, 5, ""),
    (errors.Overloaded, 5, "Try again in a moment"),
    (errors.Unavailable, 5, ""),
    (errors.DeadlineExceeded, 6, "A longer --timeout waits longer"),
    (errors.ContextTooLong, 7, "Shorten the message, or start a new session"),
    (errors.ModelFailed, 7, ""),
)

EXIT_CODES = (
    "Exit codes: 0 done; 1 other failure; 2 wrong usage or a refused value; 3 no such session, turn or erasure; "
    "4 conflict (busy, cancelled, id in use); 5 service unavailable, try again; 6 out of time; 7 the model failed; "
    "130 interrupted."
)


def exit_code(error: ChatSessionError) -> int:
    """The exit code for an error."""
    return next((code for kind, code, _ in _TABLE if isinstance(error, kind)), 1)


def describe(error: ChatSessionError, target: str, *, how_to_repeat: str = "") -> str:
    """One line: the reason, what is wrong, what to do.

    how_to_repeat: what the user can do that sends the message again but never twice.
    """
    if isinstance(error, errors.Unavailable) and not error.reason:
        cause = error.message.rpartition(": ")[2]
        parts = [f"UNAVAILABLE: cannot reach {target} ({cause})", "Is the server running there? See --server"]
    else:
        fields = "; ".join(f"{field}: {what}" for field, what in error.field_violations.items())
        parts = [f"{error.reason or error.code.name}: {fields or error.message}"]
    parts += [hint for kind, _, hint in _TABLE if hint and isinstance(error, kind)][:1]
    if error.retry is Retry.NEW_REQUEST_ID and error.committed:
        parts.append("The message is saved without an answer; send it again to try anew")
    elif isinstance(error, errors.DeadlineExceeded) and error.committed:
        parts.append("The message is saved and its answer goes on, see: chatsession history")
    elif how_to_repeat and is_uncertain(error):
        parts.append(how_to_repeat)
    if error.call_id and isinstance(error, errors.ServerFault):
        parts.append(f"The server's log has it as {error.call_id}")
    return ". ".join(part.rstrip(". ") for part in parts) + "."


def is_uncertain(error: ChatSessionError) -> bool:
    """Whether a repeat with the same request id is the way on after a failed send."""
    return error.retry is Retry.SAME_REQUEST or (error.retry is None and not error.reason)

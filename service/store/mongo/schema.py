"""The indexes of the collections."""

from typing import Final

from pymongo import ASCENDING, IndexModel

from service.store.documents import RUNNING

SESSION_INDEXES: Final = [
    # Holds running sessions only: one small entry made and one dropped per turn.
    IndexModel([("active.state", ASCENDING)], name="running", partialFilterExpression={"active.state": RUNNING}),
    # Holds only sessions that will end by themselves, or are deleted.
    IndexModel([("look_at", ASCENDING)], name="look_at", sparse=True),
]
TURN_INDEXES: Final = [
    IndexModel([("uid", ASCENDING), ("request_key", ASCENDING)], name="request", unique=True),
    IndexModel([("uid", ASCENDING), ("turn_id", ASCENDING)], name="turn", unique=True),
]
PURGE_INDEXES: Final = [IndexModel([("due", ASCENDING)], name="due")]

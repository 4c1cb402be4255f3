"""Sessions in MongoDB. Any number of processes may share the database.

Writes are acknowledged by a majority, with journal; reads see what a majority has, at the primary. Where the server has
sessions, each read also waits for whatever this process has seen before, also across a change of primaries.

The driver repeats nothing by itself (retryWrites, retryReads off). A repeat of ours is the same write again, its
filter decides, and that works on every server; the driver's would need sessions, would have the server keep an image of
each document it returns, and would blur which attempt an error is about.
"""

from service.store.mongo.connection import UnusableDatabaseName, UnusableUri
from service.store.mongo.store import MongoStore

__all__ = ["MongoStore", "UnusableDatabaseName", "UnusableUri"]

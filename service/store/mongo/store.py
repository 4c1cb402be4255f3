"""The store, put together of its parts."""

from service.store.mongo.erasing import MongoErasing
from service.store.mongo.importing import MongoImporting
from service.store.mongo.listing import MongoListing
from service.store.mongo.purging import MongoPurging
from service.store.mongo.searching import MongoSearching
from service.store.mongo.sessions import MongoSessions
from service.store.mongo.turns import MongoTurns


class MongoStore(MongoSessions, MongoTurns, MongoPurging, MongoImporting, MongoErasing, MongoListing, MongoSearching):
    """A SessionStore in a MongoDB database."""

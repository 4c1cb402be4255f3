"""Fixtures of a MongoDB for the tests of the Mongo store."""

from tests.support.mongo import mongo_client, mongo_database, mongo_uri

__all__ = ["mongo_client", "mongo_database", "mongo_uri"]

"""Fixtures of a MongoDB for the tests of the Mongo store."""

from hypothesis import settings

from tests.support.mongo import mongo_client, mongo_database, mongo_uri

__all__ = ["mongo_client", "mongo_database", "mongo_uri"]

# A slow machine is no wrong answer.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

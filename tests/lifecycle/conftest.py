"""The stores of the contract suite."""

from tests.contract.conftest import kind, mongo_client, mongo_database, mongo_uri, store

__all__ = ["kind", "mongo_client", "mongo_database", "mongo_uri", "store"]

"""The real service as a process, over the stores that this machine has."""

from pathlib import Path

import pytest

from tests.support.door import TRANSPORTS
from tests.support.mongo import mongo_client, mongo_database, mongo_uri

__all__ = ["mongo_client", "mongo_database", "mongo_uri"]

Settings = dict[str, str]

# For tests that start services by the dozen: each store once and each face once, instead of each with each.
store_and_face = pytest.mark.parametrize(
    ("store", "face_name"), [("sqlite", "rest"), ("mongo", "grpc")], indirect=True, ids=["sqlite-rest", "mongo-grpc"]
)


@pytest.fixture(params=["sqlite", "mongo"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a store that nobody else uses; the same for every service that a test starts with them."""
    if request.param == "sqlite":
        return {"SQLITE_PATH": str(tmp_path / "sessions.db")}
    return {
        "MONGO_URI": request.getfixturevalue("mongo_uri"),
        "MONGO_DATABASE": request.getfixturevalue("mongo_database"),
    }


@pytest.fixture(params=TRANSPORTS)
def face_name(request: pytest.FixtureRequest) -> str:
    """Each of the ways to call the service."""
    return request.param

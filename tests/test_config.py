import pytest

from service.config import Config, ConfigError, read_config

NAMES = [name.upper() for name in Config.model_fields]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_the_documented_ones() -> None:
    config = read_config()
    assert (config.grpc_address, config.http_address) == ("127.0.0.1:50051", "127.0.0.1:8000")
    assert (config.sqlite_path, config.openai_model) == ("chatsession.db", "gpt-3.5-turbo")
    assert config.uses_demo_model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRPC_ADDRESS", "nonsense"),
        ("HTTP_ADDRESS", "127.0.0.1:99999"),
        ("MONGO_URI", "postgres://x"),
        ("OPENAI_BASE_URL", "ftp://x"),
        ("OPENAI_BASE_URL", "http://user:word@host/v1"),
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("LEASE_SECONDS", "-1"),
        ("TURN_TIMEOUT_SECONDS", "nan"),
        ("STOP_GRACE_SECONDS", "x"),
        ("LOG_LEVEL", "loud"),
        ("SESSION_TTL_SECONDS", "0"),
        ("SESSION_MAX_IDLE_TTL_SECONDS", "1e12"),
        ("PURGE_GRACE_SECONDS", "-1"),
        ("PURGE_RATE", "0"),
    ],
)
def test_bad_value_is_one_line_that_names_the_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        read_config()
    assert str(raised.value).startswith(f"{name}: ")
    assert "\n" not in str(raised.value)


def test_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / ".env").write_text("OPENAI_MODEL=from-file\nMONGO_DATABASE=also-from-file\n")
    monkeypatch.setenv("OPENAI_MODEL", "from-environment")
    config = read_config()
    assert (config.openai_model, config.mongo_database) == ("from-environment", "also-from-file")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("MONGO_URI", "mongodb://user:hidden@127.0.0.1/")
    shown = repr(read_config()) + str(read_config())
    assert "very-secret" not in shown
    assert "hidden" not in shown


def test_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("MONGO_URI", "")
    config = read_config()
    assert config.openai_api_key is None
    assert config.mongo_uri is None


@pytest.mark.parametrize("kind", ["", "IDLE_"])
def test_no_default_is_above_its_maximum(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv(f"SESSION_{kind}TTL_SECONDS", "60")
    monkeypatch.setenv(f"SESSION_MAX_{kind}TTL_SECONDS", "60")
    read_config()
    monkeypatch.setenv(f"SESSION_{kind}TTL_SECONDS", "60.5")
    with pytest.raises(ConfigError, match=f"SESSION_{kind}TTL_SECONDS: is more than SESSION_MAX_{kind}TTL_SECONDS"):
        read_config()


def test_workers_need_what_they_can_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "2")
    monkeypatch.setenv("SQLITE_PATH", ":memory:")
    with pytest.raises(ConfigError, match="SQLITE_PATH"):
        read_config()
    monkeypatch.setenv("GRPC_ADDRESS", "127.0.0.1:0")
    with pytest.raises(ConfigError, match="GRPC_ADDRESS"):
        read_config()

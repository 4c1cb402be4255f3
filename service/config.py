"""All settings, from the environment and `.env`. The README's table is made of the descriptions here."""

import math
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.domain.lifetime import LONGEST


class ConfigError(Exception):
    """A setting that cannot be right; one line that names it."""


def _check_address(value: str) -> str:
    """host:port, an IPv6 host in brackets; port 0 lets the system choose."""
    try:
        parts = urlsplit(f"//{value}")
        valid = bool(parts.hostname) and parts.port is not None and parts.path == "" and "@" not in value
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("must be host:port")
    return value


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https address")
    if parts.port == 0:  # also raises ValueError for one that is no number
        raise ValueError("must have a port above 0")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password")
    return value


def _check_origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        parts = urlsplit(_check_url(value))
        if parts.path or parts.query or parts.username is not None:
            raise ValueError("must be origins, such as https://chat.example.com")
    return values


def _check_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("has characters that a header cannot carry")
    return value


def _check_mongo_uri(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _split_commas(value: object) -> object:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_check_address)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


# As long as a session may ever live.
LongSeconds = Annotated[float, Field(gt=0, le=LONGEST.total_seconds(), allow_inf_nan=False)]


class Config(BaseSettings):
    """Settings of the service. An empty value counts as not set."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, frozen=True
    )

    grpc_address: Address = Field("127.0.0.1:50051", description="where gRPC listens, host:port; port 0 = any free one")
    http_address: Address = Field("127.0.0.1:8000", description="where REST and Swagger UI listen, host:port")
    mongo_uri: Annotated[SecretStr, AfterValidator(_check_mongo_uri)] | None = Field(
        None, description="MongoDB to keep the sessions in; not set = SQLite"
    )
    mongo_database: str = Field(
        "chatsession", min_length=1, max_length=63, description="name of the database in MongoDB"
    )
    sqlite_path: str = Field("chatsession.db", min_length=1, description="file of the SQLite store, or `:memory:`")
    store_timeout_seconds: Seconds = Field(5.0, description="longest time for one operation of the store")
    openai_api_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = Field(
        None, description="key for the model provider; without it and OPENAI_BASE_URL the demo model answers"
    )
    openai_base_url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        None, description="address of a server that speaks OpenAI's API; not set = OpenAI"
    )
    openai_model: str = Field(
        "gpt-3.5-turbo", min_length=1, max_length=256, description="model, where nobody asks for another"
    )
    openai_streaming: bool = Field(
        True,
        description="ask the provider for streams; `false` for servers that cannot: answers then come in one piece",
    )
    context_tokens: int = Field(
        12_000, ge=256, le=10_000_000, description="most tokens of history given to the model (estimated, bytes / 3)"
    )
    session_cache_mib: int = Field(
        64,
        ge=0,
        le=65_536,
        description="memory for the text of the sessions used last, in MiB; 0 reads it anew for each turn",
    )
    model_attempts: int = Field(
        3, ge=1, le=10, description="calls to the provider for one answer, before its first text"
    )
    connect_timeout_seconds: Seconds = Field(5.0, description="longest time to connect to the provider")
    first_token_timeout_seconds: Seconds = Field(60.0, description="longest wait for the first text of an answer")
    stall_timeout_seconds: Seconds = Field(30.0, description="longest silence within an answer")
    turn_timeout_seconds: Seconds = Field(600.0, description="longest time for a whole turn")
    unary_timeout_seconds: Seconds = Field(120.0, description="longest time for a unary call; a turn goes on after it")
    stream_timeout_seconds: Seconds = Field(
        900.0, description="longest time for a streaming call; attach again after it"
    )
    heartbeat_seconds: Seconds = Field(15.0, description="longest silence on a stream before a heartbeat is sent")
    lease_seconds: Seconds = Field(
        15.0, description="a turn whose process has not been heard of for this long is taken over by another"
    )
    max_waiting: int = Field(
        256, ge=1, le=100_000, description="most callers that wait for one busy session, a process"
    )
    max_turns: int = Field(
        20_000, ge=1, le=1_000_000, description="most turns that run at once, a process; about 40 KiB each"
    )
    stop_grace_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        30.0, description="time for running turns to end at SIGTERM or SIGINT; the rest is handed over"
    )
    session_ttl_seconds: LongSeconds | None = Field(
        None, description="life of a session that asks for no end; not set = SESSION_MAX_TTL_SECONDS"
    )
    session_max_ttl_seconds: LongSeconds | None = Field(
        None, description="longest life that a session may ask for; not set = any, or no end at all"
    )
    session_idle_ttl_seconds: LongSeconds | None = Field(
        None,
        description="life of a session without a turn; not set = SESSION_MAX_IDLE_TTL_SECONDS",
    )
    session_max_idle_ttl_seconds: LongSeconds | None = Field(
        None, description="longest life without a turn that a session may ask for"
    )
    purge_grace_seconds: Annotated[float, Field(ge=0, le=LONGEST.total_seconds(), allow_inf_nan=False)] = Field(
        604_800.0,
        description="how long a deleted or expired session is kept; until then a deleted one can be undeleted",
    )
    purge_interval_seconds: Seconds = Field(60.0, description="about how often each process looks for what to remove")
    purge_rate: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = Field(
        100.0, description="most steps a second of each process in removing sessions: a session, or 500 of its turns"
    )
    max_http_connections: int = Field(
        10_000, ge=1, le=1_000_000, description="most HTTP connections at a time, a process; more are answered 503"
    )
    import_max_bytes: int = Field(
        67_108_864, ge=1024, le=2**40, description="longest file that ImportSession takes, in bytes"
    )
    workers: int = Field(1, ge=1, le=64, description="processes that share the two ports")
    cors_origins: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split_commas), AfterValidator(_check_origins)
    ] = Field((), description="origins whose pages may call REST, comma-separated; empty = none")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="`json` or `console`; not set = console on a terminal, else json"
    )

    @property
    def uses_demo_model(self) -> bool:
        """Whether the built-in demo model answers."""
        return self.openai_api_key is None and self.openai_base_url is None


def read_config() -> Config:
    """Read and check everything once; raises ConfigError naming the first setting that cannot be right."""
    try:
        config = Config()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"][:1]).upper()
        raise ConfigError(f"{name}: {first['msg']}") from None
    for least, most in (
        ("session_ttl_seconds", "session_max_ttl_seconds"),
        ("session_idle_ttl_seconds", "session_max_idle_ttl_seconds"),
    ):
        if (getattr(config, least) or 0) > (getattr(config, most) or math.inf):
            raise ConfigError(f"{least.upper()}: is more than {most.upper()}")
    if config.workers > 1:
        for name, address in (("GRPC_ADDRESS", config.grpc_address), ("HTTP_ADDRESS", config.http_address)):
            if address.endswith(":0"):
                raise ConfigError(f"{name}: workers need a fixed port")
        if config.mongo_uri is None and config.sqlite_path == ":memory:":
            raise ConfigError("SQLITE_PATH: workers cannot share `:memory:`")
    return config


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of an address that was checked."""
    parts = urlsplit(f"//{address}")
    return parts.hostname or "", parts.port or 0


def join_address(address: str, port: int) -> str:
    """Return the address with the port that it got; an IPv6 host in brackets."""
    host, _ = split_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

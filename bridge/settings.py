"""Settings: from the environment, an env file, or a file per secret; all problems named at once.

Names are ``BRIDGE_`` and the field in capitals. Every secret may instead be given as ``…_FILE``, a path whose content,
stripped, is the value. A variable that begins with BRIDGE_ and is none of ours stops the start: it is a typing error that
would otherwise leave a default in force. BRIDGE_TEST_… is the tests' own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.errors import Misconfigured
from bridge.signature import AppSecret

PREFIX = "BRIDGE_"
_TESTS_PREFIX = "BRIDGE_TEST_"
_FILE_SUFFIX = "_FILE"

_MIB = 1024 * 1024
_DAY_MS = 24 * 60 * 60 * 1000

_LABELLED = re.compile(r"(?:([a-z0-9_-]{1,32})=)?(.+)", re.ASCII)
_EMPTY = re.compile(r"[a-z0-9_-]{1,32}=", re.ASCII)
_USER_INFO = re.compile(r"(?<=//).*@")
_SERVICE_LINK = re.compile(r"(?:tcp|udp)://", re.ASCII)

Port = Annotated[int, Field(ge=1, le=65535)]

_USER = ("kafka_sasl_username", "kafka_sasl_password")
_OAUTHBEARER = tuple(f"kafka_sasl_oauthbearer_{name}" for name in ("token_endpoint_url", "client_id", "client_secret"))


class _FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )


class KafkaSettings(_FromEnvironment):
    """What every command needs to reach Kafka and the registry, and to name the topics."""

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        pattern=r"^[^\s,]+:\d{1,5}(,[^\s,]+:\d{1,5})*$",
        description="Kafka brokers, `host:port`, comma-separated.",
    )
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(lambda text: str(text).upper())
    ] = Field("PLAINTEXT", description="librdkafka's security.protocol.")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="librdkafka's sasl.mechanism."
    )
    kafka_sasl_username: str | None = Field(None, description="librdkafka's sasl.username.")
    kafka_sasl_password: SecretStr | None = Field(None, description="librdkafka's sasl.password.")
    kafka_sasl_oauthbearer_token_endpoint_url: str | None = Field(
        None,
        pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])\S+$",
        description="Where OAUTHBEARER's tokens come from (client credentials grant); https, or http on this machine.",
    )
    kafka_sasl_oauthbearer_client_id: str | None = Field(None, description="Our id there.")
    kafka_sasl_oauthbearer_client_secret: SecretStr | None = Field(None, description="Our secret there.")
    kafka_sasl_oauthbearer_scope: str | None = Field(
        None, description="Scope to ask for, where the endpoint wants one."
    )
    kafka_ssl_ca_location: Path | None = Field(
        None, description="PEM file of the CA that signed the brokers' certificates; unset: the system's."
    )
    kafka_ssl_certificate_location: Path | None = Field(None, description="PEM file of our own certificate (mTLS).")
    kafka_ssl_key_location: Path | None = Field(None, description="PEM file of our own key (mTLS).")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="Password of that key.")

    schema_registry_url: str | None = Field(
        None, description="Confluent-compatible registry; unset: values are in Avro's single-object encoding."
    )
    schema_registry_basic_auth_user_info: SecretStr | None = Field(
        None, description="`user:password` for the registry."
    )
    schema_registry_bearer_auth_token: SecretStr | None = Field(None, description="Bearer token for the registry.")

    topic_prefix: str = Field("instagram", pattern=r"^[a-z0-9-]{1,100}$", description="What all topics begin with.")
    topic_partitions: int = Field(
        12, ge=1, le=10_000, description="Partitions of every topic that `topics apply` creates."
    )
    topic_replication_factor: int = Field(3, ge=1, le=32, description="Replicas of every topic.")
    topic_retention_ms: int = Field(30 * _DAY_MS, ge=1, description="Retention of every topic, milliseconds: 30 days.")
    body_bytes_max: int = Field(
        16 * _MIB, ge=1024, le=64 * _MIB, description="Largest body; 1000 updates of 16 KiB each fit."
    )
    record_bytes_max: int = Field(
        _MIB, ge=1024, le=16 * _MIB, description="Largest record for an event topic; a larger one is dead-lettered."
    )

    @model_validator(mode="after")
    def _credentials_agree(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL"):
            needed = _OAUTHBEARER if self.kafka_sasl_mechanism == "OAUTHBEARER" else _USER
            if missing := [_variable(name) for name in needed if not getattr(self, name)]:
                raise ValueError(
                    f"BRIDGE_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} with {self.kafka_sasl_mechanism} "
                    f"needs {' and '.join(missing)}"
                )
        if self.schema_registry_basic_auth_user_info and self.schema_registry_bearer_auth_token:
            raise ValueError(
                "give BRIDGE_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO or BRIDGE_SCHEMA_REGISTRY_BEARER_AUTH_TOKEN, not both"
            )
        return self


class GraphSettings(_FromEnvironment):
    """What `bridge subscribe` and `bridge doctor` need to ask Meta; the ingress asks it nothing."""

    graph_url: str = Field(
        "https://graph.instagram.com/v25.0",
        pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])\S+$",
        description="Graph API with its version; of an app with Facebook Login `https://graph.facebook.com/v25.0`.",
    )
    graph_token: SecretStr | None = Field(
        None, description="Access token of the account, for `bridge subscribe` and `bridge doctor`; `serve` needs none."
    )
    graph_app_id: str | None = Field(
        None,
        pattern=r"^[0-9]{1,32}$",
        description="The app's id: Meta then tells `bridge doctor` more about the token.",
    )


class Settings(GraphSettings, KafkaSettings):
    """Everything that can be set. The description of a field is what `bridge settings` and docs/settings.md show."""

    app_secrets: SecretStr = Field(
        description="Live app secrets, comma-separated, each `label=secret` or `secret`. A bare one is labelled by its "
        "place: `secret-1`.",
    )
    verify_token: SecretStr = Field(description="What Meta must send as hub.verify_token; of your own choosing.")
    host: str = Field("127.0.0.1", description="Address of the public port.")
    port: Port = Field(8080, description="Public port: the webhook.")
    management_host: str = Field("127.0.0.1", description="Address of the management port.")
    management_port: Port = Field(8081, description="Management port: /livez, /readyz, /metrics, /status.")

    publish_deadline_ms: int = Field(
        3000, ge=100, le=4500, description="How long a delivery waits for Kafka, milliseconds; Meta waits five seconds."
    )
    spool_dir: str = Field(
        "spool",
        description="Folder on a local disk for deliveries that Kafka cannot take; empty: none, and an outage is answered 503.",
    )
    spool_bytes_max: int = Field(
        4 * 1024 * _MIB, ge=_MIB, description="What the spool may hold, bytes: 4 GiB, some four million deliveries."
    )
    workers: int = Field(
        1, ge=1, le=64, description="Processes that share the public port; a second pays when one core is busy."
    )
    shutdown_delay_ms: int = Field(
        0,
        ge=0,
        le=300_000,
        description="How long to serve on after SIGTERM, milliseconds, while load balancers notice.",
    )
    watched_accounts: str | None = Field(
        None,
        pattern=r"^([a-z0-9_-]{1,32}=)?[^\s,=]{1,64}(,([a-z0-9_-]{1,32}=)?[^\s,=]{1,64})*$",
        description="Accounts whose silence matters, comma-separated, each `label=account id`, or the id alone: its last event is a "
        "metric under the label, or under its place: `account-1`.",
    )
    tracing: bool = Field(
        default=False,
        description="Traces by OpenTelemetry: a span for each delivery, and `traceparent` in its records. Needs the extra `tracing`; "
        "where spans go is OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="`json`: one object a line; `console`: for people."
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(lambda text: str(text).lower())
    ] = Field("info", description="Least level that is logged.")

    @model_validator(mode="after")
    def _lists_can_be_read(self) -> Self:
        live_secrets(self)
        watched_accounts(self)
        if not self.verify_token.get_secret_value():
            raise ValueError(
                "BRIDGE_VERIFY_TOKEN is empty: set any long random text, and the same one in Meta's dashboard"
            )
        return self


def live_secrets(settings: Settings) -> tuple[AppSecret, ...]:
    """The live app secrets under their labels.

    Raises:
        ValueError: an empty list, an empty secret, or a label given twice; the message holds no secret.
    """
    secrets = []
    for place, part in enumerate(settings.app_secrets.get_secret_value().split(","), start=1):
        match = _LABELLED.fullmatch(part.strip())
        if match is None or (match[1] is None and _EMPTY.fullmatch(match[2])):
            raise ValueError(f"BRIDGE_APP_SECRETS: secret {place} is empty; take out the comma or set the secret")
        secrets.append(AppSecret(label=match[1] or f"secret-{place}", key=match[2].encode()))
    labels = [secret.label for secret in secrets]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"BRIDGE_APP_SECRETS: label given twice: {', '.join(twice)}; give every secret its own")
    return tuple(secrets)


def watched_accounts(settings: Settings) -> dict[str, str]:
    """The label of each account id of BRIDGE_WATCHED_ACCOUNTS.

    Raises:
        ValueError: an account or a label is given twice.
    """
    given = [part.rpartition("=") for part in (settings.watched_accounts or "").split(",") if part]
    watched = {account_id: label or f"account-{place}" for place, (label, _, account_id) in enumerate(given, start=1)}
    if len(set(watched.values())) < len(given):
        raise ValueError("BRIDGE_WATCHED_ACCOUNTS: an account or a label is given twice; name each once")
    return watched


class Given(NamedTuple):
    """What the environment, the env file and the secrets' files say, before a value is checked.

    Attributes:
        values: the text of every variable, also of those that are no setting.
        sources: for every setting where its value comes from.
        secrets: the content of the files that …_FILE variables name, by setting.
        problems: one line each: a variable that is no setting, a secret given twice or in no readable file.
    """

    values: Mapping[str, str | None]
    sources: Mapping[str, str]
    secrets: Mapping[str, str]
    problems: Sequence[str]


def read(env_file: Path | None = None) -> Given:
    """Collect what is given; the environment comes before the env file.

    Raises:
        Misconfigured: there is no such env file.
    """
    if env_file is not None and not env_file.is_file():
        raise Misconfigured(f"there is no env file {env_file}; copy .env.example")
    given = dict.fromkeys(dotenv_values(env_file, interpolate=False) if env_file else (), str(env_file))
    given.update(dict.fromkeys(os.environ, "environment"))
    values = {**(dotenv_values(env_file, interpolate=False) if env_file else {}), **os.environ}
    ours = [name for name in sorted(given) if name.startswith(PREFIX) and not name.startswith(_TESTS_PREFIX)]

    problems: list[str] = []
    secrets: dict[str, str] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    for variable in ours:
        name = variable.removeprefix(PREFIX).lower()
        secret = name.removesuffix(_FILE_SUFFIX.lower())
        if name in Settings.model_fields:
            if values[variable] or name in _MAY_BE_EMPTY:  # else an empty one counts as not set
                sources[name] = given[variable]
        elif secret not in SECRETS:
            problems.append(f"{variable} is no setting; `bridge settings` lists them all")
        elif _variable(secret) in given:
            problems.append(f"{_variable(secret)} and {variable} are both set; keep one")
        else:
            sources[secret] = f"file {values[variable]}"
            try:
                secrets[secret] = Path(values[variable] or "").read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{variable}: cannot read the file it names ({type(error).__name__})")
    return Given(values, sources, secrets, problems)


_Settings = TypeVar("_Settings", bound=_FromEnvironment)


def load(model: type[_Settings], env_file: Path | None = None) -> tuple[_Settings, Mapping[str, str]]:
    """Read and check the settings.

    Args:
        model: Settings, or KafkaSettings or GraphSettings for a command that takes no deliveries.
        env_file: ``NAME=value`` lines; the environment itself comes first.

    Returns:
        The settings, and for every setting where its value came from.

    Raises:
        Misconfigured: one line for every problem.
    """
    given = read(env_file)
    texts: dict[str, Any] = {name: "" for name in _MAY_BE_EMPTY if given.values.get(_variable(name)) == ""}
    texts |= given.secrets
    problems = list(given.problems)
    try:
        settings = model(_env_file=env_file, **{name: texts[name] for name in texts if name in model.model_fields})
    except ValidationError as error:
        problems += [_explain(problem, given.values) for problem in error.errors(include_url=False)]
        raise Misconfigured("\n".join(problems)) from None
    if problems:
        raise Misconfigured("\n".join(problems))
    return settings, given.sources


_MAY_BE_EMPTY = frozenset({"spool_dir"})
"""Where an empty variable is a value; elsewhere it counts as not set."""


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _explain(problem: ErrorDetails, values: Mapping[str, str | None]) -> str:
    """One problem as one line, without the value of a secret."""
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][0]).lower().removeprefix(PREFIX.lower())
    if problem["type"] == "missing":
        return f"{_variable(name)} is not set: {Settings.model_fields[name].description}"
    given = values.get(_variable(name)) or ""
    line = f"{_variable(name)}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    if name not in SECRETS:
        line += f", not {_USER_INFO.sub('…@', given)!r}"
    if _SERVICE_LINK.match(given):
        line += " (Kubernetes sets this for a Service named bridge: set enableServiceLinks: false in the pod)"
    return line


SECRETS = frozenset(
    name for name, member in Settings.model_fields.items() if member.annotation in (SecretStr, SecretStr | None)
)
"""The settings that are never shown and that may come as …_FILE."""

"""What a consumer is told from outside: environment variables with its own prefix, all problems named at once."""

import os
import ssl
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from consumers.errors import ConsumerError

# librdkafka takes these in either case.
SecurityProtocol = Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(str.upper)]


class ConsumerSettings(BaseSettings):
    """The settings that every consumer has; a subclass adds its prefix and its own.

    The security settings carry librdkafka's names. An empty variable counts as one that is not set.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True)

    # Names that the contract gives and that a later version will use: set today, they are said to have no effect.
    not_used_yet: ClassVar[frozenset[str]] = frozenset()

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_sasl_password_file: Path | None = None
    kafka_ssl_ca_location: Path | None = None
    topic_prefix: str = Field(default="instagram", pattern=r"^[a-z0-9-]+$")
    schema_registry_url: HttpUrl | None = None
    group_id: str = Field(min_length=1)
    log_format: Literal["console", "json"] = "console"
    tracing: bool = False

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a setting."""
        return f"{cls.model_config.get('env_prefix', '')}{name}".upper()

    def set_without_effect(self) -> list[str]:
        """The variables that are set and that only a later version will use."""
        return sorted(self.not_used_yet & os.environ.keys())

    @model_validator(mode="after")
    def _read_password_file(self) -> Self:
        if self.kafka_sasl_password_file is not None:
            try:
                password = self.kafka_sasl_password_file.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                name = self.variable("kafka_sasl_password_file")
                raise ValueError(f"{name}: the file cannot be read ({type(error).__name__})") from None
            self.kafka_sasl_password = SecretStr(password)
        return self

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL"):
            for name in ("kafka_sasl_username", "kafka_sasl_password"):
                if getattr(self, name) is None:
                    raise ValueError(f"{self.variable(name)}: needed with {self.kafka_security_protocol}")
        return self

    def kafka_options(self) -> dict[str, Any]:
        """The keyword arguments with which every aiokafka client of this process connects.

        Raises:
            ConsumerError: The file of CA certificates cannot be used.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap_servers,
            "security_protocol": self.kafka_security_protocol,
            "client_id": self.group_id,
        }
        if self.kafka_security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"] = self.kafka_sasl_username
            options["sasl_plain_password"] = self.kafka_sasl_password and self.kafka_sasl_password.get_secret_value()
        if self.kafka_security_protocol.endswith("SSL"):
            try:
                context = ssl.create_default_context(cafile=self.kafka_ssl_ca_location)
            except OSError as error:  # ssl.SSLError is one
                name = self.variable("kafka_ssl_ca_location")
                raise ConsumerError(f"{name}: no CA certificates could be read ({type(error).__name__})") from None
            context.minimum_version = ssl.TLSVersion.TLSv1_2  # Debian's Python leaves that to a file of the machine's
            options["ssl_context"] = context
        return options


SettingsT = TypeVar("SettingsT", bound=ConsumerSettings)


def load(settings_class: type[SettingsT]) -> SettingsT:
    """Reads the settings from the environment.

    Raises:
        ConsumerError: With one line for every bad value and every unknown variable with this prefix.
    """
    problems = [f"{name}: no such setting" for name in _unknown(settings_class)]
    try:
        settings = settings_class()
    except ValidationError as error:
        problems += [_line(settings_class, problem) for problem in error.errors(include_url=False)]
        raise ConsumerError("\n".join(problems)) from None
    if problems:
        raise ConsumerError("\n".join(problems))
    return settings


def _unknown(settings_class: type[ConsumerSettings]) -> list[str]:
    known = {settings_class.variable(name) for name in settings_class.model_fields} | settings_class.not_used_yet
    prefix = settings_class.variable("")
    return sorted(name for name in os.environ if name.startswith(prefix) and name not in known)


def _line(settings_class: type[ConsumerSettings], problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = settings_class.variable(str(problem["loc"][0]))
    if os.environ.get(name, "").startswith("tcp://"):
        message += " (Kubernetes sets this one for a service of that name: enableServiceLinks: false ends it)"
    return f"{name}: {message}"

"""Settings from the environment: all problems at once, one line each, no secret in any of them."""

import ssl
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from consumers.errors import ConsumerError
from consumers.settings import ConsumerSettings, load


class Settings(ConsumerSettings):
    """A consumer's settings, as a copier would write them."""

    model_config = SettingsConfigDict(env_prefix="SAMPLE_")
    not_used_yet: ClassVar[frozenset[str]] = frozenset({"SAMPLE_LATER"})

    group_id: str = Field(default="sample", min_length=1)
    port: int = 1


def test_settings_with_nothing_set_reach_the_local_kafka() -> None:
    """The defaults are those of a broker on this machine."""
    assert load(Settings).kafka_options() == {
        "bootstrap_servers": "127.0.0.1:9092",
        "security_protocol": "PLAINTEXT",
        "client_id": "sample",
    }


def test_settings_for_sasl_in_librdkafkas_words_reach_aiokafka(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The password may come from a file; the protocol may be written in lower case."""
    (tmp_path / "password").write_text("hunter2\n", "utf-8")
    monkeypatch.setenv("SAMPLE_KAFKA_SECURITY_PROTOCOL", "sasl_plaintext")
    monkeypatch.setenv("SAMPLE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("SAMPLE_KAFKA_SASL_USERNAME", "reader")
    monkeypatch.setenv("SAMPLE_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    settings = load(Settings)
    assert settings.kafka_options() == {
        "bootstrap_servers": "127.0.0.1:9092",
        "client_id": "sample",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "reader",
        "sasl_plain_password": "hunter2",
    }
    assert "hunter2" not in repr(settings)


def test_tls_checks_certificate_and_name_and_takes_no_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the Python's own default is; there is no setting that ends it."""
    monkeypatch.setenv("SAMPLE_KAFKA_SECURITY_PROTOCOL", "SSL")
    context: ssl.SSLContext = load(Settings).kafka_options()["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_bad_settings_are_all_named_at_once_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each: unknown names, wrong values; a service link of Kubernetes is explained."""
    monkeypatch.setenv("SAMPLE_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("SAMPLE_TOPIC_PREFIX", "Not.A.Prefix")
    monkeypatch.setenv("SAMPLE_SCHEMA_REGISTRY_URL", "http//hunter2")
    monkeypatch.setenv("SAMPLE_TYPO", "1")
    with pytest.raises(ConsumerError) as caught:
        load(Settings)
    lines = sorted(str(caught.value).splitlines())
    assert [line.partition(":")[0] for line in lines] == [
        "SAMPLE_PORT",
        "SAMPLE_SCHEMA_REGISTRY_URL",
        "SAMPLE_TOPIC_PREFIX",
        "SAMPLE_TYPO",
    ]
    assert "Kubernetes" in lines[0]
    assert not any(value in str(caught.value) for value in ("10.0.0.1", "Not.A", "hunter2"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SAMPLE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL", "SAMPLE_KAFKA_SASL_USERNAME: needed with SASL_SSL"),
        ("SAMPLE_KAFKA_SASL_PASSWORD_FILE", "/absent", "SAMPLE_KAFKA_SASL_PASSWORD_FILE: the file cannot be read"),
    ],
)
def test_settings_that_do_not_fit_together_name_the_one_to_mend(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """What one setting makes necessary is asked for by its name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConsumerError, match=said):
        load(Settings)


def test_ca_file_that_is_not_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the setting."""
    (tmp_path / "ca.pem").write_text("no certificate", "utf-8")
    monkeypatch.setenv("SAMPLE_KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("SAMPLE_KAFKA_SSL_CA_LOCATION", str(tmp_path / "ca.pem"))
    settings = load(Settings)
    with pytest.raises(ConsumerError, match="SAMPLE_KAFKA_SSL_CA_LOCATION"):
        settings.kafka_options()


def test_setting_of_a_later_version_is_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the contract gives is no typing mistake, and has no effect yet."""
    monkeypatch.setenv("SAMPLE_LATER", "1")
    assert load(Settings).set_without_effect() == ["SAMPLE_LATER"]

"""`bridge settings`, and docs/settings.md against the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from bridge.settings import SECRETS, Settings
from tests.conftest import BeginBridge

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
SECRET, TOKEN, PASSWORD = "a-live-app-secret", "a-verify-token", "a-password"
REQUIRED = {"BRIDGE_APP_SECRETS": f"main={SECRET}", "BRIDGE_VERIFY_TOKEN": TOKEN}


async def shown(bridge: BeginBridge, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Exit code, output and complaints of `bridge ARGUMENT…`."""
    process = await bridge(*arguments, environment=variables)
    return await process.end(), process.stdout, process.stderr


async def test_settings_with_all_required_shows_values_and_sources_and_masks_secrets(
    bridge: BeginBridge, tmp_path: Path
) -> None:
    """Every setting has a row; the environment comes before the env file; no secret is readable anywhere."""
    (tmp_path / "given.env").write_text(
        f"BRIDGE_PORT=9000\nBRIDGE_HOST=0.0.0.0\nBRIDGE_VERIFY_TOKEN={TOKEN}\n", "utf-8"
    )
    (tmp_path / "password").write_text(f"{PASSWORD}\n", "utf-8")
    variables = {
        "BRIDGE_APP_SECRETS": f"main={SECRET}",
        "BRIDGE_PORT": "9001",
        "BRIDGE_KAFKA_SASL_PASSWORD_FILE": "password",
        "BRIDGE_SCHEMA_REGISTRY_URL": f"http://me:{PASSWORD}@registry/x",
    }
    for output in ("json", "text"):
        code, stdout, stderr = await shown(
            bridge, "--env-file", "given.env", "settings", "--output", output, **variables
        )
        assert (code, stderr) == (0, "")
        assert not any(secret in stdout for secret in (SECRET, TOKEN, PASSWORD))
        if output == "json":
            rows = {row["setting"]: (row["value"], row["source"]) for row in json.loads(stdout)["settings"]}
    assert list(rows) == [f"BRIDGE_{name.upper()}" for name in Settings.model_fields]
    assert rows["BRIDGE_PORT"] == (9001, "environment")
    assert rows["BRIDGE_HOST"] == ("0.0.0.0", "given.env")  # noqa: S104 - nothing listens
    assert rows["BRIDGE_VERIFY_TOKEN"] == ("********", "given.env")
    assert rows["BRIDGE_APP_SECRETS"] == ("********", "environment")
    assert rows["BRIDGE_KAFKA_SASL_PASSWORD"] == ("********", "file password")
    assert rows["BRIDGE_KAFKA_SSL_KEY_PASSWORD"] == (None, "default")
    assert rows["BRIDGE_MANAGEMENT_PORT"] == (8081, "default")
    assert rows["BRIDGE_SCHEMA_REGISTRY_URL"] == ("http://********@registry/x", "environment")


async def test_settings_without_required_ones_shows_the_rest_and_what_is_missing(bridge: BeginBridge) -> None:
    """What is missing or wrong is told at once on stderr, with exit code 1, beside everything that was given."""
    code, stdout, stderr = await shown(bridge, "settings", "--output", "json", BRIDGE_PORT="http", BRIDGE_PROT="1")
    assert code == 1
    said = json.loads(stdout)
    rows = {row["setting"]: (row["value"], row["source"]) for row in said["settings"]}
    assert rows["BRIDGE_APP_SECRETS"] == rows["BRIDGE_VERIFY_TOKEN"] == (None, "not set")
    assert rows["BRIDGE_PORT"] == ("http", "environment")
    assert said["problems"] == stderr.splitlines()
    for named in ("BRIDGE_APP_SECRETS", "BRIDGE_VERIFY_TOKEN", "BRIDGE_PORT", "BRIDGE_PROT"):
        assert sum(line.startswith(named) for line in said["problems"]) == 1


@pytest.mark.parametrize("name", ["BRIDGE_APP_SECRETS", "BRIDGE_PORT"])
async def test_settings_with_an_empty_variable_counts_it_as_not_set(bridge: BeginBridge, name: str) -> None:
    """An empty variable, as compose files make them, leaves the default and says so."""
    _, stdout, _ = await shown(bridge, "settings", "--output", "json", **{**REQUIRED, name: ""})
    sources = {row["setting"]: row["source"] for row in json.loads(stdout)["settings"]}
    assert sources[name] in ("default", "not set")


async def test_settings_with_a_missing_env_file_fails_in_one_line(bridge: BeginBridge) -> None:
    """A wrong path is said, with what to do."""
    code, stdout, stderr = await shown(bridge, "--env-file", "nowhere.env", "settings")
    assert (code, stdout) == (1, "")
    assert re.fullmatch(r"bridge: there is no env file nowhere\.env.*\n", stderr)


def row(name: str) -> str:
    """What docs/settings.md says of a setting."""
    member = Settings.model_fields[name]
    if member.is_required():
        default = "required"
    else:
        default = "unset" if member.get_default() is None else f"`{member.get_default()}`"
    lowest, highest = (
        next((str(getattr(bound, side)) for bound in member.metadata if hasattr(bound, side)), "")
        for side in ("ge", "le")
    )
    takes = ", ".join(f"`{choice}`" for choice in get_args(member.annotation) if isinstance(choice, str))
    takes = takes or (f"{lowest} to {highest}" if highest else f"from {lowest} on" if lowest else "")
    secret = ", `…_FILE`" if name in SECRETS else ""
    return f"| `BRIDGE_{name.upper()}`{secret} | {default} | {takes} | {member.description} |"


def test_docs_name_the_same_settings_defaults_and_bounds() -> None:
    """docs/settings.md has a row for every setting, with the default, the bounds and the description that the code has."""
    rows = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `BRIDGE_")]
    assert rows == [row(name) for name in Settings.model_fields]

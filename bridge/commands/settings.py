"""`bridge settings`: every setting, its value, and where it came from; a secret shows only that it is set."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click

from bridge.commands._shared import output_option, printable, table
from bridge.errors import Misconfigured
from bridge.settings import PREFIX, SECRETS, Settings, load, read

_MASK = "********"
_USER_INFO = re.compile(r"(?<=//).*@")
_FAILED = 1


@click.command("settings")
@output_option
@click.pass_obj
def command(env_file: Path | None, *, output: str) -> None:
    """Show every setting, its value and its source; exit code 1 when `bridge serve` would not start with them.

    A secret is masked; so is a password in an address. An env file is named before the command.

    Example: bridge --env-file .env settings
    """
    given = read(env_file)
    settings, problems = None, ""
    try:
        settings, _ = load(Settings, env_file)
    except Misconfigured as error:
        problems = str(error)
    rows = []
    for name, member in Settings.model_fields.items():
        source = given.sources[name]
        if settings is not None:
            value = getattr(settings, name)
        else:  # as it was given, right or wrong
            value = member.get_default() if source == "default" else given.values.get(PREFIX + name.upper())
        if source == "default" and member.is_required():
            source, value = "not set", None
        rows.append({"setting": PREFIX + name.upper(), "value": _shown(name, value, source), "source": source})
    if output == "json":
        click.echo(json.dumps({"settings": rows, "problems": problems.splitlines()}))
    else:
        texts = [
            [row["setting"], "-" if row["value"] is None else printable(str(row["value"])), row["source"]]
            for row in rows
        ]
        click.echo(table([["setting", "value", "source"], *texts]))
    if problems:
        click.echo(problems, err=True)
        sys.exit(_FAILED)


def _shown(name: str, value: object, source: str) -> object:
    """A value as it may be seen."""
    if name in SECRETS:
        return _MASK if source not in ("default", "not set") else None
    if isinstance(value, str | Path):
        return _USER_INFO.sub(f"{_MASK}@", str(value))
    return value

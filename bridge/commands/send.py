"""`bridge send`: signs bodies from files or stdin and delivers them, byte for byte as they are."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from dotenv import dotenv_values

from bridge.errors import Misconfigured
from bridge.local.meta.sender import DEFAULT_URL, Answer, Sender
from bridge.local.meta.signing import app_secret

_F = TypeVar("_F", bound=Callable[..., Any])

_REMEDIES = {
    401: "sign with an app secret that the bridge has: --app-secret-file, --label or BRIDGE_APP_SECRETS",
    404: "the path should be /webhooks/instagram: give another --url",
    408: "the bridge was too slow to read it: send it again",
    413: "the body is larger than the bridge's BRIDGE_BODY_BYTES_MAX: send less at a time or raise it",
    503: "neither Kafka nor the spool took it in time: see the bridge's /readyz, then send it again",
}


def _http_url(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://")
    return value


def where_to(function: _F) -> _F:
    """The options of a command that delivers: where to, and which app secret signs."""
    options = (
        click.option("--url", default=DEFAULT_URL, show_default=True, callback=_http_url, help="Where they go."),
        click.option(
            "--app-secret-file",
            type=click.Path(path_type=Path),
            help="Holds the app secret. [default: BRIDGE_APP_SECRETS or BRIDGE_APP_SECRETS_FILE]",
        ),
        click.option("--label", help="Which of several app secrets signs. [default: the first]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def environment(env_file: Path | None) -> dict[str, str]:
    """The environment's variables, and those of `bridge --env-file` that it does not have.

    Raises:
        Misconfigured: there is no such file.
    """
    if env_file is not None and not env_file.is_file():
        raise Misconfigured(f"there is no env file {env_file}; copy .env.example")
    from_file = dotenv_values(env_file, interpolate=False) if env_file else {}
    return {name: value for name, value in from_file.items() if value is not None} | dict(os.environ)


def remedy(answer: Answer, url: str) -> str:
    """What went wrong with a post that was not answered 200, and how to mend it."""
    if answer.status is None:
        return f"{answer.problem}: start the bridge with `bridge dev` or `bridge serve`, or correct --url {url}"
    return f"answered {answer.status}: {_REMEDIES.get(answer.status, 'see what the bridge logged for it')}"


@click.command("send")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.File("rb"))
@where_to
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def command(
    env_file: Path | None,
    /,
    *,
    files: tuple[IO[bytes], ...],
    url: str,
    app_secret_file: Path | None,
    label: str | None,
    output: str,
) -> None:
    """Sign the bodies in FILE... (- is stdin) and deliver them exactly as they are, one after another."""
    secret = app_secret(environment(env_file), file=app_secret_file, label=label)
    refused = asyncio.run(_send(files, url=url, secret=secret, output=output))
    if refused:
        name, answer = refused[0]
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise click.ClickException(f"{name}{more} was not accepted: {remedy(answer, url)}")


async def _send(files: tuple[IO[bytes], ...], *, url: str, secret: str, output: str) -> list[tuple[str, Answer]]:
    refused = []
    async with Sender(url, secret) as sender:
        for file in files:
            name = "stdin" if file is sys.stdin.buffer else str(file.name)
            answer = await sender.post(file.read())
            click.echo(_line(name, answer, output))
            if not answer.is_safe:
                refused.append((name, answer))
    return refused


def _line(name: str, answer: Answer, output: str) -> str:
    if output == "json":
        line = {
            "file": name,
            "status": answer.status,
            "delivery_id": answer.delivery_id,
            "acknowledged_by": answer.acknowledged_by,
            "ms": round(answer.milliseconds, 1),
        }
        return json.dumps(line)
    return (
        f"{name}: {answer.status or 'no answer'}"
        f"  delivery {answer.delivery_id or '-'}  acknowledged by {answer.acknowledged_by or '-'}"
        f"  {answer.milliseconds:.1f} ms"
    )

"""``bridge``: every module of bridge/commands is a command."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import NoReturn

import click

from bridge import commands
from bridge.commands import _output
from bridge.errors import BridgeError

_FAILED, _INTERRUPTED = 1, 130


class _Commands(click.Group):
    """Finds commands by their module's name; `subscribe` is imported when it is asked for, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        del ctx
        return sorted(
            module.name for module in pkgutil.iter_modules(commands.__path__) if not module.name.startswith("_")
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None where there is no such module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{commands.__name__}.{cmd_name}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="instagram-kafka-bridge")
@click.option(
    "--env-file", type=click.Path(path_type=Path), help="Settings as NAME=value lines; the environment comes first."
)
@click.pass_context
def bridge(ctx: click.Context, env_file: Path | None) -> None:
    """Instagram messaging webhooks to Kafka."""
    ctx.obj = env_file


def main() -> NoReturn:
    """Run a command; 0 done, 1 it failed, 2 wrong usage, 130 interrupted."""
    try:
        sys.exit(bridge.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BridgeError as error:
        click.echo(f"bridge: {error}", err=True)
        sys.exit(_FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except OSError as error:  # a reader that has gone is click's: it ends without a word
        click.echo(f"bridge: {_output.told(error)}", err=True)
        _output.let_go()
        sys.exit(_FAILED)


if __name__ == "__main__":
    main()

"""What a shell completes: commands, options, and the names that a value may have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from bridge.__main__ import bridge
from bridge.routing import MANAGED_FIELDS
from tests.docs.markdown import ROOT, fences

MESSAGING = {name for name in MANAGED_FIELDS if name.startswith("messaging")}


def test_bash_completes_webhook_fields_after_readmes_line() -> None:
    """The line of the README, in a real bash, and then `bridge tail messaging` and the tab key."""
    (line,) = [line for block in fences(ROOT / "README.md", "sh") for line in block.splitlines() if "COMPLETE" in line]
    script = f"""{line.partition("#")[0]}
COMP_WORDS=(bridge tail messaging) COMP_CWORD=2
_bridge_completion bridge
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    completed = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, check=True)
    assert set(completed.stdout.split()) == MESSAGING


@pytest.mark.parametrize(
    ("typed", "begun", "offered"),
    [
        ([], "re", {"record", "replay"}),
        (["topics"], "a", {"apply"}),
        (["tail", "comments"], "messaging", MESSAGING),
        (["drift"], "messaging", MESSAGING),
        (["schemas", "propose"], "messaging", MESSAGING),
        (["record", "--field"], "messaging", MESSAGING),
        (["replay", "range"], "messaging", MESSAGING),
        (["replay", "range", "messages", "--to-topic"], "messaging", MESSAGING),
        (["subscribe", "17841400000000001"], "messaging_p", {"messaging_postbacks"}),
        (["settings", "--output"], "j", {"json"}),
        (["replay", "group", "crm"], "--ex", {"--execute"}),
        (["replay", "group", "crm", "--topic"], "messaging", MESSAGING),
        (["replay", "dead-letters", "--reason"], "not_", {"not_json", "not_utf8"}),
    ],
)
def test_command_line_that_is_begun_is_completed(typed: list[str], begun: str, offered: set[str]) -> None:
    """Wherever a command, an option, a webhook field or a topic may stand."""
    completions = ShellComplete(bridge, {}, "bridge", "_BRIDGE_COMPLETE").get_completions(typed, begun)
    assert {item.value for item in completions} == offered

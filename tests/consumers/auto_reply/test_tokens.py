"""The tokens of accounts, from a setting and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.auto_reply.tokens import Tokens, parse
from consumers.errors import ConsumerError


def test_tokens_are_taken_with_commas_and_lines() -> None:
    """`account=token`, white space around is nothing, a token may hold an equals sign."""
    assert parse(" 1=a , 2=b=c\n3=d,\n", source="X") == {"1": "a", "2": "b=c", "3": "d"}


@pytest.mark.parametrize("text", ["secret", "=secret", "1=", "1=sec ret", "1=secrét", "1=a,secret"])
def test_part_that_is_no_token_is_told_by_its_number_and_never_by_its_content(text: str) -> None:
    """What is broken may be a secret all the same."""
    with pytest.raises(ConsumerError, match=r"^X: part [12] is not account=token$"):
        parse(text, source="X")


def test_token_of_a_star_is_for_every_other_account() -> None:
    """One's own comes first."""
    tokens = Tokens("*=any,1=a", None)
    assert (tokens["1"], tokens["2"]) == ("a", "any")


def test_account_with_two_tokens_is_refused() -> None:
    """Nobody could say which counts."""
    with pytest.raises(ConsumerError, match="account 1 has two tokens"):
        parse("1=a,1=b", source="X")


def test_file_that_changes_says_whose_token_is_new(tmp_path: Path) -> None:
    """It comes before the setting; a file that cannot be read leaves everything as it was."""
    file = tmp_path / "tokens"
    file.write_text("1=a,2=b", "utf-8")
    tokens = Tokens("1=x,9=z", file)
    assert (tokens["1"], tokens["2"], tokens["9"], tokens["7"]) == ("a", "b", "z", None)
    assert not tokens.has_changed()
    file.write_text("1=a,2=another", "utf-8")
    assert tokens.has_changed()
    assert tokens.reload() == {"2"}
    assert not tokens.has_changed()
    file.write_text("broken", "utf-8")
    with pytest.raises(ConsumerError, match="part 1"):
        tokens.reload()
    assert tokens["2"] == "another"
    file.unlink()
    assert tokens.has_changed()
    with pytest.raises(ConsumerError, match=r"cannot be read \(FileNotFoundError\)"):
        tokens.reload()
    assert tokens["2"] == "another"

"""Text as people mean it: compared whatever the case, by words, and by regular expressions whose time is bounded.

Does no IO. A text is folded as Unicode's NFKC_Casefold says (Unicode Standard 3.13): composed and decomposed letters, full-width
digits and invisible characters make no difference. Turkish and Azerbaijani have an i without a dot, and so a rule of their own.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

import regex  # type: ignore[import-untyped]  # its types are a package apart; what is taken from it is typed here

# A search looks at its clock now and then, and was measured to end up to 20 ms later than this. A sound expression takes
# microseconds for a message, so whatever needs longer is one that backtracks without end.
PATTERN_TIME_MAX_S = 0.01
PATTERN_CHARACTERS_MAX = 500  # the worst of them that we know compile in half a second
REPETITIONS_MAX = (
    1000  # Meta's limit for a text; `(a|b){1000000000}` is compiled by writing it out, into all memory there is
)

DOTLESS_LANGUAGES = frozenset(
    {"az", "tr"}
)  # Unicode's SpecialCasing.txt, 17.0: I loses its case to a letter without a dot
_DOTLESS = str.maketrans({"\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}": "i", "I": "\N{LATIN SMALL LETTER DOTLESS I}"})

_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")  # soft hyphens, joiners, variation selectors
_REPEATED = regex.compile(r"(?P<group>\))?\s*\{\s*(?P<low>[0-9]*)\s*,?\s*(?P<high>[0-9]*)\s*\}")
_WORD = regex.compile(r"\w+")  # the standard library's \w takes no vowel signs, and so cuts Hindi words into letters


def composed(text: str) -> str:
    """The text with its characters in Unicode's compatible composed form (NFKC), its case as it was."""
    return unicodedata.normalize("NFKC", text)


def folded(text: str, language: str | None) -> str:
    """What is equal for texts that differ in nothing but case and spelling of characters.

    Args:
        text: As it was written.
        language: Two or three letters (ISO 639), or None for none in particular.
    """
    text = composed(text)
    if language in DOTLESS_LANGUAGES:
        text = text.translate(_DOTLESS)
    # Folding may take a character apart again.
    return str(_INVISIBLE.sub("", composed(text.casefold())))


def in_words(folded_text: str) -> str:
    """A folded text as its words with a blank before and after each, so that words can be sought as a part of it."""
    return f" {' '.join(_WORD.findall(folded_text))} "


def _repetitions_max(expression: str) -> int:
    """How often a part of an expression is written out when it is compiled, at most: repeated groups may hold one another."""
    counts = [(found["group"], int(found["high"] or found["low"] or 1)) for found in _REPEATED.finditer(expression)]
    outer = math.prod(max(count, 1) for group, count in counts if group)
    return outer * max((count for group, count in counts if not group), default=1)


class Pattern:
    """A regular expression in the dialect of the `regex` package, whatever the case.

    Attributes:
        names: Of its groups.

    Args:
        expression: As written.

    Raises:
        ValueError: It is too long, repeats too often, or is no expression.
    """

    def __init__(self, expression: str) -> None:
        if len(expression) > PATTERN_CHARACTERS_MAX:
            raise ValueError(f"has {len(expression)} characters, {PATTERN_CHARACTERS_MAX} are the most")
        if (repetitions := _repetitions_max(expression)) > REPETITIONS_MAX:
            raise ValueError(
                f"may repeat a part {repetitions} times, {REPETITIONS_MAX} are the most; + and * have no limit"
            )
        try:
            # Composed like the text, but canonically: compatible forms of a letter are never signs of an expression.
            self._compiled = regex.compile(unicodedata.normalize("NFC", expression), regex.IGNORECASE | regex.FULLCASE)
        except regex.error as error:
            raise ValueError(f"is no regular expression: {error.msg} at character {(error.pos or 0) + 1}") from None
        self.names: frozenset[str] = frozenset(self._compiled.groupindex)

    def search(self, text: str, *, time_s: float) -> Mapping[str, str | None] | None:
        """The named groups of the first match, or None where there is none.

        Raises:
            TimeoutError: It was not done in time.
        """
        found = self._compiled.search(text, timeout=min(time_s, PATTERN_TIME_MAX_S))
        if found is None:
            return None
        groups: dict[str, str | None] = found.groupdict()
        return groups

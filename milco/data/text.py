"""Cleaning and filtering of parallel text: strict rules for interface strings, milder rules for prose."""

import re
import unicodedata

from milco.languages import SEVERAL, letters
from milco.modeling.texts import composed

PLACEHOLDER = re.compile(r"\{[^{}]*\}|%\([^)]*\)[sd]|%[sd]|<\w[^>]*>|</\w+>")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
REFERENCE = re.compile(r"\[%key:|^\w+(::[\w-]+)+$")
PLURAL = re.compile(r"\{\s*\w+\s*,\s*(?:plural|select|selectordinal)\s*,")
LEFTOVERS = re.compile(r"""["'`“”„«»(\[（「『【]\s*["'`“”„«»)\]）」』】]|[*`]""")

ANY = letters(SEVERAL)


def placeholders(text: str) -> list[str]:
    """The placeholders and tags of a string, sorted: both sides of a good translation have the same ones."""
    return sorted(PLACEHOLDER.findall(text))


def clean(text: str) -> str:
    """Plain text of an interface string: links keep their words; placeholders, tags and marks go."""
    text = LINK.sub(r"\1", unicodedata.normalize("NFC", text))
    text = LEFTOVERS.sub(" ", PLACEHOLDER.sub(" ", text))
    return " ".join(text.split()).strip(" :;,-–")


def tidy(text: str) -> str:
    """Prose as the encoder reads it: in composed letters of ordinary width, without invisible characters, with single
    spaces."""
    return " ".join(composed(text).split())


def comparable(text: str) -> str:
    """Form for comparison: equal for strings that differ only in case and white space."""
    return " ".join(text.casefold().split())


def written_in(text: str, language: str) -> bool:
    """Whether a text has a letter of a script that the language is written in, as far as that is certain."""
    return letters(language).search(text) is not None


def program_text(text: str) -> str | None:
    """Reason, in one word, why a raw string is written for programs (a reference, a plural form); None if it is not."""
    if REFERENCE.search(text):
        return "reference"
    return "plural" if PLURAL.search(text) else None


def prepared(english: str, other: str, language: str, cleaning: str) -> tuple[str, str, str | None]:
    """Both sides of a pair as training reads them, and why it is dropped, in a word or two; None: it is kept.

    Args:
        cleaning: `interface`, `sentences` or `none`, as sources say it.
    """
    if cleaning == "interface":
        return clean(english), clean(other), rejection(english, other, language)
    if cleaning == "sentences":
        english, other = tidy(english), tidy(other)
    reason = None
    if not (english.strip() and other.strip()):
        reason = "empty"
    elif cleaning == "sentences" and foreign(english, "en"):
        reason = "not English"
    elif cleaning == "sentences" and foreign(other, language):
        reason = "script"
    return english, other, reason


def foreign(text: str, language: str) -> bool:
    """Whether a text has letters, and none of a script of the language."""
    return not written_in(text, language) and ANY.search(text) is not None


def rejection(english: str, other: str, language: str) -> str | None:
    """Reason, in one word, why a pair of raw interface strings is dropped; None if it is kept."""
    if reason := program_text(english) or program_text(other):
        return reason
    if placeholders(english) != placeholders(other):
        return "placeholders"
    cleaned, translated = clean(english), clean(other)
    if not written_in(cleaned, "en"):
        return "empty"
    if comparable(cleaned) == comparable(translated):
        return "untranslated"
    if not written_in(translated, language):
        return "script"
    return None

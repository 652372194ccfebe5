"""What counts as a translation: cleaning rules for interface strings and other short parallel text."""

import re
import unicodedata

PLACEHOLDER = re.compile(r"\{[^{}]*\}|%\([^)]*\)[sd]|%[sd]|<\w[^>]*>|</\w+>")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
REFERENCE = re.compile(r"\[%key:|^\w+(::[\w-]+)+$")
PLURAL = re.compile(r"\{\s*\w+\s*,\s*(?:plural|select|selectordinal)\s*,")
LEFTOVERS = re.compile(r"""["'`“”„«»(\[（「『【]\s*["'`“”„«»)\]）」』】]|[*`]""")
# Languages that are not written in Latin letters, with the first words of the Unicode names of their letters.
SCRIPTS = {
    "ar": {"ARABIC"},
    "bg": {"CYRILLIC"},
    "bn": {"BENGALI"},
    "el": {"GREEK"},
    "fa": {"ARABIC"},
    "he": {"HEBREW"},
    "hi": {"DEVANAGARI"},
    "hy": {"ARMENIAN"},
    "ja": {"HIRAGANA", "KATAKANA", "CJK"},
    "ka": {"GEORGIAN"},
    "ko": {"HANGUL"},
    "mk": {"CYRILLIC"},
    "ml": {"MALAYALAM"},
    "ne": {"DEVANAGARI"},
    "ru": {"CYRILLIC"},
    "sr": {"CYRILLIC"},
    "ta": {"TAMIL"},
    "te": {"TELUGU"},
    "th": {"THAI"},
    "uk": {"CYRILLIC"},
    "ur": {"ARABIC"},
    "zh": {"CJK"},
}


def placeholders(text: str) -> list[str]:
    """The placeholders and tags of a string, sorted: both sides of a good translation have the same ones."""
    return sorted(PLACEHOLDER.findall(text))


def clean(text: str) -> str:
    """Plain text of an interface string: links keep their words; placeholders, tags and marks go."""
    text = LINK.sub(r"\1", unicodedata.normalize("NFC", text))
    text = LEFTOVERS.sub(" ", PLACEHOLDER.sub(" ", text))
    return " ".join(text.split()).strip(" :;,-–")


def comparable(text: str) -> str:
    """Form under which two strings count as the same: case and white space do not matter."""
    return " ".join(text.casefold().split())


def written_in(text: str, language: str) -> bool:
    """Whether a text has a letter of the language's script; true for languages in Latin letters with any letter."""
    code, *subtags = language.split("-")
    scripts = {"LATIN"} if "Latn" in subtags else SCRIPTS.get(code, {"LATIN"})
    return any(unicodedata.name(letter, "").split(" ")[0].split("-")[0] in scripts for letter in text)


def program_text(text: str) -> str | None:
    """Why a raw string is written for programs, in one word, or None if people read it as it is."""
    if REFERENCE.search(text):
        return "reference"
    return "plural" if PLURAL.search(text) else None


def rejection(english: str, other: str, language: str) -> str | None:
    """Why a pair of raw strings is no training pair, in one word, or None if it is one."""
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

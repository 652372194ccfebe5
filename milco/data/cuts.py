"""Count the texts, by language, that exceed a model's length limit and are cut."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

from milco.config import Config

CUT = "cut.json"  # counts of queries and documents beside vectors, and beside the runs that are made of them
LOOKED_AT = 200  # first characters of a text, by which its script is told


class Cuts:
    """How many texts of a language there are, and how many of them are cut."""

    def __init__(self, texts: dict[str, int] | None = None, cut: dict[str, int] | None = None):
        self.texts, self.cut = Counter(texts or {}), Counter(cut or {})

    def count(self, languages: list[str], cut: Iterable[int]) -> None:
        """Count texts, given their languages; `cut` has the positions of those that are cut."""
        self.texts.update(languages)
        self.cut.update(languages[place] for place in cut)

    def __add__(self, other: "Cuts") -> "Cuts":
        return Cuts(self.texts + other.texts, self.cut + other.cut)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The arguments that make an equal object: `Cuts(**cuts.as_dict())`."""
        return {"texts": dict(self.texts), "cut": dict(self.cut)}

    def sentence(self, what: str, length: int) -> str:
        """A one-line summary, languages with the largest share of cut texts first; empty if no text is cut."""
        if not self.cut.total():
            return ""
        shares = sorted(self.cut, key=lambda language: (-self.cut[language] / self.texts[language], language))
        parts = [f"{language} {self.cut[language]:,} of {self.texts[language]:,}" for language in shares]
        total = f"{self.cut.total():,} of {self.texts.total():,} {what} are cut at {length} tokens"
        return f"{total}: {', '.join(parts)}"


def length_of(config: Config, side: str) -> int:
    """Tokens at which a text of that side is cut."""
    return config.model.query_max_length if side == "queries" else config.model.passage_max_length


def letters_of(text: str) -> str:
    """The script of most letters of a text, as Unicode names it: Latin, Cyrillic, Cjk, Thai, …"""
    found = Counter(unicodedata.name(letter, "?").split()[0] for letter in text[:LOOKED_AT] if letter.isalpha())
    return found.most_common(1)[0][0].capitalize() if found else "no letters"

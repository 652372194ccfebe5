"""Make queries from documents: a document's title is the query, its text the positive."""

from collections import Counter
from pathlib import Path

import regex

from milco.config import Source
from milco.data.beir import iter_records
from milco.data.corpora import BROKEN, HELD_OUT, KEPT, counted
from milco.data.held_out import HeldOut
from milco.data.reading import Broken, warn
from milco.data.text import comparable, tidy
from milco.errors import MilcoError

UNTITLED, EMPTY = "without a title", "without a text beside the title"
SHARED, COPIED = "with the title of another text", "with title and text of another"
# The end of a word, as in Unicode, also between signs that are written without blanks; and what ends a heading.
WORD_END = regex.compile(r"(?w)\b[\s\p{Po}\p{Pd}]*")


def titled(
    folder: Path, source: Source, forbidden: HeldOut, counts: Counter
) -> tuple[list[str], list[str], list[list[int]]]:
    """Titles to ask; the texts of all documents, each once and without its title; the place of each title's text.

    A document whose title is not used as a query can still be a negative, if it has a text.

    Args:
        forbidden: strings that no title and no text that answers one may be.
        counts: is filled: why the title of a document is not asked → how many.

    Raises:
        MilcoError: no title is left.
    """
    broken = Broken(source.broken_share())
    places: dict[str, int] = {}
    queries: dict[str, str] = {}
    answers: dict[str, list[int]] = {}
    taken: set[str] = set()
    for record in iter_records(folder, broken):
        title = record.title.strip()
        text = without(title, record.text.strip())
        if not text:
            counts[EMPTY] += 1
            continue
        place = places.setdefault(text.lower() if source.lowercase_documents else text, len(places))
        if not title:
            counts[UNTITLED] += 1
            continue
        same = comparable(tidy(title))
        queries.setdefault(same, title.lower() if source.lowercase_queries else title)
        if any(said in forbidden for said in (title, text, record.text)):
            taken.add(same)
        if place in answers.setdefault(same, []):
            counts[COPIED] += 1
        else:
            answers[same].append(place)
    if broken.count:
        counts[BROKEN] = broken.count
        warn(str(broken))
    asked = [same for same, found in answers.items() if len(found) == 1 and same not in taken]
    for same, found in answers.items():
        if same in taken or len(found) > 1:
            counts[HELD_OUT if same in taken else SHARED] += len(found)
    if not asked:
        lost = counted({reason: count for reason, count in counts.items() if reason != KEPT})
        raise MilcoError(
            f"{folder}/corpus.jsonl: no title is left to ask ({lost}); distill.positives: titles needs titles that no "
            "other document has, and texts beside them"
        )
    return [queries[same] for same in asked], list(places), [answers[same] for same in asked]


def without(title: str, text: str) -> str:
    """Remove a title from the beginning of its text, where headings and encyclopaedias repeat it: matching the same
    words would teach nothing."""
    while title and text[: len(title)].casefold() == title.casefold() and (end := WORD_END.match(text, len(title))):
        text = text[end.end() :]
    return text

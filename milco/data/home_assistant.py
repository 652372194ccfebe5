"""Reader of the demo's text: the interface strings of Home Assistant, aligned by key across languages.

Core: one JSON file per integration and language. A setting, step, action or repair has a title and a description;
such a pair is a known item: the title in one language is a query for the description in another.
Frontend: one JSON file per fragment and language; used only as parallel text.
"""

import hashlib
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd

from milco.config import Corpora
from milco.data import text
from milco.data.beir import Collection
from milco.errors import MilcoError
from milco.languages import normal

ITEM_COLUMNS = ["item", "split", "language", "title", "description"]
CORE_FILE = re.compile(r"homeassistant/components/([^/]+)/translations/([^/]+)\.json$")
FRONTEND_FILE = re.compile(r"hass_frontend/static/translations/(?:([^/]+)/)?([^/]+)-[0-9a-f]{32}\.json$")
CODES = {"zh": "zh-Hans"}  # languages whose file is named otherwise
DISTRACTOR_WORDS = 5  # messages of at least so many English words are documents too, relevant to no query

Keys = tuple[str, ...]


def _strings(tree: dict, path: Keys = ()) -> Iterator[tuple[Keys, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _strings(value, (*path, key))
        elif isinstance(value, str):
            yield (*path, key), value


@lru_cache(maxsize=4)
def _texts(source: Path, pattern: re.Pattern, languages: tuple[str, ...]) -> dict[str, dict[str, dict[Keys, str]]]:
    """language → part (integration or fragment) → key path → string."""
    wheel = next(source.glob("*.whl"), None) if source.is_dir() else source
    if wheel is None:
        raise MilcoError(f"{source}: no wheel in it; delete the folder and fetch it again")
    files = {normal(CODES.get(language, language)): language for language in ("en", *languages)}
    texts: dict[str, dict] = defaultdict(dict)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                match = pattern.match(name)
                if match and normal(match[2]) in files:
                    texts[files[normal(match[2])]][match[1] or ""] = dict(_strings(json.loads(archive.read(name))))
    except zipfile.BadZipFile as error:
        raise MilcoError(f"{wheel}: not a complete wheel ({error}); delete it and fetch it again") from None
    if "en" not in texts:
        raise MilcoError(f"{wheel}: no English strings in it; is it another release?")
    return texts


def split_of(integration: str, held_out: float, development: float, seed: int) -> str:
    """Split of an integration: `train`, `dev` or `test`. It does not depend on other integrations."""
    digest = hashlib.sha256(f"{seed}/{integration}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share >= held_out:
        return "train"
    return "dev" if share < held_out * development else "test"


def pairs(source: Path, languages: list[str], settings: Corpora, seed: int) -> Iterator[tuple[str, str, str]]:
    """Candidates (English, other, language) from the integrations that are not held out."""
    texts = _texts(source, CORE_FILE, tuple(languages))
    for integration, english in texts["en"].items():
        if split_of(integration, settings.held_out, settings.development, seed) == "train":
            yield from _aligned(texts, integration, english)


def frontend_pairs(source: Path, languages: list[str]) -> Iterator[tuple[str, str, str]]:
    """Candidates (English, other, language) from the interface's own texts."""
    texts = _texts(source, FRONTEND_FILE, tuple(languages))
    for fragment, english in texts["en"].items():
        yield from _aligned(texts, fragment, english)


def _aligned(texts: dict, part: str, english: dict[Keys, str]) -> Iterator[tuple[str, str, str]]:
    for language, parts in texts.items():
        if language != "en":
            for key, other in parts.get(part, {}).items():
                if key in english:
                    yield english[key], other, language


def description_of(key: Keys, strings: dict[Keys, str]) -> Keys | None:
    """Key of the description that belongs to a title, if the title has one."""
    if key[-1] in ("title", "name"):
        candidate = (*key[:-1], "description")
    elif "data" in key:
        at = len(key) - 1 - key[::-1].index("data")
        candidate = (*key[:at], "data_description", *key[at + 1 :])
    else:
        return None
    return candidate if candidate in strings else None


def items(source: Path, languages: list[str], settings: Corpora, seed: int) -> pd.DataFrame:
    """Every known item in every language that translates it, and the messages that serve as distractors.

    Returns:
        Columns item, split, language, title, description. A distractor has no title (None).
    """
    texts = _texts(source, CORE_FILE, tuple(languages))
    rows = []
    for integration, english in texts["en"].items():
        split = split_of(integration, settings.held_out, settings.development, seed)
        titles = {key: description_of(key, english) for key in english}
        described = set(titles.values())
        for key, value in english.items():
            target = titles[key]
            if target is None and (key in described or len(value.split()) < DISTRACTOR_WORDS):
                continue
            for language, parts in texts.items():
                strings = english if language == "en" else parts.get(integration, {})
                title = _usable(english[key], strings.get(key), language) if target else None
                description = _usable(english[target or key], strings.get(target or key), language)
                if description and (title or not target):
                    rows.append(("/".join((integration, *key)), split, language, title, description))
    return pd.DataFrame(rows, columns=ITEM_COLUMNS)


def _usable(english: str, other: str | None, language: str) -> str | None:
    """The cleaned string, or None where it is missing or not in its language."""
    if other is None:
        return None
    cleaned = text.clean(other)
    if language == "en":
        return cleaned if text.written_in(cleaned, "en") and not text.program_text(other) else None
    return None if text.rejection(english, other, language) else cleaned


def collections(table: pd.DataFrame, split: str, languages: list[str], settings: Corpora) -> Iterator[Collection]:
    """Collections `{query language}-{document language}`: a title is a query for the descriptions of its item.

    Per language X: X-en (queries in X, English documents) and, in the test split, X-X; and en-en, the queries of all
    languages in English, which measures the ceiling. A query is one English title; the descriptions of all items of
    that title are relevant. Titles with more than `settings.max_relevant` English descriptions are too generic and are
    left out everywhere, so X-X and X-en have the same queries. X-X holds the described items only, without distractors.
    """
    table = table[table.split == split]
    english = table[table.language == "en"]
    titled = english.dropna(subset="title").groupby("title")
    items_by_title = titled.item.agg(list)[titled.description.nunique() <= settings.max_relevant]
    asked: set[str] = set()
    made = []
    for language in languages:
        local = table[table.language == language]
        queries = _queries(local, english, items_by_title, settings)
        asked |= set(queries)
        cross = _collection(language, "en", english, queries, items_by_title)
        described = local.dropna(subset="title")
        same = _collection(language, language, described, queries, items_by_title)
        if not cross.qrels or not same.qrels:
            raise MilcoError(f"eval_languages: {language} has no {split} query; drop it or hold out more")
        made += [cross] if split == "dev" else [cross, same]
    ceiling = {title: title for title in items_by_title.index if title in asked}
    yield _collection("en", "en", english, ceiling, items_by_title)
    yield from made


def _queries(
    local: pd.DataFrame, english: pd.DataFrame, items_by_title: pd.Series, settings: Corpora
) -> dict[str, str]:
    """English title → its most frequent translation. Titles that share a translation are ambiguous and left out."""
    titles = english.set_index("item").title
    pairs = local.dropna(subset="title")
    pairs = pairs.assign(english=pairs.item.map(titles)).dropna(subset="english")
    commonest = pairs.groupby("english").title.agg(lambda values: values.mode().iloc[0])
    commonest = commonest[~commonest.map(text.comparable).duplicated(keep=False)]
    chosen = sorted(
        commonest.index.intersection(items_by_title.index), key=lambda title: hashlib.sha256(title.encode()).digest()
    )
    return {title: commonest[title] for title in chosen[: settings.max_queries]}


def _collection(
    asked: str, answered: str, table: pd.DataFrame, queries: dict[str, str], items_by_title: pd.Series
) -> Collection:
    """A collection over the distinct descriptions of `table`, with the given queries (by English title).

    Args:
        asked, answered: languages of queries and documents.
    """
    documents = {_identifier(value): value for value in table.description.drop_duplicates()}
    description = table.set_index("item").description
    description = description[~description.index.duplicated()]
    about = {"query_language": asked, "document_language": answered}
    collection = Collection(f"{asked}-{answered}", documents, about=about)
    for title, query in queries.items():
        known = [item for item in items_by_title[title] if item in description.index]
        relevant = {_identifier(description[item]): 1 for item in known}
        if relevant:
            collection.queries[_identifier(title)] = query
            collection.qrels[_identifier(title)] = relevant
    return collection


def _identifier(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:12]

"""Distillation triples: queries in many languages with a positive and mined hard negatives, scored by the teacher.

A query is the title of a known item in some language; its positive is the description of that item and its
negatives are the teacher's best wrong descriptions for the English title, with a few random ones. Documents are in
English for one half of the triples and in the query's language, where they are translated, for the other half.
All scores are the teacher's, from the English side of the same items.

Run by rule `mine`:
    python -m milco mine --config FILE --corpora FOLDER --teacher FOLDER --source NAME=PATH … --output FILE
"""

from collections.abc import Callable
from itertools import chain, islice
from math import isfinite
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from milco.config import Config
from milco.corpora import TRIPLE_COLUMNS, read_batches
from milco.errors import MilcoError
from milco.files import finished_file
from milco.search import top_k
from milco.teacher import Targets


def mine(config: Config, corpora: Path, teacher: Path, sources: dict[str, Path], output: Path) -> None:
    """Write the triples of every dataset of Stage 2 to one Parquet file in the hub's layout."""
    tables = []
    for name in config.distill.train_datasets:
        source = config.sources[name]
        if source.format == "triples":
            tables.append(read_triples(sources[name], config, name))
        else:
            tables.append(mine_items(pd.read_parquet(corpora / "items.parquet"), corpora, teacher, config))
    with finished_file(output) as draft:
        pd.concat(tables, ignore_index=True).to_parquet(draft, index=False)


def read_triples(path: Path, config: Config, name: str) -> pd.DataFrame:
    """A user's triples, checked: every document needs a score, every query a positive and enough negatives."""
    table = pd.concat(read_batches(path, config.sources[name], name, TRIPLE_COLUMNS), ignore_index=True)
    wanted = config.distill.train_group_size - 1
    for row, triple in enumerate(table.itertuples(), 1):
        for column, valid in LISTS.items():
            if not _is_list(getattr(triple, column), valid):
                raise MilcoError(f"{path}: row {row}: column {column!r} is no whole list of texts or of finite scores")
        if len(triple.pos) != len(triple.pos_scores) or len(triple.neg) != len(triple.neg_scores):
            raise MilcoError(f"{path}: row {row}: as many scores as documents are needed, positive and negative")
        if len(triple.pos) == 0 or len(triple.neg) < wanted:
            raise MilcoError(
                f"{path}: row {row}: {len(triple.pos)} positives and {len(triple.neg)} negatives; "
                f"distill.train_group_size asks for at least 1 and {wanted}"
            )
    return table


def _is_list(values, valid: Callable) -> bool:
    return isinstance(values, list | np.ndarray) and all(map(valid, values))


def _is_text(value) -> bool:
    return isinstance(value, str)


def _is_score(value) -> bool:
    return isinstance(value, Real) and isfinite(value)


LISTS = {"pos": _is_text, "neg": _is_text, "pos_scores": _is_score, "neg_scores": _is_score}


def mine_items(items: pd.DataFrame, corpora: Path, teacher: Path, config: Config) -> pd.DataFrame:
    """Triples from the known items of the training integrations."""
    random = np.random.default_rng(config.seed)
    settings = config.distill
    english_id = {text: row for row, text in enumerate(pd.read_parquet(corpora / "english.parquet").english)}
    english = items[items.language == "en"].drop_duplicates("item").set_index("item")
    documents = english.description.drop_duplicates().tolist()
    place = {text: row for row, text in enumerate(documents)}
    targets = Targets(teacher)

    def vectors(texts: list[str]) -> scipy.sparse.csr_array:
        return targets.rows(np.array([english_id[text] for text in texts], int))

    rows = vectors(documents)
    translations, queries = _translations(items, english, place), _queries(items, english)
    triples = []
    for title, descriptions in english.dropna(subset="title").groupby("title").description:
        relevant = sorted({place[text] for text in descriptions})
        if len(relevant) > config.corpora.max_relevant:
            continue
        scores = (rows @ vectors([title]).T).toarray().ravel()
        best = [document for document, _ in top_k(scores, settings.hard_negatives + len(relevant))]
        hard = [document for document in best if document not in relevant][: settings.hard_negatives]
        for language, query in queries[title].items():
            chance = random.permutation(len(documents))
            local = translations.get(language, {}) if random.random() < 0.5 else {}
            chosen = {*relevant, *hard}
            candidates = chain(hard, (document for document in chance if document not in chosen))
            positives = [local.get(document, documents[document]) for document in relevant]
            # Two documents may share a translation: the text of a positive must not come among the negatives.
            right = (number for number in candidates if local.get(number, documents[number]) not in positives)
            negatives = list(islice(right, len(hard) + settings.random_negatives))
            texts = [local.get(document, documents[document]) for document in negatives]
            if len(negatives) < settings.train_group_size - 1:
                raise MilcoError(
                    f"distill.train_group_size: {settings.train_group_size}, but the items have only {len(documents)} "
                    "descriptions to take negatives from; hold out less or make the groups smaller"
                )
            triples.append((query, positives, texts, scores[relevant].tolist(), scores[negatives].tolist()))
    return pd.DataFrame(triples, columns=TRIPLE_COLUMNS)


def _translations(items: pd.DataFrame, english: pd.DataFrame, place: dict[str, int]) -> dict[str, dict[int, str]]:
    """language → place of an English document → the same document in that language."""
    foreign = items[(items.language != "en") & items.item.isin(english.index)]
    documents = foreign.item.map(english.description).map(place)
    return {
        language: dict(zip(documents[part.index], part.description, strict=True))
        for language, part in foreign.groupby("language")
    }


def _queries(items: pd.DataFrame, english: pd.DataFrame) -> dict[str, dict[str, str]]:
    """English title → language → the title in that language, English itself included."""
    titled = items.dropna(subset="title").assign(english=lambda rows: rows.item.map(english.title))
    titled = titled.dropna(subset="english").drop_duplicates(["english", "language"])
    return {title: dict(zip(part.language, part.title, strict=True)) for title, part in titled.groupby("english")}

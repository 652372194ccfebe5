"""Distillation triples: queries with their positives and mined hard negatives, each document with a score.

Known items: a query is the title of an item in some language; its positive is the description of that item. Documents
are in English for one half of the triples and in the query's language, where they are translated, for the other half.
Hard negatives are the miner's highest-ranked wrong documents. The English teacher searches with the English title; a
MILCO model searches with the query itself, among the documents of that half. A few random ones are added. Scores are
the teacher's, from the English side of the same items, or a cross-encoder's, from the texts themselves.

Collections in BEIR layout: the queries of qrels/train.tsv that are in no test or development collection; positives are
the documents with a grade above 0. A MILCO model mines, a cross-encoder scores. Without judgements
(`distill.positives: scored`) the queries are those of queries.jsonl, and the positive of each is the document with the
highest score among those that the model finds. From documents alone (`distill.positives: titles`) the queries are their
titles, and the positive of each is the text without it: milco/training/titles.py.

Parallel text, if Stage 2 starts from a finished model: a query is a sentence, its positive the English side. A MILCO
model mines among all English sides. Scores are the teacher's, which reads the English side for the query, or a
cross-encoder's.

A user's triples are taken as they are, except those whose query or positive must not be trained on, and those without a
positive or a negative. The file's metadata counts them by dataset, as JSON under `statistics`.

Run by rule `mine`:
    python -m milco.stages mine --config FILE --corpora FOLDER --source NAME=PATH … [--teacher FOLDER]
        [--miner FOLDER] [--scorer FOLDER] --output FILE
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from tqdm import tqdm
from transformers import PretrainedConfig

from milco.checkpoint_config import is_milco
from milco.config import Config, Distill
from milco.data.beir import read_collection
from milco.data.corpora import BROKEN, HELD_OUT, KEPT, counted
from milco.data.held_out import HeldOut
from milco.data.reading import Broken, BrokenRow, Row, warn
from milco.data.tables import TRIPLE_COLUMNS, read_batches
from milco.data.vectors import LARGEST
from milco.errors import MilcoError, about_source
from milco.evaluation.encode import WINDOW, SparseEncoder
from milco.evaluation.index import Index
from milco.evaluation.search import top_k
from milco.files import finished_file
from milco.training.score import CrossEncoder, scored
from milco.training.teacher import Targets
from milco.training.titles import titled

TEXTS, SCORES = pa.list_(pa.string()), pa.list_(pa.float64())
LACKING, SHORT = "without a positive or a negative", "kept with too few negatives for a group"
HOLE = "without a value"
SCHEMA = pa.schema(zip(TRIPLE_COLUMNS, [pa.string(), TEXTS, TEXTS, SCORES, SCORES], strict=True))


def mine(
    config: Config,
    corpora: Path,
    teacher: Path | None,
    sources: dict[str, Path],
    output: Path,
    miner: Path | None = None,
    scorer: Path | None = None,
) -> None:
    """Write the triples of every dataset of Stage 2 to one Parquet file in the hub's layout.

    Args:
        teacher: the English teacher's targets, where a dataset has an English side.
        miner, scorer: the MILCO model and the cross-encoder, where the settings name one instead of the teacher.

    Raises:
        MilcoError: a dataset has too few documents, or a dataset or model is not what it should be.
    """
    for key, folder in (("miner", miner), ("scorer", scorer)):
        if ((named := getattr(config.distill, key)) == "teacher") != (folder is None):
            raise MilcoError(f"--{key}: wanted unless distill.{key} is teacher, and refused then (it is {named})")
    model = Miner(config, miner) if miner else None
    judge = CrossEncoder(config, scorer) if scorer else None

    counts: dict[str, Counter] = {name: Counter({KEPT: 0}) for name in config.distill.train_datasets}
    units = {name: "documents" if config.sources[name].format == "beir" else "triples" for name in counts}

    def tables(name: str) -> Iterator[pd.DataFrame]:
        match config.sources[name].format:
            case "triples":
                with about_source(name, sources[name]):
                    yield from read_triples(sources[name], config, name, HeldOut.read(corpora), counts[name])
                return
            case "beir":
                assert model  # the settings are valid
                with about_source(name, sources[name]):
                    mined = iter([mine_collection(name, sources[name], corpora, config, model, counts[name])])
            case "pairs":
                assert model and teacher
                mined = mine_pairs(corpora, teacher, config, model)
            case _:
                assert teacher
                items = pd.read_parquet(corpora / "items.parquet")
                mined = iter([mine_items(items, corpora, teacher, config, model)])
        for table in mined:
            table = scored(table, judge) if judge else table
            if config.sources[name].format == "beir" and config.distill.positives == "scored":
                table = best_first(table)
            counts[name][KEPT] += len(table)
            yield table

    with finished_file(output) as draft, pq.ParquetWriter(draft, SCHEMA) as writer:
        for name in counts:
            for table in tables(name):
                writer.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False))
            print(f"{name}: {counted(counts[name])}")
        warnings = [line for name, found in counts.items() for line in _warnings(name, found, units[name])]
        for line in warnings:
            print(f"warning: {line}")
        if not any(found[KEPT] for found in counts.values()):
            lost = "; ".join(f"{name}: {counted(found)}" for name, found in counts.items())
            raise MilcoError(f"distill.train_datasets: no triple is left ({lost})")
        said = {"datasets": counts, "warnings": warnings}
        writer.add_key_value_metadata({"statistics": json.dumps(said, ensure_ascii=False)})


def _warnings(name: str, counts: Counter, unit: str) -> list[str]:
    """One warning for each reason that drops, or flags, more than half of a dataset."""
    total = counts.total() - counts[SHORT]  # which is a part of those that are kept
    return [
        f"{name}: {reason}: {count:,} of {total:,} {unit}"
        for reason, count in counts.items()
        if reason != KEPT and 2 * count > total
    ]


class Miner:
    """A MILCO model that searches documents with an index of its own.

    Raises:
        MilcoError: the folder holds another kind of model.
    """

    def __init__(self, config: Config, model: Path):
        settings = PretrainedConfig.get_config_dict(model)[0]
        if not is_milco(settings):
            kind = settings.get("model_type")
            raise MilcoError(f"distill.miner: {model} holds a model of kind {kind}, not a MILCO model")
        self.encoder = SparseEncoder(config, "miner", model)

    def rows(self, side: str, texts: list[str]) -> scipy.sparse.csr_array:
        """Vectors of `queries` or `documents`, N×(V_e+V_m)."""
        with tqdm(total=len(texts), desc=side, unit="text", mininterval=2) as bar:
            parts = [texts[start : start + WINDOW] for start in range(0, max(1, len(texts)), WINDOW)]
            return scipy.sparse.vstack([self.encoder.encode(side, part, bar.update) for part in parts], format="csr")

    def best(self, queries: scipy.sparse.csr_array, index: Index, k: int) -> list[list[int]]:
        """Rows of the k best documents of each query, best first. No block of the index is skipped."""
        return [[row for row, _ in hits] for hits in index.search(queries, k, heap_factor=0.0)[0]]


def mine_collection(
    name: str, folder: Path, corpora: Path, config: Config, miner: Miner, counts: Counter
) -> pd.DataFrame:
    """Triples without scores from a collection in BEIR layout: from its judgements, from the titles of its documents,
    or from its queries alone; then the miner's best document takes the place of the positive until `best_first`.
    Documents are cut, not chunked, and documents with the same text count as one.

    Args:
        counts: filled if titles are the queries: reason why a title is not used → number of documents.
    """
    settings, random, forbidden = config.distill, np.random.default_rng(config.seed), HeldOut.read(corpora)
    if settings.positives == "titles":
        queries, documents, relevant = titled(folder, config.sources[name], forbidden, counts)
    else:
        queries, documents, relevant = _asked(name, folder, config, forbidden)
    index = Index.build(miner.rows("documents", documents))
    found = miner.best(miner.rows("queries", queries), index, settings.hard_negatives + max(1, *map(len, relevant)))
    triples = []
    for query, right, best in zip(queries, relevant, found, strict=True):
        right = best[:1] if settings.positives == "scored" else right
        negatives = _negatives(best, {*right}, len(documents), settings, random)
        if len(negatives) < settings.train_group_size - 1:
            raise _too_few(config, name, len(documents))
        sides = [[documents[row] for row in rows] for rows in (right, negatives)]
        triples.append((query, *sides, None, None))
    return pd.DataFrame(triples, columns=TRIPLE_COLUMNS)


def _asked(name: str, folder: Path, config: Config, asked: HeldOut) -> tuple[list[str], list[str], list[list[int]]]:
    """Queries of a collection that are not in an evaluation collection; its documents, each once; the places of those
    that are judged relevant to each query."""
    source, judged = config.sources[name], config.distill.positives == "judged"
    broken = Broken(source.broken_share())
    collection = read_collection(folder, "train" if judged else None, broken, source.missing_judged)
    for line in collection.warnings:
        warn(line)
    queries = {key: query for key, query in collection.queries.items() if query not in asked}
    if not queries:
        asking = "qrels/train.tsv" if judged else "queries.jsonl"
        raise MilcoError(f"{folder}/{asking}: test or development collections ask each of its queries")
    print(f"{name}: {len(queries)} queries, without {len(collection.queries) - len(queries)} to be asked in evaluation")
    if source.lowercase_documents:
        collection.documents = {key: text.lower() for key, text in collection.documents.items()}
    documents = list(dict.fromkeys(collection.documents.values()))
    place = {text: row for row, text in enumerate(documents)}
    grades = [collection.qrels.get(key, {}) for key in queries]
    relevant = [
        sorted({place[collection.documents[d]] for d in graded if graded[d] > 0 and d in collection.documents})
        for graded in grades
    ]
    texts = [query.lower() if source.lowercase_queries else query for query in queries.values()]
    return texts, documents, relevant


def best_first(triples: pd.DataFrame) -> pd.DataFrame:
    """Scored triples in which the document with the highest score becomes the only positive."""
    rows = []
    for row in triples.itertuples(index=False):
        documents, scores = [*row.pos, *row.neg], [*row.pos_scores, *row.neg_scores]
        best = int(np.argmax(scores))
        others = [place for place in range(len(scores)) if place != best]
        sides = [[values[place] for place in others] for values in (documents, scores)]
        rows.append((row.query, [documents[best]], sides[0], [scores[best]], sides[1]))
    return pd.DataFrame(rows, columns=TRIPLE_COLUMNS)


def mine_pairs(corpora: Path, teacher: Path, config: Config, miner: Miner) -> Iterator[pd.DataFrame]:
    """Triples from the parallel text that `corpora` wrote, some thousand at a time, with the English teacher's scores:
    products of its vectors of the English side of a pair and of each document."""
    random, settings = np.random.default_rng(config.seed), config.distill
    pairs = pd.read_parquet(corpora / "parallel.parquet")
    english = pd.read_parquet(corpora / "english.parquet").english
    documents, place = np.unique(pairs.english_id, return_inverse=True)  # known items are listed among the texts, too
    texts = english[documents].tolist()
    if len(texts) < settings.train_group_size:
        raise _too_few(config, "the parallel text", len(texts))
    rows, index = Targets(teacher).rows(documents), Index.build(miner.rows("documents", texts))
    for start in range(0, len(pairs), WINDOW):
        own, queries = place[start : start + WINDOW], pairs.non_english[start : start + WINDOW].tolist()
        found = miner.best(miner.rows("queries", queries), index, settings.hard_negatives + 1)
        triples = []
        for query, right, best in zip(queries, own.tolist(), found, strict=True):
            negatives = _negatives(best, {right}, len(texts), settings, random)
            scores = (rows[[right, *negatives]] @ rows[[right]].T).toarray().ravel().tolist()
            negative_texts = [texts[row] for row in negatives]
            triples.append((query, [texts[right]], negative_texts, scores[:1], scores[1:]))
        yield pd.DataFrame(triples, columns=TRIPLE_COLUMNS)


def _negatives(
    best: list[int], right: set[int], count: int, settings: Distill, random: np.random.Generator
) -> list[int]:
    """Negatives among `count` documents: the best wrong ones, and then random ones."""
    wanted = settings.hard_negatives + settings.random_negatives
    hard = [row for row in best if row not in right][: settings.hard_negatives]
    # So many different ones that enough are left if some of them are positive or hard.
    chance = random.choice(count, min(count, wanted + len(right)), replace=False).tolist()
    return [*hard, *(row for row in chance if row not in right and row not in hard)][:wanted]


def _too_few(config: Config, name: str, documents: int) -> MilcoError:
    return MilcoError(
        f"distill.train_group_size: {config.distill.train_group_size}, but {name} has only {documents} documents to "
        "take positives and negatives from; make the groups smaller"
    )


def read_triples(path: Path, config: Config, name: str, forbidden: HeldOut, counts: Counter) -> Iterator[pd.DataFrame]:
    """Triples some rows at a time, checked: every document needs a score. Left out are those without a positive or a
    negative, those that must not be trained on, and, in files that are not the user's own, those without a value.

    Args:
        forbidden: strings that no query and no positive may be.
        counts: is filled: why a row was left out, `kept`, or SHORT → how many.
    """
    wanted, broken = config.distill.train_group_size - 1, Broken(config.sources[name].broken_share())
    others = config.sources[name].local_path is None  # hundreds of millions of rows, of which some have no value

    def check(row: Row) -> None:
        if not (others and _has_a_hole(row.values())):
            _check_triple(row)

    for table in read_batches(path, config.sources[name], name, TRIPLE_COLUMNS, broken, check):
        kept = []
        for triple in table.itertuples():
            if others and _has_a_hole(getattr(triple, column) for column in TRIPLE_COLUMNS):
                counts[HOLE] += 1
                kept.append(False)
                continue
            reason = KEPT
            if len(triple.pos) == 0 or len(triple.neg) == 0:
                reason = LACKING
            elif any(text in forbidden for text in (triple.query, *triple.pos)):
                reason = HELD_OUT
            elif len(triple.neg) < wanted:
                counts[SHORT] += 1
            counts[reason] += 1
            kept.append(reason == KEPT)
        yield table[np.array(kept, bool)]
    if broken.count:
        counts[BROKEN] = broken.count
        warn(f"{name}: {broken}")


def _check_triple(row: Row) -> None:
    for column, valid in LISTS.items():
        if not _is_list(row[column], valid):
            raise BrokenRow(f"column {column!r} is no whole list of texts or of finite scores")
    if len(row["pos"]) != len(row["pos_scores"]) or len(row["neg"]) != len(row["neg_scores"]):
        raise BrokenRow("as many scores as documents are needed, positive and negative")


def _has_a_hole(cells: Iterable[Any]) -> bool:
    """Whether a row has a missing value in a column or list."""
    return any(pd.isna(cell) is True or (not isinstance(cell, str) and None in list(cell)) for cell in cells)


def _is_list(values, valid: Callable) -> bool:
    return isinstance(values, list | np.ndarray) and all(map(valid, values))


def _is_text(value) -> bool:
    return isinstance(value, str)


def _is_score(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


LISTS = {"pos": _is_text, "neg": _is_text, "pos_scores": _is_score, "neg_scores": _is_score}


def mine_items(
    items: pd.DataFrame, corpora: Path, teacher: Path, config: Config, miner: Miner | None = None
) -> pd.DataFrame:
    """Triples from the known items of the training integrations, with the English teacher's scores.

    Args:
        miner: the model that mines; by default the English teacher does.
    """
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
    deepest = settings.hard_negatives + config.corpora.max_relevant
    found = _item_search(miner, documents, translations, queries, deepest) if miner else {}
    triples = []
    for title, descriptions in english.dropna(subset="title").groupby("title").description:
        relevant = sorted({place[text] for text in descriptions})
        if len(relevant) > config.corpora.max_relevant:
            continue
        depth = settings.hard_negatives + len(relevant)
        scores = (rows @ vectors([title]).T).toarray().ravel()
        best = [document for document, _ in top_k(scores, depth)]
        for language, query in queries[title].items():
            chance = random.permutation(len(documents))
            local = translations.get(language, {}) if random.random() < 0.5 else {}
            if miner:
                best = found[query, language if local else "en"][:depth]
            hard = [document for document in best if document not in relevant][: settings.hard_negatives]
            chosen = {*relevant, *hard}
            candidates = chain(hard, (document for document in chance if document not in chosen))
            positives = [local.get(document, documents[document]) for document in relevant]
            # Two documents may share a translation: the text of a positive must not come among the negatives.
            right = (number for number in candidates if local.get(number, documents[number]) not in positives)
            negatives = list(islice(right, settings.hard_negatives + settings.random_negatives))
            texts = [local.get(document, documents[document]) for document in negatives]
            if len(negatives) < settings.train_group_size - 1:
                raise _too_few(config, "the training part of the known items", len(documents))
            triples.append((query, positives, texts, scores[relevant].tolist(), scores[negatives].tolist()))
    return pd.DataFrame(triples, columns=TRIPLE_COLUMNS)


def _item_search(
    miner: Miner,
    documents: list[str],
    translations: dict[str, dict[int, str]],
    queries: dict[str, dict[str, str]],
    depth: int,
) -> dict[tuple[str, str], list[int]]:
    """(query, language) → places of the `depth` best documents, each read in that language where it is translated.
    Each query searches the English documents and those of its own language."""
    pools = {"en": documents} | {
        language: [local.get(number, document) for number, document in enumerate(documents)]
        for language, local in translations.items()
    }
    asked: dict[str, dict[str, None]] = {language: {} for language in pools}  # in order, each once
    for versions in queries.values():
        for language, query in versions.items():
            asked["en"][query] = None
            asked.get(language, {})[query] = None
    texts = list(dict.fromkeys(text for pool in pools.values() for text in pool))
    text_row, query_row = ({text: row for row, text in enumerate(side)} for side in (texts, asked["en"]))
    rows, query_rows = miner.rows("documents", texts), miner.rows("queries", list(asked["en"]))
    found: dict[tuple[str, str], list[int]] = {}
    for language, pool in tqdm(pools.items(), desc="search", unit="language"):
        index = Index.build(rows[[text_row[text] for text in pool]])
        wanted = list(asked[language])
        best = miner.best(query_rows[[query_row[query] for query in wanted]], index, depth)
        found |= {(query, language): places for query, places in zip(wanted, best, strict=True)}
    return found


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

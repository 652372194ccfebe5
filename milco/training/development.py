"""Development evaluation during training: nDCG@10 on the development collections, and texts as weighted words."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy.sparse
from torch import Tensor

from milco.config import Config
from milco.config.sections import LOOK
from milco.data.beir import Collection, iter_documents, read_about, read_queries
from milco.evaluation.evaluate import DEPTH, mean_ndcg, run_of
from milco.evaluation.search import rank_exactly
from milco.modeling.model import MilcoModel
from milco.modeling.rows import in_text_order, padded_batches
from milco.training.gather import dealt_out, from_everyone, processes

WORDS = 10  # weighted words of each view of a sample text
Padded = tuple[list[int], dict[str, Tensor]]
T = TypeVar("T")


@dataclass
class Share:
    """The share of one process in each development evaluation.

    Attributes:
        queries, documents: its batches, (places of texts among all of their kind, ids and mask).
        searches: for each collection: the places of its queries; the rows of its documents that this process has, and
            their places in the collection; and how many texts to find.
    """

    queries: list[Padded]
    documents: list[Padded]
    searches: list[tuple[list[int], list[int], list[int], int]]


class Development:
    """nDCG@10 of a model in training, on a few queries and documents of each development collection.

    The first process reads the collections and distributes them at the first evaluation, in the batches that it would
    use alone. Vectors, rankings and measures are therefore the same for any number of processes. In an evaluation
    each process encodes its batches and searches its documents, and the first one merges the results.

    Args:
        written: what rule `development` wrote; collections/dev has a sub-folder per collection, in BEIR layout.
    """

    def __init__(self, config: Config, written: Path, model: MilcoModel):
        self.model, self.config = model, config
        settings, self.first = config.evaluate, int(os.environ.get("RANK", 0)) == 0
        looked_at = self.first and settings.development_collections
        paths = sorted((written / "collections" / "dev").iterdir()) if looked_at else []
        sizes = settings.development_queries, settings.development_documents
        self.collections = [part_of(path, *sizes) for path in paths]
        self.share: Share | None = None

    def look(self) -> dict:
        """Mean nDCG@10 over the collections, mean active dimensions of their texts, and the sample texts. All processes
        must call this; only the first gets the results."""
        found = self._measures() if self.config.evaluate.development_collections else {}
        examples = self.config.evaluate.examples
        if self.first and examples:
            words = self.model.decode(self.model.encode_document(list(examples.values())))
            found["examples"] = {
                language: {"text": text, "pivot": _heaviest(said, "e_"), "source": _heaviest(said, "m_")}
                for (language, text), said in zip(examples.items(), words, strict=True)
            }
        return found

    def _measures(self) -> dict:
        if self.share is None:
            self.share = dealt_out(self._shares)
        share, width = self.share, self.model.width
        parts = from_everyone(list(self.model.encode_batches(share.queries)))
        queries = in_text_order(chain.from_iterable(parts), width)
        encoded = [rows for _, rows in self.model.encode_batches(share.documents)]
        documents = scipy.sparse.vstack([scipy.sparse.csr_array((0, width), dtype="float32"), *encoded], format="csr")
        rankings = []
        for asked, rows, places, depth in share.searches:
            best = rank_exactly(queries[asked], documents[rows], depth)
            rankings.append([[(places[row], score) for row, score in ranking] for ranking in best])
        everyone = from_everyone((rankings, documents.shape[0], documents.nnz))
        if not self.first:
            return {}
        values = []
        for collection, *parts in zip(self.collections, *(found for found, _, _ in everyone), strict=True):
            depth = collection.texts_to_find(DEPTH)
            best = [nsmallest(depth, chain(*some), key=_best_first) for some in zip(*parts, strict=True)]
            values.append(mean_ndcg(collection.qrels, run_of(collection, best, collection.judged_ids(), DEPTH)))
        return {
            LOOK: round(float(np.mean(values)), 4),
            "dev_active_query": round(float(np.diff(queries.indptr).mean()), 1),
            "dev_active_document": round(sum(terms for *_, terms in everyone) / sum(n for _, n, _ in everyone), 1),
        }

    def _shares(self) -> list[Share]:
        """What each process does."""
        config, size = self.model.config, self.config.evaluate.batch_size
        asked = _places(text for collection in self.collections for text in collection.queries.values())
        texts = _places(text for collection in self.collections for text in collection.documents.values())
        queries = list(padded_batches(self.model.tokenizer, list(asked), config.query_max_length, size))
        documents = list(padded_batches(self.model.tokenizer, list(texts), config.passage_max_length, size))
        shares, count = [], processes()
        for process in range(count):
            share = Share(queries[process::count], documents[process::count], [])
            row = _places(place for places, _ in share.documents for place in places)
            for collection in self.collections:
                wanted = [texts[text] for text in collection.documents.values()]
                places = [place for place, text in enumerate(wanted) if text in row]
                rows = [row[wanted[place]] for place in places]
                searched = [asked[text] for text in collection.queries.values()]
                share.searches.append((searched, rows, places, collection.texts_to_find(DEPTH)))
            shares.append(share)
        return shares


def _best_first(hit: tuple[int, float]) -> tuple[float, int]:
    """By score, and in the order of the documents where scores are equal."""
    return -hit[1], hit[0]


def _places(values: Iterable[T]) -> dict[T, int]:
    """Each different value, in order, with its place among them."""
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def part_of(folder: Path, queries: int, documents: int) -> Collection:
    """The first `queries` queries of a development collection, all documents that are judged for them, and others up to
    `documents` in all, in the order of the file.

    The other documents are those whose ids have the smallest digests: the same in every run, without using random
    state. Memory holds no more texts than are asked for.
    """
    about = read_about(folder)
    asked, qrels = read_queries(folder, "dev")
    asked = dict(islice(asked.items(), queries))
    qrels = {query: qrels[query] for query in asked}
    judged = {document for grades in qrels.values() for document in grades}
    kept: list[tuple[int, str, str]] = []

    def others() -> Iterator[tuple[bytes, int, str, str]]:
        for number, (name, text) in enumerate(iter_documents(folder)):
            if (name.rpartition("#")[0] if about.get("chunked") else name) in judged:
                kept.append((number, name, text))
            else:
                yield hashlib.sha256(name.encode()).digest(), number, name, text

    drawn = nsmallest(documents, others())
    chosen = sorted([*kept, *(row[1:] for row in drawn[: max(0, documents - len(kept))])])
    return Collection(folder.name, {name: text for _, name, text in chosen}, asked, qrels, about)


def _heaviest(words: dict[str, float], prefix: str) -> dict[str, float]:
    """The heaviest words of one view, without their prefix."""
    view = [(name.removeprefix(prefix), weight) for name, weight in words.items() if name.startswith(prefix)]
    return {name: round(weight, 2) for name, weight in view[:WORDS]}

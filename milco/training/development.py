"""A look at the development collections during training, and sample texts as weighted words."""

import hashlib
import os
from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice
from pathlib import Path

import numpy as np

from milco.config import Config
from milco.data.beir import Collection, iter_documents, read_about, read_queries
from milco.evaluation.evaluate import DEPTH, mean_ndcg, run_of
from milco.evaluation.search import rank_exactly
from milco.modeling.model import MilcoModel

WORDS = 10  # weighted words of each view of a sample text


class Development:
    """nDCG@10 of a model in training, on a few queries and documents of each development collection.

    Only the first process looks, so that the others read nothing.

    Args:
        corpora: what `corpora` wrote; collections/dev has a sub-folder per collection, in BEIR layout.
    """

    def __init__(self, config: Config, corpora: Path, model: MilcoModel):
        self.model, self.config = model, config
        settings, first = config.evaluate, int(os.environ.get("RANK", 0)) == 0
        looked_at = first and settings.development_collections
        paths = sorted((corpora / "collections" / "dev").iterdir()) if looked_at else []
        sizes = settings.development_queries, settings.development_documents
        self.collections = [part_of(path, *sizes) for path in paths]

    def look(self) -> dict:
        """Mean nDCG@10 over the collections, mean active dimensions of their texts, and the sample texts."""
        size = self.config.evaluate.batch_size
        found: dict = {}
        if self.collections:
            texts = {text: None for c in self.collections for text in c.documents.values()}
            asked = {text: None for c in self.collections for text in c.queries.values()}
            documents, queries = (
                self.model.encode_document(list(texts), size),
                self.model.encode_query(list(asked), size),
            )
            document_row = dict(zip(texts, range(len(texts)), strict=True))
            query_row = dict(zip(asked, range(len(asked)), strict=True))
            values = []
            for collection in self.collections:
                rankings = rank_exactly(
                    queries[[query_row[text] for text in collection.queries.values()]],
                    documents[[document_row[text] for text in collection.documents.values()]],
                    collection.texts_to_find(DEPTH),
                )
                values.append(mean_ndcg(collection.qrels, run_of(collection, rankings, DEPTH)))
            found["dev_nDCG@10"] = round(float(np.mean(values)), 4)
            found["dev_active_query"] = round(float(np.diff(queries.indptr).mean()), 1)
            found["dev_active_document"] = round(float(np.diff(documents.indptr).mean()), 1)
        examples = self.config.evaluate.examples
        if examples:
            words = self.model.decode(self.model.encode_document(list(examples.values())))
            found["examples"] = {
                language: {"pivot": _heaviest(text, "e_"), "source": _heaviest(text, "m_")}
                for language, text in zip(examples, words, strict=True)
            }
        return found


def part_of(folder: Path, queries: int, documents: int) -> Collection:
    """The first queries of a development collection; of its documents all that are judged for them, and others up to
    so many in all, in the order of the file.

    The others are those whose ids have the smallest digests: the same in every run, with no random state touched. No
    more texts than are asked for are in memory.
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

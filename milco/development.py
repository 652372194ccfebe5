"""A look at the development collections during training, and sample texts as weighted words."""

from pathlib import Path

import numpy as np

from milco.beir import Collection, read_collection
from milco.config import Config
from milco.evaluation import DEPTH, as_run, measure
from milco.model import MilcoModel
from milco.search import rank_exactly

WORDS = 10  # weighted words of each view of a sample text


class Development:
    """nDCG@10 of a model in training, on a few queries of each development collection.

    Args:
        corpora: what `corpora` wrote; collections/dev has a sub-folder per collection, in BEIR layout.
    """

    def __init__(self, config: Config, corpora: Path, model: MilcoModel):
        self.model, self.config = model, config
        paths = sorted((corpora / "collections" / "dev").iterdir()) if config.evaluate.development_collections else []
        self.collections = [read_collection(path, "dev") for path in paths]
        self.queries = [list(c.queries)[: config.evaluate.development_queries] for c in self.collections]

    def look(self) -> dict:
        """Mean nDCG@10 over the collections, mean active dimensions of their texts, and the sample texts."""
        size = self.config.evaluate.batch_size
        found: dict = {}
        if self.collections:
            texts = {text: None for c in self.collections for text in c.documents.values()}
            asked = {
                c.queries[q]: None for c, queries in zip(self.collections, self.queries, strict=True) for q in queries
            }
            documents, queries = (
                self.model.encode_document(list(texts), size),
                self.model.encode_query(list(asked), size),
            )
            document_row = dict(zip(texts, range(len(texts)), strict=True))
            query_row = dict(zip(asked, range(len(asked)), strict=True))
            values = []
            for collection, ids in zip(self.collections, self.queries, strict=True):
                values.append(
                    _ndcg(
                        collection,
                        ids,
                        queries[[query_row[collection.queries[query]] for query in ids]],
                        documents[[document_row[text] for text in collection.documents.values()]],
                    )
                )
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


def _heaviest(words: dict[str, float], prefix: str) -> dict[str, float]:
    """The heaviest words of one view, without their prefix."""
    view = [(name.removeprefix(prefix), weight) for name, weight in words.items() if name.startswith(prefix)]
    return {name: round(weight, 2) for name, weight in view[:WORDS]}


def _ndcg(collection: Collection, ids: list[str], queries, documents) -> float:
    run = as_run(rank_exactly(queries, documents, DEPTH), ids, list(collection.documents))
    rows = measure({query: collection.qrels[query] for query in ids}, run)
    return rows[rows.measure == "nDCG@10"].value.mean()

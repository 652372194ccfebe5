"""A look at the development collections during training, and sample texts as weighted words."""

from pathlib import Path

import numpy as np

from milco.config import Config
from milco.data.beir import read_collection
from milco.evaluation.evaluate import DEPTH, mean_ndcg, run_of
from milco.evaluation.search import rank_exactly
from milco.modeling.model import MilcoModel

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
        for collection in self.collections:
            chosen = list(collection.queries)[: config.evaluate.development_queries]
            collection.queries = {query: collection.queries[query] for query in chosen}
            collection.qrels = {query: collection.qrels[query] for query in chosen}

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


def _heaviest(words: dict[str, float], prefix: str) -> dict[str, float]:
    """The heaviest words of one view, without their prefix."""
    view = [(name.removeprefix(prefix), weight) for name, weight in words.items() if name.startswith(prefix)]
    return {name: round(weight, 2) for name, weight in view[:WORDS]}

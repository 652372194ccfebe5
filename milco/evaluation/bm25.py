"""BM25 over the pieces of the multilingual tokenizer, which serve as words in every script.

Formula, k1 and b are those of the package bm25s (method `lucene`), and so are the scores, to the last bit. bm25s holds
the words of all documents in memory. Here they are in a temporary file, and documents are searched block by block as
sparse vectors.
"""

import math
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
import scipy.sparse

from milco.evaluation.lookup import Places, StoredCollection
from milco.evaluation.search import Block, rank_blocks
from milco.evaluation.sharding import ALL, Found, Shard

K1, B = 1.5, 0.75
TEXTS = 4096  # texts that are cut into pieces at a time


class Bm25:
    """BM25 for a sequence of collections; consecutive collections with the same documents share word counts.

    Args:
        encoder: checkpoint whose tokenizer cuts the texts; `trust`: its code may be run.
        size: documents in memory at a time.
        scratch: folder for a temporary file with the words of a collection: 8 bytes for each different word of a
            document.
    """

    def __init__(self, encoder: Path, trust: bool, size: int, scratch: Path):
        from transformers import AutoTokenizer  # only this system needs a model's packages here

        from milco.modeling.checkpoints import load

        self.tokenizer = load(AutoTokenizer, encoder, trust)
        self.size, self.scratch = size, scratch
        self.places: Places | None = None
        self.words: Words

    def search(self, collection: StoredCollection, depth: int, shard: Shard) -> Found:
        """The best documents of each query in a shard of the collection, without further figures. Words are counted
        over all documents, whatever the shard."""
        if collection.places is not self.places:
            self.places, self.words = collection.places, Words(self._counted(collection.texts()), self.scratch)
        # A word that a query has twice stays in its row twice: the order of a sum is a part of its result.
        queries = self._pieces(list(collection.queries.values()))
        return Found({collection.name: rank_blocks(queries, self.words.blocks(self.size, shard), depth)}, {})

    def _pieces(self, texts: list[str]) -> scipy.sparse.csr_array:
        """Sparse rows with a 1 for each token of a text, in text order."""
        ids = self.tokenizer([text.lower() for text in texts], add_special_tokens=False)["input_ids"]
        bounds = np.cumsum([0, *map(len, ids)], dtype=np.int32)
        columns = np.fromiter(chain.from_iterable(ids), np.int32, bounds[-1])
        ones = np.ones(len(columns), np.float32)
        return scipy.sparse.csr_array((ones, columns, bounds), shape=(len(texts), len(self.tokenizer)))

    def _counted(self, texts: Iterator[str]) -> Iterator[scipy.sparse.csr_array]:
        """How often each text has each piece."""
        for part in iter(lambda: list(islice(texts, min(self.size, TEXTS))), []):
            counts = self._pieces(part)
            counts.sum_duplicates()
            yield counts


class Words:
    """How often each document has each word, in a file, and the statistics of all documents that BM25 needs."""

    def __init__(self, counted: Iterator[scipy.sparse.csr_array], scratch: Path):
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 (it lives as long as this)
        self.parts: list[int] = []  # documents of each
        pieces = 0
        having: np.ndarray | int = 0  # documents that have a piece
        for counts in counted:
            for array in (counts.data, counts.indices, counts.indptr):
                np.save(self.file, array)
            self.parts.append(counts.shape[0])
            pieces += int(counts.data.sum(dtype=np.float64))
            having = having + np.bincount(counts.indices, minlength=counts.shape[1])
        documents = sum(self.parts)
        self.mean_length = pieces / documents
        rarity = [
            math.log(1 + (documents - number + 0.5) / (number + 0.5)) for number in np.atleast_1d(having).tolist()
        ]
        self.idf = np.array(rarity, np.float32)

    def blocks(self, size: int, shard: Shard = ALL) -> Iterator[Block]:
        """Places of documents, or of a shard of them, and the weights of their words, up to `size` documents at a
        time."""
        self.file.seek(0)
        start, waiting = 0, list[scipy.sparse.csr_array]()
        mine = shard.of(len(self.parts))
        for number, following in enumerate([*self.parts[1:], size]):
            counts, words, bounds = (np.load(self.file) for _ in range(3))
            if number not in mine:
                start += self.parts[number]
                continue
            waiting.append(self._weighted(counts, words, bounds))
            held = sum(rows.shape[0] for rows in waiting)
            if held + following > size or number + 1 not in mine:
                yield start + np.arange(held), scipy.sparse.vstack(waiting, format="csr")
                start, waiting = start + held, []

    def _weighted(self, counts: np.ndarray, words: np.ndarray, bounds: np.ndarray) -> scipy.sparse.csr_array:
        before = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])[bounds]
        norms = np.repeat(K1 * ((1 - B) + B * np.diff(before) / self.mean_length), np.diff(bounds))
        weights = (self.idf[words] * (counts / (norms + counts))).astype(np.float32)
        return scipy.sparse.csr_array((weights, words, bounds), shape=(len(bounds) - 1, len(self.idf)))

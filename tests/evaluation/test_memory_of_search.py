"""Exact search holds a block of the documents, however many there are."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

import milco.data.sorting
import milco.evaluation.lookup
from milco.data.vectors import save_vectors
from milco.evaluation.lookup import Places, Vectors, text_id
from milco.evaluation.search import rank_blocks

FILE, TERMS, MB = 1000, 100, 2**20


def draw(rows, seed):
    random = np.random.default_rng(seed)
    cells = random.uniform(0.1, 2, rows * TERMS).astype(np.float32), random.integers(0, 5000, rows * TERMS)
    return csr_array((*cells, TERMS * np.arange(rows + 1)), shape=(rows, 5000))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """20 MB of vectors, of 24,000 documents."""
    folder = tmp_path_factory.mktemp("vectors")
    for number in range(24):
        ids = [text_id(f"text {FILE * number + row}") for row in range(FILE)]
        save_vectors(folder / f"documents-{number:05}.safetensors", draw(FILE, number), ids)
    save_vectors(folder / "queries-00000.safetensors", draw(20, 99), [text_id(f"query {row}") for row in range(20)])
    return Vectors(folder)


def test_the_memory_of_search_is_that_of_a_block(vectors, monkeypatch):
    monkeypatch.setattr(milco.evaluation.lookup, "TEXTS", 2000)
    monkeypatch.setattr(milco.data.sorting, "RUN", 2000)
    peaks = []
    for documents in (6000, 24_000):
        queries = vectors.of("queries", [f"query {row}" for row in range(20)])
        tracemalloc.start()
        found = rank_blocks(
            queries, vectors.blocks("documents", Places(f"text {row}" for row in range(documents)), 500), 50
        )
        peaks.append(tracemalloc.get_traced_memory()[1] / MB)
        tracemalloc.stop()
        assert {len(ranking) for ranking in found} == {50}
    assert peaks[1] < 6 and peaks[1] < 1.1 * peaks[0]

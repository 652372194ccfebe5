"""BM25 block by block against the package bm25s, which has all documents in memory."""

import json
import random

import bm25s
import pytest
from miniature import words, write_lines
from transformers import AutoTokenizer

from milco.evaluation.bm25 import Bm25
from milco.evaluation.lookup import StoredCollection
from milco.evaluation.sharding import ALL

DOCUMENTS = 5000  # more than are cut into pieces at a time


@pytest.fixture(scope="module")
def collection(encoder_checkpoint, tmp_path_factory):
    """Random texts, with an empty one, one of a hundred words, and words that are asked twice or nowhere."""
    folder, draw = tmp_path_factory.mktemp("collection"), random.Random(0)
    known = [word.strip("▁") for word in words(encoder_checkpoint)]
    texts = [" ".join(draw.choices(known, k=draw.randint(1, 12))) for _ in range(DOCUMENTS)]
    texts[0], texts[1] = "", " ".join(draw.choices(known, k=100))
    queries = [" ".join(draw.choices(known, k=4)) for _ in range(20)]
    queries += [f"{known[0]} {known[3]} {known[0]}", "?!"]
    for name, rows in (("corpus", texts), ("queries", queries)):
        write_lines(folder / f"{name}.jsonl", [json.dumps({"_id": str(n), "text": t}) for n, t in enumerate(rows)])
    write_lines(folder / "qrels" / "test.tsv", [f"{n}\t0\t1" for n in range(len(queries))])
    return StoredCollection(folder)


@pytest.mark.parametrize("size", [777, 4096, 9000, 65_536])
def test_every_score_is_that_of_the_package_whatever_is_in_memory_at_a_time(
    collection, encoder_checkpoint, tmp_path, size
):
    found = Bm25(encoder_checkpoint, False, size, tmp_path).search(collection, 50, ALL).rankings[collection.name]
    assert list(tmp_path.iterdir()) == []
    tokenizer, package = AutoTokenizer.from_pretrained(encoder_checkpoint), bm25s.BM25()

    def pieces(texts):
        ids = tokenizer([text.lower() for text in texts], add_special_tokens=False)["input_ids"]
        return [[str(piece) for piece in text] for text in ids]

    package.index(pieces(collection.texts()), show_progress=False)
    for query, ranking in zip(pieces(collection.queries.values()), found, strict=True):
        scores = package.get_scores(query) if query else [0.0] * DOCUMENTS
        wanted = sorted((-float(score), place) for place, score in enumerate(scores) if score > 0)[:50]
        assert ranking == [(place, -score) for score, place in wanted]
    assert sum(map(len, found)) > 500

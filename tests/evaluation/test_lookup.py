"""Vectors and collections that stay on disk: looked up block by block."""

import json

import numpy as np
import pytest
from miniature import write_lines
from scipy.sparse import csr_array

import milco.evaluation.lookup
from milco.data.beir import read_collection
from milco.data.vectors import save_dense, save_vectors
from milco.errors import MilcoError
from milco.evaluation.lookup import Places, Vectors, merge, read_stored, text_id

TEXTS = [f"text {number}" for number in range(50)]
ROWS = csr_array(np.triu(np.ones((50, 60), np.float32)))


def write(folder, parts, kind=csr_array):
    """The vectors of some texts, in files as `encode` writes them."""
    folder.mkdir()
    for number, part in enumerate(parts):
        ids, path = [text_id(TEXTS[row]) for row in part], folder / f"documents-{number:05}.safetensors"
        save_vectors(path, ROWS[part], ids) if kind is csr_array else save_dense(path, ROWS[part].toarray(), ids)
    save_vectors(folder / "queries-00000.safetensors", ROWS[:0], [])
    return Vectors(folder)


@pytest.mark.parametrize("kind", [csr_array, np.asarray])
@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_blocks_hold_every_document_once_whatever_files_they_come_from(tmp_path, size, kind):
    order = np.random.default_rng(0).permutation(50)
    vectors = write(tmp_path / "vectors", np.split(order, [3, 20, 21, 44]), kind)
    asked = [7, 3, 3, 49, 0, 12, 7, 30]  # equal texts have equal rows, others of the folder have none
    blocks = list(vectors.blocks("documents", Places(TEXTS[row] for row in asked), size))
    assert [len(places) for places, _ in blocks[:-1]] == [size] * (len(blocks) - 1)
    found = {
        place: row for places, rows in blocks for place, row in zip(places, csr_array(rows).toarray(), strict=True)
    }
    assert sorted(found) == list(range(8)) == sorted(place for places, _ in blocks for place in places)
    for place, row in enumerate(asked):
        np.testing.assert_array_equal(found[place], ROWS[[row]].toarray()[0])
    np.testing.assert_array_equal(
        csr_array(vectors.of("documents", [TEXTS[row] for row in asked])).toarray(), ROWS[asked].toarray()
    )


@pytest.mark.parametrize("files", [1, 2, 3, 50])
def test_the_rows_of_a_file_are_read_once_whatever_parts_they_are_sorted_in(tmp_path, monkeypatch, files):
    monkeypatch.setattr(milco.evaluation.lookup, "PARTS", 2)
    vectors = write(tmp_path / "vectors", np.array_split(np.arange(50), files))
    read = []
    load = milco.evaluation.lookup.load_vectors
    monkeypatch.setattr(milco.evaluation.lookup, "load_vectors", lambda path: read.append(path) or load(path))
    ((places, rows),) = vectors.blocks("documents", Places(TEXTS), 50)
    assert read == vectors.paths["documents"]
    assert (rows != ROWS[places]).nnz == 0 and len(places) == 50


@pytest.mark.parametrize("parts", [[range(40)], [range(50), range(5)]])
def test_a_text_without_a_vector_or_with_two_is_an_error(tmp_path, parts):
    vectors = write(tmp_path / "vectors", [list(part) for part in parts])
    with pytest.raises(MilcoError, match=r"vectors of (40|55) documents for 50; delete it and encode again"):
        list(vectors.blocks("documents", Places(TEXTS), 16))


def test_shards_are_put_together_without_a_copy(tmp_path):
    for shard in range(2):
        write(tmp_path / str(shard), [range(25 * shard, 25 * shard + 25)])
    merge([tmp_path / "0", tmp_path / "1"], tmp_path / "merged")
    assert (tmp_path / "merged/documents-00001.safetensors").samefile(tmp_path / "1/documents-00000.safetensors")
    assert (Vectors(tmp_path / "merged").of("documents", TEXTS) != ROWS).nnz == 0


@pytest.mark.parametrize("about", [{}, {"chunked": True}, {"chunked": True, "ignore_identical_ids": True}])
def test_a_stored_collection_says_what_one_in_memory_says(tmp_path, about):
    for name in ("one", "two"):
        documents = [{"_id": f"d{n // 4}#{n}", "title": "T", "text": "same" if n < 5 else f"{n}"} for n in range(40)]
        write_lines(tmp_path / name / "corpus.jsonl", map(json.dumps, documents))
        write_lines(tmp_path / name / "queries.jsonl", [json.dumps({"_id": f"q{name}", "text": name})])
        judged = "d3" if about else "d3#12"
        write_lines(tmp_path / name / "qrels" / "test.tsv", [f"q{name}\t{judged}\t1"])
        write_lines(tmp_path / name / "collection.json", [json.dumps(about)])
    (tmp_path / "two" / "corpus.jsonl").unlink()
    (tmp_path / "two" / "corpus.jsonl").hardlink_to(tmp_path / "one" / "corpus.jsonl")
    stored = list(read_stored([tmp_path / "one", tmp_path / "two"]))
    assert stored[0].places is stored[1].places
    for found in stored:
        whole = read_collection(found.folder)
        assert (found.name, found.queries, found.qrels, found.about) == (whole.name, whole.queries, whole.qrels, about)
        assert list(found.texts()) == list(whole.documents.values()) and len(found.places) == 40
        for depth in (1, 3, 99):
            assert found.texts_to_find(depth) == whole.texts_to_find(depth)
        names = whole.judged_ids()
        assert found.judged_ids([[(7, 1.0), (31, 0.5)], [(7, 2.0)]]) == {7: names[7], 31: names[31]}


def test_the_fingerprint_tells_texts_and_their_order():
    prints = [Places(texts).fingerprint for texts in (TEXTS, list(TEXTS), TEXTS[::-1], TEXTS[1:])]
    assert prints[0] == prints[1] and len(set(prints)) == 3

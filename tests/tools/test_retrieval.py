"""An index that is built of vectors, searched by a model, and says why it found what it found."""

import json

import numpy as np
import pytest

from milco.errors import MilcoError
from milco.modeling.model import MilcoModel
from milco.tools import text_files
from milco.tools.inspection import load_model
from milco.tools.retrieval import Retriever, build, search_texts
from milco.tools.streams import encode

DOCUMENTS = {"d1": "die Katze", "d2": "the house", "d3": "", "d4": "ночь", "d5": "the old red house", "d6": "猫 水"}
QUERIES = {"q1": "Haus", "q2": "cat and house", "q3": "猫"}


@pytest.fixture(scope="session")
def loaded(model_folder) -> MilcoModel:
    return load_model(model_folder)


@pytest.fixture(scope="session")
def index_folder(loaded, tmp_path_factory):
    """An index with texts, of vectors in two parts."""
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "WINDOW", 4)
        encode(loaded, DOCUMENTS.items(), folder / "vectors.jsonl")
        assert build(folder / "vectors.jsonl", folder / "index", iter(DOCUMENTS.items())) > 0
    return folder / "index"


def test_scores_are_inner_products_and_the_sum_of_their_words(index_folder, loaded):
    documents = loaded.encode_document(list(DOCUMENTS.values()))
    scores = (loaded.encode_query(list(QUERIES.values())) @ documents.T).toarray()
    for exact in (True, False):
        found = dict(search_texts(Retriever.open(index_folder), loaded, QUERIES.items(), 10, exact, True))
        assert list(found) == list(QUERIES)
        for place, hits in enumerate(found.values()):
            wanted = {name: score for name, score in zip(DOCUMENTS, scores[place], strict=True) if score > 0}
            assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, rel=1e-4)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            for hit in hits:
                assert hit.text == DOCUMENTS[hit.id]
                assert sum(word.part for word in hit.words) == pytest.approx(hit.score, rel=1e-5)
                assert [w.part for w in hit.words] == sorted((w.part for w in hit.words), reverse=True)
    query, document = (loaded.decode(rows[[0]])[0] for rows in (loaded.encode_query(["Haus"]), documents))
    words = {hit.id: hit.words for hit in found["q1"]}["d1"]
    assert {word.token for word in words} == query.keys() & document.keys()
    for word in words:
        assert (word.query, word.document) == pytest.approx((query[word.token], document[word.token]), rel=1e-4)


def test_folders_and_lines_of_vectors_give_the_same_index(index_folder, loaded, tmp_path):
    encode(loaded, DOCUMENTS.items(), tmp_path / "vectors")
    build(tmp_path / "vectors", tmp_path / "index")
    one, other = Retriever.open(index_folder), Retriever.open(tmp_path / "index")
    assert set(one.tokens) == set(other.tokens) and one.ids == other.ids and other.text(0) is None
    for row in range(len(DOCUMENTS)):
        assert one.named(row) == other.named(row)


def test_a_pruned_index_is_over_the_heaviest_tokens(index_folder):
    whole = Retriever.open(index_folder)
    pruned = whole.pruned(3)
    for row in range(len(DOCUMENTS)):
        assert list(pruned.named(row).items()) == list(whole.named(row).items())[:3]
    query = whole.rows[[0]]
    assert dict(pruned.search(query, 10)[0])[0] == pytest.approx(sum(w**2 for w in pruned.named(0).values()))


def test_a_model_with_another_vocabulary_is_refused(tmp_path, loaded):
    line = {"id": "a", "vector": {"e_cat": 1.0, "e_Zebra": 2.0}}
    (tmp_path / "vectors.jsonl").write_text(json.dumps(line) + "\n")
    build(tmp_path / "vectors.jsonl", tmp_path / "index")
    with pytest.raises(MilcoError) as error:
        next(search_texts(Retriever.open(tmp_path / "index"), loaded, [("q", "cat")], 1, False, False))
    assert f"model {loaded.name_or_path}: its vocabulary does not fit the index, 1 of whose 2" in str(error.value)
    assert "'e_Zebra'" in str(error.value)


def test_nothing_is_built_of_wrong_vectors_or_texts(tmp_path, index_folder):
    vectors = tmp_path / "vectors.jsonl"
    vectors.write_text('{"id": "a", "vector": {"x": 1}}\n{"id": "b", "vector": {}}\n')
    for texts in ([("a", "x")], [("b", "x"), ("a", "x")], [("a", "x"), ("b", "x"), ("c", "x")]):
        with pytest.raises(MilcoError, match="give the texts that the vectors were made of"):
            build(vectors, tmp_path / "index", iter(texts))
    vectors.write_text('{"id": "a", "vector": {"x": 1}}\n{"id": "a", "vector": {}}\n')
    with pytest.raises(MilcoError, match="id 'a' is there 2 times"):
        build(vectors, tmp_path / "index")
    vectors.write_text('{"id": "a", "vector": {}}\n')
    with pytest.raises(MilcoError, match="no vector has an entry"):
        build(vectors, tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.jsonl"]
    vectors.write_text('{"id": "a", "vector": {"x": 1}}\n')
    with pytest.raises(MilcoError, match="holds something other than an index"):
        build(vectors, tmp_path)
    with pytest.raises(MilcoError, match="no index in it; milco index builds one"):
        Retriever.open(tmp_path)


def test_seismic_leaves_no_word_on_the_standard_output(tmp_path, capfd):
    (tmp_path / "vectors.jsonl").write_text('{"id": "a", "vector": {"x": 1}}\n')
    build(tmp_path / "vectors.jsonl", tmp_path / "index")
    print("still there", flush=True)
    assert capfd.readouterr().out == "still there\n"


def test_ties_are_in_the_order_of_the_documents(tmp_path):
    lines = [json.dumps({"id": str(n), "vector": {"x": 1 + n % 2}}) for n in range(6)]
    (tmp_path / "vectors.jsonl").write_text("\n".join(lines) + "\n")
    build(tmp_path / "vectors.jsonl", tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index")
    query = retriever.rows[[0]]
    assert retriever.search(query, 6) == retriever.search(query, 6, exact=True)
    assert [row for row, _ in retriever.search(query, 6)[0]] == [1, 3, 5, 0, 2, 4]
    assert np.diff([score for _, score in retriever.search(query, 6)[0]]).tolist() == [0, 0, -1, 0, 0]

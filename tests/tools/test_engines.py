"""Every engine beside exact search, with the real packages on local files."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack

import milco.tools.engines
from milco.data.beir import Collection, write_collection
from milco.data.vectors import save_dense, save_vectors
from milco.errors import MilcoError
from milco.evaluation.index import recall
from milco.evaluation.lookup import text_id
from milco.evaluation.search import rank_exactly
from milco.tools.engines import engine_at
from milco.tools.engines.base import read_parts

pytestmark = pytest.mark.slow

COLUMNS = 280_000


def draw(rows, seed, per_row=60, used=4000):
    """Rows as a model makes them: few of many columns, some columns far more often than others."""
    columns = np.sort(np.random.default_rng(99).choice(COLUMNS, used, replace=False))
    chance = 1 / np.arange(1, used + 1) ** 0.8
    random = np.random.default_rng(seed)
    places = [random.choice(used, per_row, replace=False, p=chance / chance.sum()) for _ in range(rows)]
    weights = random.gamma(2.0, 0.4, (rows, per_row)).astype(np.float32)
    at = np.repeat(np.arange(rows), per_row)
    return csr_array((weights.ravel(), (at, columns[np.concatenate(places)])), shape=(rows, COLUMNS))


def names(count):
    """Ids with what ids may hold."""
    return [f"d/{number} 'ü\"" for number in range(count)]


def parts(rows, size=1000):
    ids = names(rows.shape[0])
    return ((ids[start : start + size], rows[start : start + size]) for start in range(0, len(ids), size))


def address(kind, folder):
    return {"milvus": f"milvus:{folder}/milco.db", "qdrant": f"qdrant:{folder}/q", "seismic": f"seismic:{folder}/s"}[
        kind
    ]


KINDS = ["milvus", "qdrant", "seismic"]
SMALL = draw(30, 5, used=100)


@pytest.fixture(params=KINDS)
def small(request, tmp_path):
    """An address with 30 documents behind it."""
    where = address(request.param, tmp_path)
    with engine_at(where) as engine:
        engine.write(parts(SMALL))
    return where


def first_of(where, queries=SMALL):
    with engine_at(where) as engine:
        return [hits[0][0] for hits in engine.search(queries, 1)]


@pytest.mark.parametrize(("kind", "documents", "asked"), [("milvus", 3000, 70), ("qdrant", 400, 20)])
def test_a_database_finds_what_exact_search_finds(tmp_path, capfd, kind, documents, asked):
    rows, queries = draw(documents, 0), draw(asked, 1, per_row=15)
    with engine_at(address(kind, tmp_path)) as engine:
        assert engine.write(parts(rows)) == documents
    with engine_at(address(kind, tmp_path)) as engine:  # opened again, from its files
        found = engine.search(queries, 10)
    assert capfd.readouterr() == ("", "")
    ids, scores = names(documents), (queries @ rows.T).toarray()
    place = {identifier: row for row, identifier in enumerate(ids)}
    for query, (hits, wanted) in enumerate(zip(found, rank_exactly(queries, rows, 10), strict=True)):
        assert len({identifier for identifier, _ in hits}) == len(hits) == 10
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in wanted], rtol=1e-5)
        np.testing.assert_allclose([scores[query, place[one]] for one, _ in hits], [s for _, s in wanted], rtol=1e-5)


def test_seismic_finds_nearly_all(tmp_path):
    rows, queries = draw(1000, 0), draw(50, 1, per_row=15)
    with engine_at(f"seismic:{tmp_path}/index") as engine:
        assert engine.write(parts(rows, 300)) == 1000
        found = engine.search(queries, 10)
    place = {identifier: row for row, identifier in enumerate(names(1000))}
    rankings = [[(place[identifier], score) for identifier, score in hits] for hits in found]
    assert recall(rankings, rank_exactly(queries, rows, 10)) > 0.9


def test_what_has_no_weight_is_neither_written_nor_asked(small):
    empty = csr_array((1, COLUMNS), dtype=np.float32)
    zeros = SMALL[:1].copy()
    zeros.data[:] = 0
    with engine_at(small) as engine:
        assert engine.write([(["a", "b", "c"], vstack([empty, SMALL[:1], zeros], format="csr"))], replace=True) == 1
        unknown = csr_array(
            ([1.0], ([0], [next(set(range(COLUMNS)).difference(SMALL.indices).__iter__())])), (1, COLUMNS)
        )
        queries = vstack([empty, SMALL[:1], unknown], format="csr")
        found = engine.search(queries, 5)
    assert [[identifier for identifier, _ in hits] for hits in found] == [[], ["b"], []]


def test_a_second_index_is_an_error_or_takes_the_place_of_the_first(small):
    for round in range(3):
        with engine_at(small) as engine:
            with pytest.raises(MilcoError, match="an index is there already"):
                engine.write([(["new"], SMALL[:1])])
            engine.write([([f"new {round}"], SMALL[:1])], replace=True)
        assert first_of(small, SMALL[:1]) == [f"new {round}"]


def test_of_documents_with_one_id_the_last_counts(small):
    with engine_at(small) as engine:
        engine.write([(["a", "a", "b"], SMALL[[5, 0, 1]]), (["a"], SMALL[2:3])], replace=True)
        found = engine.search(SMALL[:3], 10)
    assert all(sorted(identifier for identifier, _ in hits) == ["a", "b"] for hits in found)
    exact = (SMALL[:3] @ SMALL[1:3].T).toarray()
    np.testing.assert_allclose([[dict(hits)["b"], dict(hits)["a"]] for hits in found], exact, rtol=2e-3)


def test_an_error_while_writing_leaves_what_was_there(small, tmp_path):
    def broken():
        yield from parts(SMALL[5:10])
        raise OSError("the disk is gone")

    before = first_of(small)
    with engine_at(small) as engine, pytest.raises(OSError, match="the disk is gone"):
        engine.write(broken(), replace=True)
    assert first_of(small) == before == names(30)
    new = address(small.partition(":")[0], tmp_path / "new")
    (tmp_path / "new").mkdir()
    with engine_at(new) as engine, pytest.raises(OSError, match="the disk is gone"):
        engine.write(broken())
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_write_left_is_not_found_and_goes_away(tmp_path):
    where = address("milvus", tmp_path)
    killed = f"""
import os
from milco.tools.engines import engine_at
from scipy.sparse import csr_array
def parts():
    yield ["half"], csr_array([[1.0, 2.0]])
    os._exit(9)
engine_at({where!r}).write(parts())
"""
    assert subprocess.run([sys.executable, "-c", killed], timeout=600).returncode == 9
    with engine_at(where) as engine:
        with pytest.raises(MilcoError, match="no index there"):
            engine.search(SMALL, 1)
        engine.write(parts(SMALL))
    assert first_of(where) == names(30)


@pytest.mark.parametrize("kind", ["milvus", "qdrant"])
def test_collections_in_one_place_are_kept_apart(tmp_path, kind):
    where = address(kind, tmp_path)
    for name, rows in (("one", SMALL[:10]), ("two", SMALL[10:])):
        with engine_at(f"{where}#{name}") as engine:
            engine.write([([name], rows[:1])])
    assert (first_of(f"{where}#one", SMALL[:1]), first_of(f"{where}#two", SMALL[10:11])) == (["one"], ["two"])
    with engine_at(where) as engine, pytest.raises(MilcoError, match="no index there"):
        engine.search(SMALL, 1)


@pytest.mark.parametrize("kind", ["milvus", "qdrant"])
def test_a_collection_and_an_alias_of_somebody_else_are_left_alone(tmp_path, kind):
    with engine_at(f"{address(kind, tmp_path)}#theirs") as other:
        other.name = "alias"
        other.write(parts(SMALL[:1]))
        for name in ("alias", "theirs_by_milco_a"):
            mine = engine_at(f"{address(kind, tmp_path)}#{name}")
            mine.opened = other.opened
            with pytest.raises(MilcoError, match=f"milco did not write the collection {name}"):
                mine.write(parts(SMALL), replace=True)
        assert other.search(SMALL[:1], 5)[0][0][0] == names(1)[0]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    with engine_at(f"seismic:{tmp_path}") as engine, pytest.raises(MilcoError, match="an index is there already"):
        engine.write(parts(SMALL), replace=True)
    assert tmp_path.is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_searching_what_is_not_there_is_an_error_and_makes_nothing(tmp_path, kind):
    with engine_at(address(kind, tmp_path)) as engine, pytest.raises(MilcoError, match="no index there; write it"):
        engine.search(SMALL, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("milvus:http://127.0.0.1:9", "Fail connecting to server on 127.0.0.1:9"),
        ("milvus:{}/index", r"a local file endswith \[.db\]"),
        ("milvus:{}/none/milco.db", "none not exists"),
        ("qdrant:http://127.0.0.1:9", "Connection refused"),
        ("qdrant:{}/file", "File exists"),
    ],
)
def test_a_bad_address_is_one_line(tmp_path, where, said, capfd):
    (tmp_path / "file").touch()
    where = where.format(tmp_path)
    with engine_at(where) as engine, pytest.raises(MilcoError, match=f"^{where}: .*{said}") as caught:
        engine.write(parts(SMALL))
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("where", ["elastic:http://here", "milvus", "qdrant:", "", "/a/path"])
def test_what_is_no_address_is_an_error_that_names_the_engines(where):
    with pytest.raises(MilcoError, match=r"expected milvus:…, qdrant:…, seismic:…"):
        engine_at(where)


@pytest.mark.parametrize(("kind", "package"), [("milvus", "pymilvus"), ("qdrant", "qdrant_client")])
def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MilcoError, match=rf"needs {package}; pip install '\.\[{kind}\]'"):
        engine_at(address(kind, tmp_path)).write(parts(SMALL))


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_broken_weight_is_an_error_that_names_the_document(small, weight):
    rows = SMALL.copy()
    rows.data[rows.indptr[3]] = weight
    with engine_at(small) as engine, pytest.raises(MilcoError, match=rf"d/3 .*a weight of {weight}"):
        engine.write(parts(rows), replace=True)
    assert first_of(small) == names(30)


def test_documents_are_read_a_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(milco.tools.engines.database, "DOCUMENTS_AT_A_TIME", 7)
    written = []
    monkeypatch.setattr(milco.tools.engines.Milvus, "_upsert", lambda self, name, ids, rows: written.append(len(ids)))
    seen = []

    def watched():
        for part in parts(SMALL, 10):
            seen.append(sum(written))
            yield part

    with engine_at(f"milvus:{tmp_path}/milco.db") as engine:
        assert engine.write(watched()) == 30
    assert (seen, written) == ([0, 10, 20], [7, 3] * 3)


@pytest.fixture
def merged(tmp_path):
    """What rule `merge` writes, of a collection in which one text stands twice, and that collection."""
    documents = {"d1": "cat", "d2": "dog", "d3": "cat"}
    collection = Collection("tiny", documents, {"q1": "Hund"}, {"q1": {"d2": 1}})
    write_collection(collection, tmp_path / "tiny", "test")
    texts = ["other", "dog", "cat"]
    for part in range(3):
        path = tmp_path / "vectors" / f"documents-0000{part}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_vectors(path, SMALL[part : part + 1], [text_id(texts[part])])
    save_vectors(tmp_path / "vectors" / "queries-00000.safetensors", SMALL[1:2], [text_id("Hund")])
    return tmp_path / "vectors", tmp_path / "tiny"


def test_vectors_of_a_collection_have_its_ids(tmp_path, merged):
    vectors, collection = merged
    with engine_at(f"milvus:{tmp_path}/milco.db") as engine:
        assert engine.write(read_parts(vectors, "documents", collection)) == 3
        ((ids, queries),) = read_parts(vectors, "queries", collection)
        assert ids == ["q1"] and engine.search(queries, 1)[0][0][0] == "d2"
        assert {one for one, _ in engine.search(SMALL[2:3], 2)[0]} == {"d1", "d3"}


def test_vectors_without_a_collection_have_the_names_of_their_texts(merged):
    found = list(read_parts(merged[0], "documents"))
    assert [ids for ids, _ in found] == [[text_id(text)] for text in ("other", "dog", "cat")]
    assert (vstack([rows for _, rows in found]) != SMALL[:3]).nnz == 0


def test_a_folder_without_sparse_vectors_is_an_error(tmp_path):
    with pytest.raises(MilcoError, match=r"no documents-00000.safetensors in it"):
        next(read_parts(tmp_path, "documents"))
    save_dense(tmp_path / "documents-00000.safetensors", np.ones((1, 3), np.float32), ["a"])
    with pytest.raises(MilcoError, match="dense vectors"):
        next(read_parts(tmp_path, "documents"))


def test_the_page_about_engines_says_what_works(tmp_path, monkeypatch, model_folder, merged, capsys):
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    vectors, collection = merged
    for name, folder in (
        ("results/demo/model", model_folder),
        ("artifacts/vectors/distill-KEY", vectors),
        ("artifacts/collections/KEY/collections/test/de-en", collection),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    told: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "docs/engines.md", "exec"), told)
    assert [one for ids, _ in told["of_the_experiment"] for one in ids] == ["d2", "d1", "d3"]
    printed = capsys.readouterr().out
    assert all(f"{address} 3 documents" in printed for address in ("milvus:milco.db", "qdrant:milco-qdrant"))
    with engine_at("milvus:milco.db#wiki_2024") as engine:
        wanted = rank_exactly(told["queries"], told["documents"][0][1], 3)[0]
        assert [one for one, _ in engine.search(told["queries"], 3)[0]] == [
            list(told["texts"])[row] for row, _ in wanted
        ]
    named = set(re.findall(r"exports/[\w/.*-]+\b", page))
    assert len(named) > 8 and [path for path in named if not list(tmp_path.glob(path))] == []

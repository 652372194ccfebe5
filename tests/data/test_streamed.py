"""Collections whose documents stay in their file are the same as those in memory, down to the error messages."""

import json
import tracemalloc
from pathlib import Path

import pytest

import milco.data.sorting
from milco.data.beir import read_collection, stream_collection, write_collection
from milco.errors import MilcoError

TEXT = "word " * 40
LEFT_OUT = "1 of 3 judged queries have no relevant document and are left out"  # q2 of `collection`


def collection(folder: Path, documents: int) -> Path:
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as lines:
        lines.writelines(
            json.dumps({"_id": f"d{n}", "title": f"title {n}", "text": TEXT}) + "\n" for n in range(documents)
        )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": f"query {n}"}) + "\n" for n in range(3))
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td7\t2\nq2\td8\t0\n")
    return folder


def test_it_is_the_collection_in_memory(tmp_path):
    folder = collection(tmp_path / "mine", 10)
    streamed, read = stream_collection(folder), read_collection(folder)
    assert (streamed.queries, streamed.qrels, streamed.about) == (read.queries, read.qrels, read.about)
    assert list(streamed.documents.items()) == list(read.documents.items()) and len(streamed.documents) == 10
    assert streamed.documents["d3"] == read.documents["d3"] and "d11" not in streamed.documents
    for name, each in (("one", streamed), ("two", read)):
        write_collection(each, tmp_path / name, "test")
    for file in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"_id": "d3", "text": "again"}, "corpus.jsonl:11: the id 'd3' is there twice"),
        ({"_id": "a\tb", "text": "again"}, "corpus.jsonl:11: the id 'a\\tb' is empty or has a control character"),
        ({"_id": "d11"}, "corpus.jsonl:11: no text under 'text'"),
    ],
)
def test_a_wrong_document_is_named_as_in_memory(tmp_path, line, words):
    folder = collection(tmp_path / "mine", 10)
    with (folder / "corpus.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")
    streamed = stream_collection(folder)
    for read in (lambda: read_collection(folder), lambda: list(streamed.documents)):
        with pytest.raises(MilcoError) as error:
            read()
        assert str(error.value).startswith(f"{folder}/{words}")


def test_a_judged_document_that_is_not_there_is_named_as_in_memory(tmp_path):
    folder = collection(tmp_path / "mine", 8)
    streamed, said = stream_collection(folder), "1 of 3 judged documents are not in it, such as 'd8'"
    assert len(list(streamed.documents)) == 8
    assert streamed.warnings == read_collection(folder).warnings
    assert streamed.warnings == [f"{folder}: {LEFT_OUT}", f"{folder}: {said}"]
    streamed = stream_collection(folder, missing=0.3)
    for read in (lambda: read_collection(folder, missing=0.3), lambda: list(streamed.documents)):
        with pytest.raises(MilcoError, match=said):
            read()
    (folder / "collection.json").write_text('{"task": "mine"}')  # mteb judges documents that are nowhere
    assert len(stream_collection(folder).documents) == 8


def test_broken_rows_that_are_allowed_are_counted_and_named(tmp_path):
    folder = collection(tmp_path / "mine", 10)
    for name in ("corpus", "queries"):
        with (folder / f"{name}.jsonl").open("a") as lines:
            lines.write('[1]\n{"_id": "half", "text": "ok \\ud83d"}\n')
    streamed = stream_collection(folder, broken=0.5)
    for _ in range(2):
        assert len(list(streamed.documents)) == 10
        queries, left_out, documents = streamed.warnings
        assert queries.startswith(f"{folder}/queries.jsonl:4: not a JSON object; {folder}/queries.jsonl:5: has half")
        assert queries.endswith("(2 of 5 lines or rows are broken)") and left_out == f"{folder}: {LEFT_OUT}"
        assert f"{folder}/corpus.jsonl:12: has half" in documents and "(2 of 12 lines" in documents


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_description_that_is_no_object_is_an_error(tmp_path, content):
    folder = collection(tmp_path / "mine", 10)
    (folder / "collection.json").write_text(content)
    for read in (read_collection, stream_collection):
        with pytest.raises(MilcoError, match=r"collection\.json: not a JSON object"):
            read(folder)


def test_memory_does_not_grow_with_the_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(milco.data.sorting, "RUN", 1000)

    def peak(documents: int) -> float:
        folder = collection(tmp_path / str(documents), documents)
        tracemalloc.start()
        write_collection(stream_collection(folder), tmp_path / f"{documents}.out", "test")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    small, large = peak(5_000), peak(20_000)
    assert large - small < 4 * 15_000  # bytes; the texts alone have 200 each, and a run of 1000 the places of its parts

"""Test collections in BEIR layout: what is written is read again, and a wrong line is named."""

import json
from pathlib import Path

import pytest

from milco.data.beir import Collection, read_collection, write_collection
from milco.data.reading import Broken
from milco.errors import MilcoError

ODD = {
    "quotes": "say \"hello\" \\ and 'bye'",
    "emoji-👩‍👩‍👧": "family 👩‍👩‍👧 and flag 🇺🇦",
    "עברית": "עוצמת הקול של הרמקול\u200f בסלון",
    "عربي": "تعذر الاتصال بالجهاز",
    "日本語": "玄関の照明を自動的に点灯する",
    'id "with" quotes, commas and spaces': "a\ttab, a\nnew line and a\r\nWindows one",
    " blanks around ": "an id that begins and ends with blanks",
    "全角\u3000no\u00a0break\u2028line": "other white space in an id",
    "x " * 999: "a long id",
    "https://x.org/a%20b": "an address",
    "controls": "line\u2028separator, next\u0085line, form\ffeed, nul\0",
    "0": "an id that looks like a number",
    "markup": "<b>5 < 6</b> & {name}",
    "accents": "e\u0301 is not é",
}


def write(folder: Path, **parts: str) -> Path:
    """A collection of one document and one query; `corpus`, `queries` and `qrels` replace its files."""
    files = {
        "corpus": '{"_id": "d1", "title": "", "text": "a lamp"}\n',
        "queries": '{"_id": "q1", "text": "Lampe"}\n',
        "qrels": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
        **parts,
    }
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(files["corpus"], encoding="utf-8")
    (folder / "queries.jsonl").write_text(files["queries"], encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(files["qrels"], encoding="utf-8")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(MilcoError) as error:
        read_collection(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_written_collection_is_read_again_with_every_odd_character(tmp_path):
    queries = {f"q-{key}": value for key, value in ODD.items()}
    qrels = {f"q-{key}": {key: 1, "0": 2} for key in ODD if key != "0"}
    qrels["q-0"] = {"0": 1}
    before = Collection("odd", ODD, queries, qrels)
    write_collection(before, tmp_path / "odd", "test")
    assert read_collection(tmp_path / "odd") == before


def test_written_files_have_the_columns_of_the_layout(tmp_path):
    write_collection(Collection("c", {"d": "x"}, {"q": "y"}, {"q": {"d": 2}}), tmp_path / "c", "dev")
    assert json.loads((tmp_path / "c" / "corpus.jsonl").read_text()) == {"_id": "d", "title": "", "text": "x"}
    assert json.loads((tmp_path / "c" / "queries.jsonl").read_text()) == {"_id": "q", "text": "y"}
    assert (tmp_path / "c" / "qrels" / "dev.tsv").read_text() == "query-id\tcorpus-id\tscore\nq\td\t2\n"


def test_writing_over_a_collection_is_an_error(tmp_path):
    collection = Collection("c", {"d": "x"}, {"q": "y"}, {"q": {"d": 1}})
    write_collection(collection, tmp_path / "c", "test")
    with pytest.raises(FileExistsError):
        write_collection(collection, tmp_path / "c", "test")


def test_title_comes_before_the_text_of_a_document(tmp_path):
    corpus = '{"_id": "d1", "title": "Lamp", "text": "gives light"}\n{"_id": "d2", "title": null, "text": "no title"}\n'
    found = read_collection(write(tmp_path / "c", corpus=corpus))
    assert found.documents == {"d1": "Lamp gives light", "d2": "no title"}


def test_queries_without_a_judgement_are_left_out(tmp_path):
    queries = '{"_id": "q1", "text": "Lampe"}\n{"_id": "q2", "text": "Tür"}\n'
    assert read_collection(write(tmp_path / "c", queries=queries)).queries == {"q1": "Lampe"}


def test_queries_without_a_relevant_document_are_left_out(tmp_path):
    queries = '{"_id": "q1", "text": "Lampe"}\n{"_id": "q2", "text": "Tür"}\n'
    found = read_collection(write(tmp_path / "c", queries=queries, qrels="q1\td1\t1\nq2\td1\t0\n"))
    assert list(found.queries) == ["q1"]


def test_grades_and_a_missing_header_are_read(tmp_path):
    corpus = '{"_id": "d1", "text": "a"}\n{"_id": "d2", "text": "b"}\n'
    found = read_collection(write(tmp_path / "c", corpus=corpus, qrels="q1\td1\t2\nq1\td2\t0\n"))
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}}


def test_windows_line_ends_are_read(tmp_path):
    folder = write(tmp_path / "c")
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_collection(folder).qrels == {"q1": {"d1": 1}}


def test_split_names_the_file_of_judgements(tmp_path):
    folder = write(tmp_path / "c")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    assert read_collection(folder, "dev").qrels == {"q1": {"d1": 1}}


GOOD_DOCUMENT = '{"_id": "d1", "text": "a lamp"}\n'
GOOD_QUERY = '{"_id": "q1", "text": "Lampe"}\n'
BAD_LINES = {
    "JSON that breaks off": '{"_id": "x", "text": "a\n',
    "a list": '["x", "a"]\n',
    "a number": "7\n",
    "no id": '{"text": "a"}\n',
    "no text": '{"_id": "x"}\n',
    "an empty id": '{"_id": "", "text": "a"}\n',
    "a tab in an id": '{"_id": "x\\ty", "text": "a"}\n',
    "two lines in an id": '{"_id": "x\\ny", "text": "a"}\n',
    "half a line end in an id": '{"_id": "x\\r", "text": "a"}\n',
    "a NUL in an id": '{"_id": "x\\u0000y", "text": "a"}\n',
    "a fraction as id": '{"_id": 7.5, "text": "a"}\n',
    "a title that is no text": '{"_id": "x", "title": ["a"], "text": "a"}\n',
    "half a surrogate pair": '{"_id": "x", "text": "\\ud83d"}\n',
    "too deep": '{"_id": "x", "text": ' + "[" * 100_000 + "\n",
    "too many digits": '{"_id": ' + "7" * 5000 + ', "text": "a"}\n',
    "null as text": '{"_id": "x", "text": null}\n',
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_wrong_line_of_the_corpus_is_named(tmp_path, case):
    folder = write(tmp_path / "c", corpus=GOOD_DOCUMENT + BAD_LINES[case])
    assert refusal(folder).startswith(f"{folder / 'corpus.jsonl'}:2: ")


@pytest.mark.parametrize("case", BAD_LINES)
def test_wrong_line_of_the_queries_is_named(tmp_path, case):
    folder = write(tmp_path / "c", queries=GOOD_QUERY + BAD_LINES[case])
    assert refusal(folder).startswith(f"{folder / 'queries.jsonl'}:2: ")


@pytest.mark.parametrize(
    "part, name, first", [("corpus", "corpus.jsonl", GOOD_DOCUMENT), ("queries", "queries.jsonl", GOOD_QUERY)]
)
def test_id_that_comes_twice_is_named(tmp_path, part, name, first):
    folder = write(tmp_path / "c", **{part: first + first.replace("a", "o")})
    assert refusal(folder).startswith(f"{folder / name}:2: ")


def test_line_that_is_not_utf_8_is_named(tmp_path):
    folder = write(tmp_path / "c")
    (folder / "corpus.jsonl").write_bytes(GOOD_DOCUMENT.encode() + '{"_id": "d2", "text": "Tür"}\n'.encode("latin-1"))
    assert refusal(folder).startswith(f"{folder / 'corpus.jsonl'}:")


BAD_JUDGEMENTS = {
    "two columns": "q1\td1\n",
    "five columns": "q1\t0\td1\t1\t1\n",
    "a control character": "q1\x01\td1\t1\n",
    "a fraction": "q1\td1\t0.5\n",
    "no grade": "q1\td1\t\n",
    "two signs": "q1\td1\t--1\n",
    "a superscript": "q1\td1\t²\n",
    "another grade for the same": "q1\td1\t2\n",
}


@pytest.mark.parametrize("case", BAD_JUDGEMENTS)
def test_wrong_line_of_the_judgements_is_named(tmp_path, case):
    folder = write(tmp_path / "c", qrels="query-id\tcorpus-id\tscore\nq1\td1\t1\n" + BAD_JUDGEMENTS[case])
    assert refusal(folder).startswith(f"{folder / 'qrels' / 'test.tsv'}:3: ")


def test_other_ways_to_write_judgements_are_read(tmp_path):
    qrels = "query_id\tdoc_id\trelevance\n\nq1\t0\td1\t1\nq1\td1\t1.0\nq1 0 d2 0\n"
    found = read_collection(write(tmp_path / "c", corpus=GOOD_DOCUMENT + '{"_id": "d2", "text": "b"}\n', qrels=qrels))
    assert found.qrels == {"q1": {"d1": 1, "d2": 0}} and found.warnings == []


def test_what_is_judged_and_not_there_is_counted_up_to_a_share(tmp_path):
    qrels = "q1\td1\t1\nq1\td9\t2\nq9\td1\t1\n"
    found = read_collection(write(tmp_path / "c", qrels=qrels))
    assert found.qrels == {"q1": {"d1": 1, "d9": 2}} and list(found.queries) == ["q1"]
    assert [line.partition(": ")[2] for line in found.warnings] == [
        "1 of 2 judged queries are not in it, such as 'q9'",
        "1 of 2 judged documents are not in it, such as 'd9'",
    ]
    with pytest.raises(MilcoError, match="1 of 2 judged queries are not in it, such as 'q9'; is it whole"):
        read_collection(tmp_path / "c", missing=0.4)


def test_a_judged_document_without_a_query_is_no_collection(tmp_path):
    assert "1 of 1 judged documents" in refusal(write(tmp_path / "c", qrels="q1\td9\t1\n"))


@pytest.mark.parametrize("qrels", ["", "query-id\tcorpus-id\tscore\n"])
def test_collection_without_judgements_is_refused(tmp_path, qrels):
    folder = write(tmp_path / "c", qrels=qrels)
    assert refusal(folder).startswith(f"{folder / 'qrels' / 'test.tsv'}: ")


def test_broken_lines_of_a_collection_are_left_out_up_to_a_share(tmp_path):
    documents = "".join(f'{{"_id": "d{n}", "text": "a"}}\n' for n in range(8))
    folder = write(tmp_path / "c", corpus=f"{documents}x\n7\n")
    broken = Broken(0.2)
    assert len(read_collection(folder, broken=broken).documents) == 8
    assert str(broken).endswith(
        "; " + f"{folder / 'corpus.jsonl'}:10: not a JSON object (2 of 11 lines or rows are broken)"
    )
    with pytest.raises(MilcoError, match=r"corpus\.jsonl:9: .*2 of 10 lines"):
        read_collection(folder, broken=Broken(0.1))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_missing_file_is_named(tmp_path, name):
    folder = write(tmp_path / "c")
    (folder / name).unlink()
    assert refusal(folder).startswith(f"{folder / name}: no such file")

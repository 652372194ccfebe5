"""Run and judgement files."""

import pytest

from milco.data.trec import complete, escaped, read_qrels, read_run, write_run
from milco.errors import MilcoError

RUN = {"q1": {"d2": 2.5, "d1": 1.0}, "q2": {"d3": 1.0}}


def test_a_run_is_read_as_it_was_written(tmp_path):
    with (tmp_path / "run.trec").open("w") as lines:
        write_run(RUN, "mine", lines)
    assert (tmp_path / "run.trec").read_text().splitlines()[1] == "q1 Q0 d1 2 1 mine"
    assert read_run(tmp_path / "run.trec") == RUN


NAMES = [
    "Geneva Durben", " blanks around ", "a\tb", "a\nb", "", "日本語\u3000全角", "no\u00a0break", "\u2028",
    "'quoted' \"id\"", "50 %", "UTF-8''x", "UTF-8''a%20b", "a%20b", "100%", "https://x.org/a%20b?c=d%26e",
    "x" * 9999, "x " * 999, "🇺🇦👩‍👧",
]  # fmt: skip


def test_ids_of_every_kind_come_back_out_of_a_run(tmp_path):
    run = {query: {document: float(n) for n, document in enumerate(NAMES)} for query in NAMES}
    with (tmp_path / "run.trec").open("w", encoding="utf-8") as lines:
        write_run(run, "mine", lines)
    assert read_run(tmp_path / "run.trec") == run
    # every program that splits lines at white space finds six columns
    for line in (tmp_path / "run.trec").read_bytes().split(b"\n")[:-1]:
        assert len(line.split()) == len(line.decode().split()) == 6


def test_only_ids_that_need_it_are_escaped(tmp_path):
    assert escaped("Geneva Durben") == "UTF-8''Geneva%20Durben"
    for stays in ("d1", "日本語", "https://x.org/a%20b", "100%", "'quoted'"):
        assert escaped(stays) == stays
    (tmp_path / "qrels").write_text("q%201 0 https://x.org/a%20b 1\nq%201 0 UTF-8''Geneva%20Durben 2\n")
    assert read_qrels(tmp_path / "qrels") == {"q%201": {"https://x.org/a%20b": 1, "Geneva Durben": 2}}


def test_tabs_alone_part_the_columns_of_a_line_that_has_some(tmp_path):
    lines = ["query-id\tcorpus-id\tscore", "q 1\tdoc 1\t1", "q 1\t doc  2 \t2", "q 1\tUTF-8''a%20b\t1"]
    (tmp_path / "qrels.tsv").write_text("\n".join(lines))
    assert read_qrels(tmp_path / "qrels.tsv") == {"q 1": {"doc 1": 1, " doc  2 ": 2, "UTF-8''a%20b": 1}}
    (tmp_path / "qrels.tsv").write_text("q 1\t0\tdoc 1\t1\n")
    assert read_qrels(tmp_path / "qrels.tsv") == {"q 1": {"doc 1": 1}}


@pytest.mark.parametrize("text", ["q1 0 d1 2\nq1 0 d2 -1\n", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\n"])
def test_judgements_of_both_layouts(tmp_path, text):
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2, "d2": -1}}


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (read_run, "q1 Q0 d1 1 2.0 x\nq1 Q0 d2\n", ":2: expected QUERY Q0 DOCUMENT RANK SCORE NAME"),
        (read_run, "q1 Q0 d1 1 nan x\n", ":1: expected QUERY Q0 DOCUMENT RANK SCORE NAME"),
        (read_run, "q1 Q0 d1 1 2.0 x\nq1 Q0 d1 2 1.0 x\n", ":2: query 'q1' has document 'd1' twice"),
        (read_run, "", ": empty"),
        (read_qrels, "q1 0 d1 1\nq1 d1 high\n", ":2: expected QUERY 0 DOCUMENT GRADE"),
        (read_qrels, "query-id\tcorpus-id\tscore\n", ": no judgement in it"),
        (read_qrels, "q1 0 d 1 1\n", ":1: expected QUERY 0 DOCUMENT GRADE"),
        (read_qrels, "\n", ": no judgement in it"),
        (
            read_qrels,
            "q1 0 d1 1\nq1 0 d2 1\nq1 0 d1 2\n",
            ":3: query 'q1' judges document 'd1' twice, 1 (line 1) and 2",
        ),
        (read_qrels, "frage dokument note\n", ":1: looks like a header"),
    ],
)
def test_a_bad_line_is_named(tmp_path, read, text, words):
    (tmp_path / "file").write_text(text)
    with pytest.raises(MilcoError) as error:
        read(tmp_path / "file")
    assert f"file{words}" in str(error.value)


def test_a_query_that_found_nothing_is_in_the_run_that_is_measured(tmp_path):
    qrels = {"q2": {"d3": 1}, "q9": {"d1": 1}}
    assert complete(RUN, qrels, tmp_path) == {"q2": {"d3": 1.0}, "q9": {}}
    with pytest.raises(MilcoError, match="none of the 1 judged queries is in it"):
        complete(RUN, {"q9": {"d1": 1}}, tmp_path)

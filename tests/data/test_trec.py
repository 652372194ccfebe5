"""Run and judgement files."""

import io

import pytest

from milco.data.trec import complete, read_qrels, read_run, write_run
from milco.errors import MilcoError

RUN = {"q1": {"d2": 2.5, "d1": 1.0}, "q2": {"d3": 1.0}}


def test_a_run_is_read_as_it_was_written(tmp_path):
    with (tmp_path / "run.trec").open("w") as lines:
        write_run(RUN, "mine", lines)
    assert (tmp_path / "run.trec").read_text().splitlines()[1] == "q1 Q0 d1 2 1.000000 mine"
    assert read_run(tmp_path / "run.trec") == RUN
    with pytest.raises(MilcoError, match="the id 'd 1' has white space"):
        write_run({"q": {"d 1": 1.0}}, "mine", io.StringIO())


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
        (read_qrels, "\n", ":1: expected QUERY 0 DOCUMENT GRADE"),
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

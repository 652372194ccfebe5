"""The commands and what they are told to write to: people's own files, streams, full pipes, other locales."""

import errno
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from miniature import ROOT, write_lines

from milco.tools import command

pytestmark = pytest.mark.slow

# Runs several commands in one process, since each start takes seconds.
PROGRAM = """
import json, shlex, sys
from milco.tools.command import main
for words in sys.argv[1:]:
    sys.argv = ["milco", *shlex.split(words)]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


@pytest.fixture(scope="module")
def made(model_folder, tmp_path_factory):
    """Texts, queries, and what each command makes of them."""
    folder = tmp_path_factory.mktemp("made")
    texts = {"d1": "die Katze", "d2": "the house", "d3": "ночь"}
    write_lines(folder / "corpus.jsonl", [json.dumps({"_id": name, "text": text}) for name, text in texts.items()])
    write_lines(folder / "queries.tsv", [f"q{number}\tthe house {number}" for number in range(300)])
    write_lines(folder / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\td2\t1"])
    commands = [
        "encode corpus.jsonl --output vectors",
        "encode corpus.jsonl --output vectors.jsonl",
        "index vectors --texts corpus.jsonl --output index",
        "search index --queries queries.tsv --output run.trec",
        "search index --queries queries.tsv --json --output results.jsonl",
    ]
    done = in_bash(folder, model_folder, run_of(*commands))
    assert done.returncode == 0, done.stderr
    return folder


def in_bash(folder, model_folder, line: str, **environment: str) -> subprocess.CompletedProcess:
    given = {**os.environ, "MILCO_MODEL": str(model_folder), "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=given, capture_output=True, timeout=600)


def run_of(*commands: str) -> str:
    return shlex.join([sys.executable, "-c", PROGRAM, *commands])


@pytest.fixture
def milco(monkeypatch, capsysbinary, model_folder, made):
    """Calls `milco` with a line of words, in the folder of what was made: (exit code, standard output, error)."""
    monkeypatch.setenv("MILCO_MODEL", str(model_folder))
    monkeypatch.chdir(made)

    def call(words: str) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["milco", *shlex.split(words)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, error = capsysbinary.readouterr()
        failed = isinstance(ended.value.code, str)
        return 1 if failed else ended.value.code or 0, out, ended.value.code if failed else error.decode()

    return call


def state(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ("encode queries.tsv --query", ["corpus.jsonl", "results.jsonl", "index", "."]),
        ("prune vectors --top-k 5", ["corpus.jsonl", "results.jsonl", "index", "."]),
        ("index vectors", ["vectors", ".", "corpus.jsonl"]),
        ("search index --queries queries.tsv", ["queries.tsv", "qrels.tsv", "corpus.jsonl", "vectors.jsonl", "index"]),
        ("export --model $MODEL", ["index", "vectors", "corpus.jsonl"]),
        ("export --model $MODEL", ["noted-model"]),
        ("encode queries.tsv --query", ["noted-vectors"]),
        ("feed vespa vectors", ["index", "vectors", "corpus.jsonl"]),
    ],
)
def test_nothing_but_its_own_kind_is_replaced(milco, made, model_folder, words, outputs):
    for folder in (model_folder, made / "vectors"):  # with something of the user's in them
        noted = made / f"noted-{folder.name}"
        shutil.copytree(folder, noted, dirs_exist_ok=True)
        (noted / "part-of-my-notes.txt").write_text("mine")
    before = state(made)
    for output in outputs:
        code, _, said = milco(f"{words.replace('$MODEL', str(model_folder))} --output {output}")
        assert code == 1 and ("holds something other than" in said or "is there already" in said), output
    assert state(made) == before


def test_a_feed_is_no_stream(milco, made):
    code, _, said = milco("feed vespa vectors --output -")
    assert code == 1 and "files for an engine cannot be written there" in said and not (made / "-").exists()


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("encode corpus.jsonl", "vectors.jsonl"),
        ("encode corpus.jsonl", "vectors"),
        ("prune vectors.jsonl --top-k 5", "pruned.jsonl"),
        ("index vectors", "index"),
        ("search index --queries queries.tsv", "run.trec"),
        ("search index --queries queries.tsv --json", "results.jsonl"),
    ],
)
def test_its_own_kind_is_as_long_as_nothing_lies_in_it(milco, tmp_path, words, output):
    for _ in range(2):
        assert milco(f"{words} --output {tmp_path}/{output}")[0] == 0
    (tmp_path / output / "notes.txt" if (tmp_path / output).is_dir() else tmp_path / output).write_text("mine\n")
    assert milco(f"{words} --output {tmp_path}/{output}")[0] == 1


def test_an_output_that_cannot_be_written_is_refused_before_the_work(milco, made):
    for words in ("search index x", "search index x --json", "encode corpus.jsonl", "prune vectors --top-k 1"):
        code, _, said = milco(f"{words} --output corpus.jsonl/new.jsonl")
        assert code == 1 and "corpus.jsonl/new.jsonl: cannot be written in" in said
    code, _, said = milco("search index x --output vectors --model nowhere")
    assert code == 1 and "holds something other" in said  # before the model is looked for


def test_the_standard_output_is_a_file_of_every_kind(milco, made):
    run, results, vectors = ((made / name).read_bytes() for name in ("run.trec", "results.jsonl", "vectors.jsonl"))
    assert [json.loads(line)["query"] for line in results.splitlines()][:2] == ["q0", "q1"]
    for output in ("", "--output -", "--output /dev/stdout"):
        assert milco(f"search index --queries queries.tsv {output}")[:2] == (0, run)
        assert milco(f"search index --queries queries.tsv --json {output}")[:2] == (0, results)
    assert milco("encode corpus.jsonl --output -")[:2] == (0, vectors)
    code, pruned, said = milco("prune vectors --top-k 100000 --output -")
    assert (code, pruned) == (0, vectors) and "active dimensions" in said
    assert sorted(path.name for path in made.iterdir() if path.name.startswith((".", "-"))) == []


def test_what_stands_before_and_after_a_run_stays(made, model_folder, tmp_path):
    search = f"search {made}/index --queries {made}/queries.tsv"
    (tmp_path / "log").write_bytes(b"earlier\n")
    outputs = ("", "--output /dev/stdout", "--output pipe", "--output /dev/fd/9")
    program = run_of(*(f"{search} {output}" for output in outputs))
    line = f"mkfifo pipe; cat pipe > piped & (echo before; {program} 9>>ninth; echo after) >> log; wait"
    done = in_bash(tmp_path, model_folder, line)
    run = (made / "run.trec").read_bytes()
    assert done.returncode == 0 and (tmp_path / "log").read_bytes() == b"earlier\nbefore\n" + run + run + b"after\n"
    assert (tmp_path / "piped").read_bytes() == (tmp_path / "ninth").read_bytes() == run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "ninth", "pipe", "piped"]


@pytest.mark.parametrize("words", ["search index --queries queries.tsv --json", "search index Haus --json"])
def test_a_reader_that_has_had_enough_ends_it_without_a_word(made, model_folder, words):
    """The first writes more than a pipe holds, the second fewer than Python keeps back until the end."""
    done = in_bash(made, model_folder, f"({run_of(words)}; echo $? >&2) | exec 0<&-")
    *notes, code = done.stderr.decode().splitlines()
    assert code == "1" and all(note.startswith("milco: note: ") for note in notes)


def test_everything_is_utf_8_whatever_the_locale(model_folder, tmp_path):
    write_lines(tmp_path / "Möbel.jsonl", ['{"_id": "тест", "text": "die Katze 猫"}'])
    write_lines(tmp_path / "q.tsv", ["ключ\tdie Katze 猫"])
    write_lines(tmp_path / "qrels", ["ключ 0 тест 1"])
    steps = (
        "encode Möbel.jsonl --output v.jsonl",
        "index v.jsonl --texts Möbel.jsonl --output i",
        "search i --queries q.tsv --output r.trec",
        "search i --queries q.tsv",
        "search i 'die Katze 猫' --explain",
        "search i 'die Katze 猫' --json --output r.jsonl",
        "inspect 'Zürich 猫' --json",
        "evaluate r.trec qrels --per-query",
        "encode Ärger.jsonl --output v.jsonl",
    )
    ascii_ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = in_bash(tmp_path, model_folder, run_of(*steps), **ascii_)
    out = done.stdout.decode()
    assert done.returncode == 1 and "milco: error: Ärger.jsonl: no such file" in done.stderr.decode(), done.stderr
    run = (tmp_path / "r.trec").read_bytes().decode()
    assert run.startswith("ключ Q0 тест 1 ") and run in out and "猫" in (tmp_path / "v.jsonl").read_text("utf-8")
    (told,) = (json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines())
    assert told["query"] == told["results"][0]["text"] == "die Katze 猫" and told["results"][0]["id"] == "тест"
    assert '"text": "Zürich 猫"' in out and "ключ\tnDCG@10\t1.0000" in out


def test_a_text_that_is_not_utf_8_is_refused(milco, monkeypatch):
    for words in ("inspect", "search index"):
        code, _, said = milco(f"{words} caf\udce9")
        assert code == 2 and "not UTF-8" in said


def test_a_measure_that_looks_deeper_than_the_run_is_said(milco):
    assert milco("evaluate run.trec qrels.tsv --measure nDCG@2")[::2] == (0, "")
    code, _, said = milco("evaluate run.trec qrels.tsv --measure nDCG@2 --measure R@100 --measure P@7")
    assert code == 0 and said.count("\n") == 1
    assert "warning: no query of run.trec has more than 3 documents, and R@100, P@7 would look deeper" in said


def test_a_run_is_as_deep_as_it_is_measured(milco, tmp_path):
    write_lines(tmp_path / "corpus.tsv", [f"d{number}\tthe house {number}" for number in range(120)])
    assert milco(f"encode {tmp_path}/corpus.tsv --output {tmp_path}/v")[0] == 0
    assert milco(f"index {tmp_path}/v --output {tmp_path}/i")[0] == 0
    for words, lines in (("--queries queries.tsv", 30_000), ("--queries queries.tsv -k 7", 2100), ("'the house'", 11)):
        assert milco(f"search {tmp_path}/i --exact {words}")[1].count(b"\n") == lines


def test_encoding_goes_on_where_there_are_no_locks(milco, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    code, _, said = milco(f"encode corpus.jsonl --output {tmp_path}/v")
    assert code == 0 and "no lock ([Errno 38] Function not implemented)" in said
    assert (tmp_path / "v" / "vocabulary.json").exists()

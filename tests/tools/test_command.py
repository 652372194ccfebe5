"""The `milco` command as a user calls it: what it prints, writes and exits with."""

import json
import os
import subprocess
import sys

import pytest
from miniature import write_lines

from milco.tools import command

pytestmark = pytest.mark.slow


@pytest.fixture
def milco(monkeypatch, capsys, model_folder):
    """Calls `milco` with some words: (exit code, standard output, standard error)."""
    monkeypatch.setenv("MILCO_MODEL", str(model_folder))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["milco", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        if isinstance(ended.value.code, str):  # what the interpreter does with sys.exit("…")
            print(ended.value.code, file=sys.stderr)
        code = 1 if isinstance(ended.value.code, str) else ended.value.code or 0
        return code, *capsys.readouterr()

    return call


def test_inspect_prints_what_the_model_decodes(milco, model):
    code, out, _ = milco("inspect", "--json", "die Katze", "the cat")
    found = json.loads(out)
    assert code == 0 and [one["text"] for one in found] == ["die Katze", "the cat"]
    for one, wanted in zip(found, model.decode(model.encode_document(["die Katze", "the cat"])), strict=True):
        named = {f"e_{word}": weight for word, weight in one["pivot"].items()}
        assert named | {f"m_{word}": weight for word, weight in one["source"].items()} == pytest.approx(
            wanted, abs=1e-5
        )
    heaviest = next(iter(found[0]["pivot"]))
    code, out, _ = milco("inspect", "die Katze", "[bold]the cat[/bold]", "--top", 1)
    assert code == 0 and "[bold]the cat[/bold]" in out and "pivot view" in out and "source view" in out
    assert sum(heaviest in line.split() for line in out.splitlines()) == 1


def test_a_query_is_cut_where_queries_are(milco, model):
    long = " ".join(["Hund"] * 8 + ["Katze"] * 3)
    words = json.loads(milco("inspect", "--json", "--query", long)[1])[0]["source"]
    assert "▁Katze" not in words and "▁Katze" in json.loads(milco("inspect", "--json", long)[1])[0]["source"]


def test_exit_codes_and_words_of_a_failure(milco, tmp_path, encoder_checkpoint):
    code, _, said = milco("inspect", "text", "--model", tmp_path / "none")
    assert code == 1 and said.count("\n") == 1
    assert said.startswith(f"milco: error: model {tmp_path}/none: no such folder; give the folder of a trained MILCO")
    code, _, said = milco("inspect", "text", "--model", encoder_checkpoint)
    assert code == 1 and "a model of type 'bert'" in said and said.count("\n") == 1
    assert milco("inspect")[0] == milco("inspect", "text", "--top", "0")[0] == milco("nonsense")[0] == 2


@pytest.mark.parametrize("settings", ["[]", "{", "\xff"])
def test_a_broken_config_is_said_in_one_line(settings, milco, tmp_path):
    (tmp_path / "config.json").write_text(settings, encoding="latin-1")
    code, _, said = milco("inspect", "text", "--model", tmp_path)
    assert code == 1 and said.startswith(f"milco: error: {tmp_path}/config.json: broken (")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["inspect", "text", "--model", "none"],
        ["search", "none", "text", "--model", "none"],
        ["serve", "none", "--model", "none"],
        ["index", "none", "--output", "x"],
        ["feed", "vespa", "none", "--model", "none", "--output", "x"],
        ["evaluate", "none", "none"],
        ["plan", "--config", "none"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_or_has_none_does_not_wait_for_torch(words, tmp_path):
    """Torch and transformers take seconds to import."""
    program = [sys.executable, "-X", "importtime", "-m", "milco", *words]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "milco.tools.command" in modules and not modules & {"torch", "transformers"}, done.stderr[-500:]
    assert (done.returncode == 0) == (words == ["--help"])


def test_every_command_has_help_with_an_example(milco):
    names = [given.name or given.callback.__name__ for given in command.app.registered_commands]
    assert len(names) > 1
    for name in names:
        code, out, _ = milco(name, "--help")
        assert code == 0 and out.count(f"milco {name} ") > 1, name


def test_a_shell_completes_commands_and_options():
    asked = {"_MILCO_COMPLETE": "complete_bash", "COMP_WORDS": "milco insp", "COMP_CWORD": "1"}
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'milco'; from milco.tools.command import app; app()"]
    done = subprocess.run(program, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == ["inspect"]


def test_from_texts_to_measures(milco, tmp_path):
    """The whole way, each step by its command."""
    texts = {"d1": "die Katze und der Hund", "d2": "the house", "d3": "ночь"}
    write_lines(tmp_path / "corpus.tsv", [f"{name}\t{text}" for name, text in texts.items()])
    write_lines(tmp_path / "queries.jsonl", [json.dumps({"_id": f"q{name}", "text": texts[name]}) for name in texts])
    write_lines(tmp_path / "qrels.txt", [f"q{name} 0 {name} 1" for name in texts])
    vectors, pruned, index, run = (tmp_path / name for name in ("vectors", "pruned", "index", "run.trec"))
    assert milco("encode", tmp_path / "corpus.tsv", "--output", vectors)[0] == 0
    code, out, _ = milco("prune", vectors, "--top-k", 5, "--output", pruned)
    assert code == 0 and "5.0 after" in out
    code, out, _ = milco("index", pruned, "--texts", tmp_path / "corpus.tsv", "--output", index)
    assert code == 0 and out.startswith(f"{index}: 0.")
    assert milco("search", index, "--queries", tmp_path / "queries.jsonl", "--output", run)[0] == 0
    code, out, _ = milco("evaluate", run, tmp_path / "qrels.txt", "--measure", "RR@10", "--measure", "R@10", "--json")
    found = json.loads(out)
    assert code == 0 and found["queries"] == 3 and found["mean"]["R@10"] == 1.0 and 0.3 < found["mean"]["RR@10"] <= 1
    code, out, _ = milco("evaluate", run, tmp_path / "qrels.txt", "--measure", "R@10", "--per-query")
    assert out.splitlines() == ["qd1\tR@10\t1.0000", "qd2\tR@10\t1.0000", "qd3\tR@10\t1.0000", "all\tR@10\t1.0000"]
    out = milco("search", index, "the house", "--explain", "--json", "-k", 1)[1]
    (hit,) = json.loads(out)["results"]
    assert sum(word["part"] for word in hit["words"]) == pytest.approx(hit["score"]) and hit["text"] == texts[hit["id"]]
    out = milco("search", index, "the house", "--explain", "-k", 1, "--exact")[1]
    assert hit["id"] in out and hit["words"][0]["token"] in out and " × " in out


def test_wrong_uses_are_told_from_wrong_files(milco, tmp_path):
    for words in (
        ["prune", "vectors", "--output", "x", "--top-k", 1, "--mass", 0.5],
        ["prune", "vectors", "--output", "x"],
        ["search", "index"],
        ["search", "index", "query", "--queries", "file"],
        ["evaluate", "run", "qrels", "--measure", "nDCG@ten"],
    ):
        assert milco(*words)[0] == 2, words
    (tmp_path / "empty.tsv").touch()
    code, _, said = milco("encode", tmp_path / "empty.tsv", "--output", tmp_path / "vectors")
    assert code == 1 and f"milco: error: {tmp_path}/empty.tsv: empty" in said and len(list(tmp_path.iterdir())) == 1
    code, _, said = milco("encode", tmp_path / "empty.tsv", "--output", tmp_path / "empty.tsv")
    assert code == 1 and "the texts that are encoded; give another name" in said


def test_texts_of_the_standard_input_are_encoded(tmp_path, model_folder):
    program = [sys.executable, "-m", "milco", "encode", "-", "--output", str(tmp_path / "vectors.jsonl")]
    environment = {**os.environ, "MILCO_MODEL": str(model_folder)}
    subprocess.run(program, env=environment, input="die Katze\n猫\n".encode(), check=True)
    assert [json.loads(line)["id"] for line in (tmp_path / "vectors.jsonl").open()] == ["1", "2"]
    done = subprocess.run(program, env=environment, input=b"x\n\xff\n", capture_output=True)
    assert done.returncode == 1 and b"/dev/stdin:2: not UTF-8" in done.stderr and b"Traceback" not in done.stderr


def test_an_engine_takes_the_place_of_a_folder(milco, tmp_path):
    write_lines(tmp_path / "corpus.tsv", ["d1\tthe red house", "d2\tthe river in the night", "d3\tcat and dog"])
    write_lines(tmp_path / "queries.tsv", ["q1\tdas rot Haus", "q2\tdie Nacht"])
    for form in ("jsonl", "folder"):  # their columns differ, the engine's do not
        vectors, address = tmp_path / f"vectors.{form}", f"milvus:{tmp_path}/{form}.db"
        assert milco("encode", tmp_path / "corpus.tsv", "--output", vectors)[0] == 0
        assert milco("index", vectors, "--output", address)[:2] == (0, f"{address}: 3 documents\n")
        assert milco("index", vectors, "--output", tmp_path / f"index-{form}")[0] == 0
        runs = []
        for place in (address, tmp_path / f"index-{form}"):
            run = tmp_path / "run.trec"
            assert milco("search", place, "--queries", tmp_path / "queries.tsv", "-k", 1, "--output", run)[0] == 0
            runs.append([line.split()[:3] for line in run.read_text().splitlines()])
        assert runs[0] == runs[1] and len(runs[0]) == 2
    assert milco("index", vectors, "--output", address)[0] == 1  # an index is there
    assert milco("index", vectors, "--output", address, "--replace")[0] == 0
    assert milco("search", address, "x", "--explain")[0] == 2


def test_files_for_other_engines_are_written_once(milco, tmp_path):
    write_lines(tmp_path / "corpus.tsv", ["d1\tthe red house"])
    assert milco("encode", tmp_path / "corpus.tsv", "--output", tmp_path / "v")[0] == 0
    words = ("feed", "vespa", tmp_path / "v", "--output", tmp_path / "vespa")
    assert milco(*words)[:2] == (0, f"{tmp_path}/vespa: 1 documents, 0 queries\n")
    code, _, said = milco(*words)
    assert code == 1 and "is there already" in said

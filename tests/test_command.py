"""The `milco` command as a user calls it: what it prints, writes and exits with."""

import json
import os
import subprocess
import sys

import pytest

from milco import command


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
    assert said.startswith(f"milco: error: model {tmp_path}/none: no such folder; give the folder of a trained")
    code, _, said = milco("inspect", "text", "--model", encoder_checkpoint)
    assert code == 1 and "a model of type 'bert'" in said and said.count("\n") == 1
    assert milco("inspect")[0] == milco("inspect", "text", "--top", "0")[0] == milco("nonsense")[0] == 2


def test_every_command_has_help_with_an_example(milco):
    names = [given.name or given.callback.__name__ for given in command.app.registered_commands]
    assert len(names) > 1
    for name in names:
        code, out, _ = milco(name, "--help")
        assert code == 0 and (out.count(f"milco {name} ") > 1 or name == "plan"), name


def test_a_shell_completes_commands_and_options():
    asked = {"_MILCO_COMPLETE": "complete_bash", "COMP_WORDS": "milco ins", "COMP_CWORD": "1"}
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'milco'; from milco.command import app; app()"]
    done = subprocess.run(program, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == ["inspect"]

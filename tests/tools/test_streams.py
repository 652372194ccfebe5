"""Texts of every form to vectors of both, cut off anywhere, pruned."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from milco.errors import MilcoError
from milco.modeling.pruning import prune_mass, prune_top_k
from milco.tools import text_files
from milco.tools.inspection import load_model
from milco.tools.streams import encode, prune
from milco.tools.text_files import count_texts, read_texts
from milco.tools.vector_files import read_vectors

pytestmark = pytest.mark.slow

TEXTS = {"a": "die Katze", "b": "", "ü\"'<": "le chat\u2028rouge", "d": "ночь", "7": "the old house", "f": "猫 水"}


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(text_files, "WINDOW", 2)


@pytest.fixture
def loaded(model_folder):
    return load_model(model_folder)


def read(path: Path) -> tuple[list[str], list[dict[str, float]]]:
    """All ids and {token: weight} of some vectors."""
    columns: dict[str, int] = {}
    ids, found = [], []
    for part, rows, _ in read_vectors(path, columns):
        tokens = list(columns)
        ids += part
        for row in range(len(part)):
            places = slice(rows.indptr[row], rows.indptr[row + 1])
            found.append({tokens[c]: v for c, v in zip(rows.indices[places], rows.data[places], strict=True)})
    return ids, found


def write_jsonl(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"_id": k, "text": v}) + "\n" for k, v in texts.items()), encoding="utf-8")
    return path


def test_every_form_gives_its_ids_and_texts(tmp_path, monkeypatch):
    names = {form: tmp_path / f"texts.{form}" for form in ("txt", "tsv", "jsonl", "parquet")}
    names["txt"].write_text("die Katze\n\n猫", encoding="utf-8")
    names["tsv"].write_text("a\tdie Katze\r\nb\t\n", encoding="utf-8")
    names["jsonl"].write_text('{"id": 1, "title": "Die", "text": "Katze"}\n{"docid": "x", "text": "y"}\n')
    pd.DataFrame({"url": [3, 4], "body": ["die", "Katze"], "other": [0, 0]}).to_parquet(names["parquet"])
    assert list(read_texts(names["txt"])) == [("1", "die Katze"), ("3", "猫")]
    assert list(read_texts(names["tsv"])) == [("a", "die Katze"), ("b", "")]
    assert list(read_texts(names["jsonl"])) == [("1", "Die Katze"), ("x", "y")]
    assert list(read_texts(names["parquet"], id_key="url", text_key="body")) == [("3", "die"), ("4", "Katze")]
    assert [count_texts(names[form]) for form in names] == [2, 2, 2, 2]  # the last line of TXT has no end


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "a.txt: empty; there is no text in it"),
        ("a.txt", b"fine\n\xff\n", "a.txt:2: not UTF-8"),
        ("a.tsv", b"a\tb\na b\n", "a.tsv:2: 1 tab-separated fields, expected 2"),
        ("a.tsv", b"a\tb\n\tb\n", "a.tsv:2: the id '' is empty"),
        ("a.jsonl", b'{"_id": "1", "text": "x"}\nx\n', "a.jsonl:2: not a JSON object"),
        ("a.jsonl", b'{"_id": "1", "text": 5}\n', "a.jsonl:1: no text under 'text'; say their keys or columns with"),
        ("a.jsonl", b'{"key": "1", "text": "x"}\n', "a.jsonl:1: no id under '_id' or 'id' or 'docid'"),
        ("a.jsonl", b'{"_id": "1", "text": "\\ud800"}\n', "a.jsonl:1: has half of a surrogate pair"),
        ("a.jsonl", b'{"_id": "a\\rb", "text": "x"}\n', "a.jsonl:1: the id 'a\\rb' is empty or has a control"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: not a complete Parquet file"),
        ("a.xlsx", b"a,b\n", "a.xlsx: unknown kind of file; readable: .txt, .tsv, "),
        ("a.tsv", None, "a.tsv: no such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MilcoError) as error:
        list(read_texts(tmp_path / name))
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["vectors.jsonl", "vectors"])
def test_vectors_are_those_of_the_model_whatever_the_form(tmp_path, loaded, name):
    encode(loaded, TEXTS.items(), tmp_path / name)
    ids, found = read(tmp_path / name)
    wanted = loaded.decode(loaded.encode_document(list(TEXTS.values())))
    assert ids == list(TEXTS) and not list(tmp_path.glob(".*"))
    assert [one == pytest.approx(other, abs=1e-5) for one, other in zip(found, wanted, strict=True)] == [True] * 6
    assert any(token.startswith("m_") for token in found[0]) and any(token.startswith("e_") for token in found[0])


def test_both_forms_hold_the_same_weights_to_the_last_bit(tmp_path, loaded):
    encode(loaded, TEXTS.items(), tmp_path / "one.jsonl", query=True)
    encode(loaded, TEXTS.items(), tmp_path / "two", query=True)
    assert read(tmp_path / "one.jsonl") == read(tmp_path / "two")
    for line in (tmp_path / "one.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        weights = list(json.loads(line)["vector"].values())
        assert weights == sorted(weights, reverse=True)


def test_a_model_prunes_each_language_to_its_budget(tmp_path, model_folder):
    model = load_model(model_folder)
    model.config.document_budgets = {"all": "top-k 3", "de": "top-k 2"}
    for language, kept in ((None, 3), ("fr", 3), ("de", 2)):
        name = tmp_path / f"{language}.jsonl"
        encode(model, TEXTS.items(), name, language=language)
        wanted = model.decode(model.encode_document(list(TEXTS.values()), language=language))
        assert read(name)[1] == [pytest.approx(one, abs=1e-5) for one in wanted]
        assert max(map(len, wanted)) == kept
    encode(model, TEXTS.items(), tmp_path / "queries.jsonl", query=True)
    assert max(map(len, read(tmp_path / "queries.jsonl")[1])) > 3


@pytest.mark.parametrize("name", ["vectors.jsonl", "vectors"])
@pytest.mark.parametrize("at", [2, 4, 5])
def test_a_run_that_was_cut_off_goes_on_and_gives_the_same_result(tmp_path, loaded, monkeypatch, name, at):
    encode(loaded, TEXTS.items(), tmp_path / "whole" / name)

    def broken():
        yield from list(TEXTS.items())[:at]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(loaded, broken(), tmp_path / name)
    assert not (tmp_path / name).exists()
    left = tmp_path / f".{name}.part" / ("vectors.jsonl" if ".jsonl" in name else "part-000003.safetensors")
    with left.open("ab") as file:
        file.write(b'{"id": "half a li')  # as a kill leaves it behind
    encoded: list[str] = []
    iter_rows = loaded.iter_rows
    monkeypatch.setattr(loaded, "iter_rows", lambda texts, *rest: encoded.extend(texts) or iter_rows(texts, *rest))
    encode(loaded, TEXTS.items(), tmp_path / name)
    assert read(tmp_path / name) == read(tmp_path / "whole" / name)
    assert encoded == list(TEXTS.values())[at // 2 * 2 :] and not list(tmp_path.glob(".*"))


def test_windows_of_other_texts_or_of_another_model_are_encoded_anew(tmp_path, loaded, model_folder):
    def cut_off(texts):
        yield from list(texts.items())[:4]
        raise KeyboardInterrupt

    other = load_model(model_folder)
    other.connector.weight.data.mul_(0.5)
    other.save_pretrained(tmp_path / "other")
    for texts, folder in (({**TEXTS, "b": "eau"}, model_folder), (TEXTS, tmp_path / "other")):
        with pytest.raises(KeyboardInterrupt):
            encode(loaded, cut_off(TEXTS), tmp_path / "resumed.jsonl")
        for name in ("resumed.jsonl", "fresh.jsonl"):
            encode(load_model(folder), texts.items(), tmp_path / name)
        assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()


def test_a_killed_process_is_continued_by_the_next(tmp_path, model_folder):
    texts = write_jsonl(tmp_path / "texts.jsonl", {str(n): f"die Katze {n} the house" for n in range(500)})
    code = "from milco.tools import text_files; text_files.WINDOW = 20; from milco.tools.command import main; main()"
    program = [sys.executable, "-c", code, "encode", str(texts), "--model", str(model_folder), "--output"]
    first = subprocess.Popen([*program, str(tmp_path / "vectors.jsonl")], stderr=subprocess.PIPE)
    log = tmp_path / ".vectors.jsonl.part" / "windows.txt"
    while not log.exists() or log.read_text().count("\n") < 3:
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "vectors.jsonl").exists()
    subprocess.run([*program, str(tmp_path / "vectors.jsonl")], check=True)
    text_files.WINDOW = 20
    encode(load_model(model_folder), read_texts(texts), tmp_path / "whole.jsonl")
    assert read(tmp_path / "vectors.jsonl") == read(tmp_path / "whole.jsonl")


@pytest.mark.parametrize("name", ["vectors.jsonl", "vectors"])
def test_a_run_that_is_killed_while_it_gives_the_name_loses_nothing(tmp_path, loaded, monkeypatch, name):
    encode(loaded, TEXTS.items(), tmp_path / "whole" / name)

    replace = os.replace

    def killed(source, target):
        if target == tmp_path / name:
            raise KeyboardInterrupt
        replace(source, target)

    encoded: list[str] = []
    iter_rows = loaded.iter_rows
    monkeypatch.setattr(loaded, "iter_rows", lambda texts, *rest: encoded.extend(texts) or iter_rows(texts, *rest))
    for texts in (TEXTS, {**TEXTS, "b": "eau"}):  # without vectors of that name, and in the place of some
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("os.replace", killed)
            encode(loaded, texts.items(), tmp_path / name)
        encoded.clear()
        encode(loaded, texts.items(), tmp_path / name)
        assert encoded == [] and read(tmp_path / name)[0] == list(texts)
        encode(loaded, TEXTS.items(), tmp_path / name)
        assert read(tmp_path / name) == read(tmp_path / "whole" / name)


def test_lines_that_have_their_name_already_are_not_taken_for_written(tmp_path, loaded, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_: None)  # as if it was killed before
        encode(loaded, TEXTS.items(), tmp_path / "vectors.jsonl")
    before = read(tmp_path / "vectors.jsonl")
    encode(loaded, TEXTS.items(), tmp_path / "vectors.jsonl")
    assert read(tmp_path / "vectors.jsonl") == before


def test_what_holds_no_vectors_is_never_replaced(tmp_path, loaded):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for output in (tmp_path / "home", tmp_path / "home" / "letter.txt"):
        with pytest.raises(MilcoError, match="holds something other than vectors"):
            encode(loaded, TEXTS.items(), output)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    encode(loaded, TEXTS.items(), tmp_path / "vectors")
    encode(loaded, [("z", "eau")], tmp_path / "vectors")  # vectors are
    assert read(tmp_path / "vectors")[0] == ["z"]


def test_weights_that_are_no_numbers_are_not_written(tmp_path, loaded):
    with np.errstate(all="ignore"):
        loaded.echo.bias.data.fill_(float("inf"))
        with pytest.raises(MilcoError, match="the weights of 'die Katze' are no numbers"):
            encode(loaded, TEXTS.items(), tmp_path / "vectors.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["vectors.jsonl", "vectors"])
@pytest.mark.parametrize(("budget", "pruned"), [({"top_k": 3}, prune_top_k), ({"mass": 0.6}, prune_mass)])
def test_pruned_vectors_are_those_of_pruned_rows(tmp_path, loaded, name, budget, pruned):
    encode(loaded, TEXTS.items(), tmp_path / name)
    before, after = prune(tmp_path / name, tmp_path / f"pruned-{name}", **budget)
    rows = loaded.encode_document(list(TEXTS.values()))
    kept = pruned(rows, *budget.values())
    wanted = loaded.decode(kept)
    ids, found = read(tmp_path / f"pruned-{name}")
    assert ids == list(TEXTS) and after < before
    assert [list(one) for one in wanted] == [sorted(one, key=one.get, reverse=True) for one in found]
    assert (before, after) == (rows.nnz / 6, kept.nnz / 6)


def test_pruning_goes_from_a_folder_to_lines_but_not_back(tmp_path, loaded):
    encode(loaded, TEXTS.items(), tmp_path / "vectors")
    prune(tmp_path / "vectors", tmp_path / "pruned.jsonl", top_k=1000)
    assert read(tmp_path / "vectors") == read(tmp_path / "pruned.jsonl")
    with pytest.raises(MilcoError, match="are pruned to JSONL"):
        prune(tmp_path / "pruned.jsonl", tmp_path / "back", top_k=1000)
    with pytest.raises(MilcoError, match="the vectors that are pruned; give another name"):
        prune(tmp_path / "pruned.jsonl", tmp_path / "pruned.jsonl", top_k=1000)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a"}', ':2: expected {"id": …'),
        ('{"id": "a", "vector": {"e_x": "1"}}', ":2: the weight of 'e_x' is '1'"),
        ('{"id": "a", "vector": {"e_x": NaN}}', ":2: the weight of 'e_x' is nan"),
        ('{"id": "a", "vector": {"e_x": -1}}', ":2: the weight of 'e_x' is -1"),
    ],
)
def test_a_bad_line_of_vectors_is_named(tmp_path, monkeypatch, line, words):
    monkeypatch.setattr(text_files, "WINDOW", 1)  # the first line is written when the second is read
    path = tmp_path / "vectors.jsonl"
    path.write_text('{"id": "a", "vector": {"e_x": 1}}\n' + line + "\n")
    with pytest.raises(MilcoError) as error:
        read(path)
    assert words in str(error.value)
    with pytest.raises(MilcoError):
        prune(path, tmp_path / "pruned.jsonl", top_k=1)
    assert [each.name for each in tmp_path.iterdir()] == ["vectors.jsonl"]
    path.write_text("")
    with pytest.raises(MilcoError, match="empty; there is no vector in it"):
        read(path)
    with pytest.raises(MilcoError, match="no vectors in it"):
        read(tmp_path)


def test_memory_does_not_grow_with_the_number_of_texts(tmp_path, loaded, monkeypatch):
    monkeypatch.setattr(text_files, "WINDOW", 10)
    behind = []

    def texts():
        for number in range(100):
            behind.append(number)
            yield str(number), "die Katze"

    encode(loaded, texts(), tmp_path / "vectors.jsonl", done=lambda count: behind.append(-count))
    waiting = np.cumsum([value if value < 0 else 1 for value in behind])
    assert waiting.max() == 10


def test_texts_that_are_cut_are_counted_by_language_also_when_a_run_goes_on(model_folder, tmp_path):
    model = load_model(model_folder)
    longest = model.config.passage_max_length
    texts = {"a": "Katze " * longest, "b": "Katze", "c": "кот " * longest, "d": "дом", "e": "猫"}
    for _ in range(2):  # the second time all windows are there
        cuts = encode(model, texts.items(), tmp_path / "v.jsonl")
        assert cuts.as_dict() == {
            "texts": {"Latin": 2, "Cyrillic": 2, "Cjk": 1},
            "cut": {"Latin": 1, "Cyrillic": 1},
        }
    said = encode(model, texts.items(), tmp_path / "v.jsonl", language="mul").sentence("texts", longest)
    assert said == f"2 of 5 texts are cut at {longest} tokens: mul 2 of 5"
    exactly = " ".join(["Katze"] * (longest - 2))  # all that fits
    assert encode(model, [("f", exactly)], tmp_path / "w.jsonl").sentence("texts", longest) == ""

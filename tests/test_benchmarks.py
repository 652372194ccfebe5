"""The benchmarks run, at sizes that say nothing."""

import gzip
import json
import subprocess
import sys

import pytest
import yaml
from miniature import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import export
import head
import measure
import plain
import recipes
import sentences
import table
import torch

from milco.config import parse
from milco.config.reading import merge
from milco.data.beir import read_collection

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(head, "BATCH", 3)
    monkeypatch.setattr(head, "LENGTH", 5)


def test_a_row_has_both_times_their_ratio_and_its_spread():
    row = head.measure(head.Case(50, 8, 0.5, torch.float32, "cpu"), "50 % active", repeats=3)
    assert {"benchmark", "case", "baseline_s", "milco_s", "speedup", "spread"} == set(row)
    assert row["case"] == "50 % active, float32, B=3 L=5 D=8 V=50"
    assert row["spread"][0] <= row["speedup"] <= row["spread"][1]


def test_memory_is_measured_in_a_process_of_its_own():
    script = ROOT / "benchmarks" / "head.py"
    command = [sys.executable, script, "--memory", "plain", "3000", "64", "0.01", "float32"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 32 * 256 * 3000 * 4 / 2**20  # the logits, in MiB


def test_two_ways_are_timed_in_turns():
    calls = []
    measure.compare(lambda: calls.append("plain"), lambda: calls.append("milco"), repeats=2)
    assert calls == ["plain", "milco"] * 3


def test_what_is_dear_warms_up_in_a_way_of_its_own():
    calls = []
    one, other = (lambda: calls.append("plain")), (lambda: calls.append("milco"))
    measure.compare(one, other, repeats=1, warm_up=lambda: calls.append("warm"))
    assert calls == ["warm", "plain", "milco"]


def test_of_several_draws_the_median_counts_and_the_spread_is_theirs():
    rows = [{"baseline_s": 10.0 * n, "milco_s": 2.0, "speedup": 5.0 * n, "spread": [0.0, 99.0]} for n in (3, 1, 2)]
    assert measure.over_draws(rows) == {"baseline_s": 20.0, "milco_s": 2.0, "speedup": 10.0, "spread": [5.0, 15.0]}


def test_saved_rows_become_a_table(tmp_path, monkeypatch):
    row = {"benchmark": "b", "case": "c", "baseline_s": 2.0, "milco_s": 1.0, "speedup": 2.0, "spread": [1.5, 2.5]}
    measure.save("b", [row | {"baseline_mb": 10, "milco_mb": 1}])
    assert json.loads((tmp_path / "b.json").read_text())[0]["machine"]
    (tmp_path / "docs").mkdir()
    pages = {name: tmp_path / "docs" / name for name in table.PAGES}
    for page in pages.values():
        page.write_text("# Page\n\n<!-- b -->\nold\n<!-- end -->\n\n<!-- other -->\nkept\n<!-- end -->\n")
    monkeypatch.setattr(table, "__file__", str(tmp_path / "benchmarks" / "table.py"))
    table.main()
    for text in (page.read_text() for page in pages.values()):
        assert "| c | 2.00 | 1.00 | 2.00 | 1.50–2.50 | 10 | 1 |\n<!-- end -->" in text and "old" not in text
        assert text.startswith("# Page\n") and text.endswith("<!-- other -->\nkept\n<!-- end -->\n")


def test_rows_of_several_commits_say_theirs(tmp_path):
    rows = measure.write("b", [{"benchmark": "b", "case": "old", "machine": "m", "commit": "1234567"}, {"case": "new"}])
    assert rows[0]["commit"] == "1234567" != rows[1]["commit"]
    assert "| old | 1234567 |" in table.as_table(rows) and "1234567" not in table.as_table(rows[1:])


@pytest.mark.parametrize("page", table.PAGES)
def test_the_tables_on_the_pages_are_those_of_the_stored_rows(page):
    files = (ROOT / "benchmarks" / "results").glob("*.json")
    tables = {file.stem: table.as_table(json.loads(file.read_text(encoding="utf-8"))) for file in files}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert table.with_tables(text, tables) == text


def test_the_plain_way_has_the_same_views(model):
    texts = [ids for ids in model.tokenizer(["die Katze", "maison", "der Hund und das große Haus"])["input_ids"]]
    ids, mask = plain.padded(texts, model.tokenizer.pad_token_id, 20)
    with torch.no_grad():
        found, wanted = plain.views(model, ids, mask), model(ids, mask)
    torch.testing.assert_close(found.pooled, wanted.pooled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.source, wanted.source, rtol=1e-4, atol=1e-4)


def test_onnxruntime_is_timed_over_the_batches_that_torch_has(model):
    batch = model.tokenizer(["die Katze", "maison"], padding=True, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    row = export.measure(model, export.session_for(model), "two texts", [batch, batch], repeats=1)
    assert row["baseline_s"] > 0 and row["milco_s"] > 0 and 0 < row["largest_difference"] < 1e-3


def test_parallel_text_becomes_an_experiment_of_sentences(tmp_path, monkeypatch):
    """An English sentence with two translations asks once; no negative of a triple is its positive."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"sentence {n}\tSatz {n}\n" for n in range(9)) + "sentence 0\tnoch ein Satz 0\n"
    names = {"tatoeba": sentences.TEST, "tico19": sentences.DEVELOPMENT, "ntrex": sentences.TEST.values()}
    for folder, codes in names.items():
        (tmp_path / "text" / folder).mkdir(parents=True)
        for code in codes:
            with gzip.open(tmp_path / "text" / folder / f"en-{code}.tsv.gz", "wt", encoding="utf-8") as file:
                file.write(lines)
    monkeypatch.setattr(sys, "argv", ["sentences.py", "text"])
    sentences.main()
    demo = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    config = parse(merge(demo, yaml.safe_load((tmp_path / "data" / "sentences" / "config.yaml").read_text("utf-8"))))
    assert len(config.align.train_datasets) == len(config.evaluate.test_collections) == len(sentences.TEST)
    collection = read_collection(tmp_path / "data" / "sentences" / "ntrex-de", "test")
    assert len(collection.queries) == len(collection.documents) == len(collection.qrels) == 9
    rows = [
        json.loads(line) for line in (tmp_path / "data" / "sentences" / "asks.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(rows) == 9 * len(sentences.TEST)
    assert all(len(row["neg"]) == sentences.NEGATIVES and row["pos"][0] not in row["neg"] for row in rows)


def test_a_recipe_is_measured_on_the_development_queries(model_folder, tmp_path):
    for name, texts in {"de-en": {"q": "die Katze"}, "en-en": {"q": "the cat"}}.items():
        sentences.write(tmp_path / name, [("the cat", texts["q"]), ("a house", "maison")], "dev")
    values, queries, documents = recipes.measured(model_folder, sorted(tmp_path.glob("*-en")))
    assert values.index.names == ["collection", "query"] and len(values) == 4 and values.between(0, 1).all()
    assert queries > 0 and documents > 0

"""The plan of an experiment: the paper's own numbers, and sums that can be done by hand."""

import json
import re
from pathlib import Path

import pytest
from miniature import ROOT

from milco import config
from milco.experiments import Experiment
from milco.tools.plan import as_text, plan

PAPER = config.load(ROOT / "config" / "milco.yaml")


def rows(settings, **machine):
    settings = settings.model_copy(update={"machine": config.Machine(**machine)})
    return {row["stage"]: row for row in plan(settings)}


def test_the_full_experiment_has_the_steps_of_the_paper():
    found = rows(PAPER)
    assert found["token cache"]["what"].startswith("594,000,000 pairs")
    assert found["Stage 1"]["steps"] == "145,020" and found["Stage 2"]["steps"] == "10,831"
    assert int(found["encoding"]["what"].split()[0].replace(",", "")) > 3 * 106_000_000  # MIRACL, three systems


def test_the_authors_scripts_have_as_many_pairs_of_stage_1_and_no_warm_up_there():
    theirs = config.load(ROOT / "config" / "authors-code.yaml")
    found = rows(theirs)
    assert found["Stage 1"]["steps"] == "145,020" and found["Stage 2"]["steps"] == "5,416"
    assert {name: theirs.sources[name].cleans() for name in theirs.align.train_datasets} == dict.fromkeys(
        theirs.align.train_datasets, "none"
    )
    per_device = theirs.align.global_batch_size // 128, theirs.distill.global_batch_size // 128
    assert per_device == (32, 16) and theirs.align.pairs_per_mean == 32 and theirs.align.warmup_ratio == 0


def test_a_first_round_that_mines_is_counted():
    once = PAPER.model_copy(update={"distill": PAPER.distill.model_copy(update={"miner": "distill"})})
    assert rows(once)["Stage 2"]["steps"] == "21,662"


def test_every_seed_is_trained_and_encoded_and_what_they_share_is_counted_once():
    once, thrice = rows(PAPER), rows(PAPER.model_copy(update={"seeds": [3, 1, 2]}))
    assert thrice["Stage 1"]["steps"] == "435,059" and thrice["Stage 2"]["steps"] == "32,493"
    assert thrice["Stage 1"]["what"].endswith("pairs in 2 epochs with each of 3 seeds")
    shared = ("token cache", "teacher targets")
    assert [thrice[name] for name in shared] == [once[name] for name in shared]
    texts = [int(found["encoding"]["what"].split()[0].replace(",", "")) for found in (once, thrice)]
    assert texts[1] * 3 == texts[0] * 7  # of three systems two are trained


def test_speeds_become_hours_and_devices_share_them():
    found = rows(PAPER, devices=128, align_pairs_per_second=1000, distill_queries_per_second=100)
    assert found["Stage 1"]["device hours"] == "330.0" and found["Stage 1"]["hours, 128 devices"] == "2.6"
    assert found["Stage 2"]["device hours"] == "30.8"
    assert found["encoding"]["device hours"] == ""  # no speed, no hours


def test_disk_is_that_of_the_cells(values):
    counts = {"pairs": 1_000_000_000, "triples": 10, "mine": 20}
    sources = {name: {**source, "examples": counts.get(name)} for name, source in values["sources"].items()}
    found = rows(config.parse({**values, "sources": sources}), tokens_per_text=10, terms_per_text=100)
    raw = {**values["align"], "target": "raw"}
    stored = rows(config.parse({**values, "align": raw, "sources": sources}), tokens_per_text=10, terms_per_text=100)
    disks = [float(table["teacher targets"]["disk, GB"]) for table in (found, stored)]
    assert disks[1] - disks[0] == 48.0  # the teacher's own ids
    assert found["token cache"]["disk, GB"] == "96.0"  # twice a billion texts of 10 ids and 8 bytes beside them
    assert found["teacher targets"]["disk, GB"] == "408.0"
    assert found["encoding"]["what"].startswith("80 texts")  # of four systems
    assert as_text(list(found.values())).count("\n") == 9


@pytest.mark.parametrize(("cap", "english"), [(None, 50), (100, 50), (200, 50), (50, 37.5)])
def test_a_cap_leaves_fewer_pairs_and_texts(values, cap, english):
    pairs = {**values["sources"]["pairs"], "language": None, "subsets": {"a": "xx", "b": "yy"}}
    pairs |= {"examples": 100_000_000, "max_pairs": cap and cap * 1_000_000}
    found = rows(config.parse({**values, "sources": {**values["sources"], "pairs": pairs}}))
    texts = f"{min(cap or 100, 100)},000,000 pairs, {english * 1_000_000:,.0f} English texts"
    assert found["token cache"]["what"] == texts


def test_a_source_that_says_no_number_is_named(values):
    assert rows(config.parse(values))["not counted"]["what"].startswith(
        "pairs, triples, mine: say sources.NAME.examples"
    )
    assert "not counted" not in rows(PAPER)


def english_texts(values, **changes) -> str:
    pairs = {**values["sources"]["pairs"], "language": None, "examples": 120, **changes}
    settings = {**values, "languages": ["aa", "bb", "cc", "dd"], "eval_languages": []}
    found = rows(config.parse({**settings, "sources": {**values["sources"], "pairs": pairs}}))
    return found["teacher targets"]["what"]


def test_text_in_several_languages_has_its_english_side_once(values):
    assert english_texts(values, subsets={"all": "mul"}) == "at least 30 texts"
    assert english_texts(values, language="mul") == "at least 30 texts"
    assert english_texts(values) == "at least 30 texts"  # a table with a column of languages
    assert english_texts(values, subsets={"all": "mul", "x": "aa", "y": "bb"}) == "at least 20 texts"
    assert english_texts(values, language="aa") == "120 texts"


def test_subsets_of_a_task_of_mteb_are_counted_alone():
    def encoded(**changes) -> int:
        sources = {**PAPER.sources, "mldr": PAPER.sources["mldr"].model_copy(update=changes)}
        evaluate = PAPER.evaluate.model_copy(update={"test_collections": ["mldr"], "baselines": []})
        found = rows(PAPER.model_copy(update={"sources": sources, "evaluate": evaluate}))
        return int(found["encoding"]["what"].split()[0].replace(",", ""))

    german, hindi = (encoded(subsets={code: code}) for code in ("de", "hi"))
    assert 0 < german < encoded() and encoded(subsets={"de": "de", "hi": "hi"}) == german + hindi


@pytest.mark.parametrize("which", ["relevant", "all", "queries"])
def test_what_will_be_held_out_is_said(values, which):
    (row,) = [
        rows(config.parse({**values, "corpora": {"decontaminate": which, "decontaminate_for": "all"}}))["held out"]
    ]
    said = {"relevant": "queries and relevant documents", "all": "queries and documents", "queries": "queries"}
    assert row["what"].startswith(f"{said[which]} of mine are removed from the training text")


def test_texts_that_will_be_cut_are_counted_by_language_once_they_are_here(values):
    assert "are cut; plan counts them once" in rows(PAPER)["cut"]["what"]
    short = {**values["model"], "query_max_length": 8, "passage_max_length": 5}
    said = rows(config.parse({**values, "model": short}))["cut"]["what"]
    assert re.fullmatch(r"no queries at 8 tokens, of 20; \d+ of 40 documents are cut at 5 tokens: en \d+ of 40", said)


def test_texts_of_collections_that_rule_collections_made_are_counted(values, tmp_path, monkeypatch):
    settings = config.parse({**values, "model": {**values["model"], "query_max_length": 3}})
    experiment = Experiment(settings)
    encoder = Path(experiment.encoder).resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Experiment, "encoder", str(encoder))
    folder = tmp_path / experiment.collections.path / "collections" / "test" / "mine"
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n")
    (folder / "collection.json").write_text(json.dumps({"query_language": "de", "document_language": "en"}))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": "one two three four five six"}) + "\n")
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "1", "text": "one"}) + "\n")
    assert "1 of 1 queries are cut at 3 tokens: de 1 of 1" in rows(settings)["cut"]["what"]


def test_a_training_that_may_end_early_has_its_epochs_at_most():
    patient = PAPER.model_copy(update={"distill": PAPER.distill.model_copy(update={"patience": 3})})
    assert "queries in at most " in rows(patient)["Stage 2"]["what"]
    assert "at most" not in rows(patient)["Stage 1"]["what"] + rows(PAPER)["Stage 2"]["what"]


def test_where_a_finished_model_is_measured_no_training_is_planned():
    found = rows(config.load(ROOT / "config" / "released.yaml"))
    assert [*found] == ["encoding", "cut"] and not found["encoding"]["what"].startswith("0 ")

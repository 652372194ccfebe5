"""Experiments, their variants and what they share."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from miniature import ROOT
from test_config import DEMO, USER_FILES, demo

from milco import experiments
from milco.config import parse, parse_all, read_yaml
from milco.config.reading import merge
from milco.errors import MilcoError
from milco.experiments import Experiment, Node


def variants(values: dict, **experiments: dict) -> list[Experiment]:
    return [Experiment(config) for config in parse_all({**values, "experiments": experiments})]


def test_a_variant_is_the_experiment_with_its_changes(values):
    base, variant = variants(values, flops={"distill": {"sparse_reg": "flops"}})
    assert (base.name, variant.name) == ("miniature", "miniature-flops")
    changed = {**values, "experiment": "miniature-flops", "distill": {**values["distill"], "sparse_reg": "flops"}}
    assert variant.config == parse(changed)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("demo-*.yaml")), ids=lambda path: path.stem)
def test_each_configuration_beside_the_demo_s_is_read_over_it_and_trains_anew(path):
    both = merge(read_yaml(ROOT / "config" / "demo.yaml"), read_yaml(path))
    (demo, *_), found = parse_all(read_yaml(ROOT / "config" / "demo.yaml")), parse_all(both)
    trained = {Experiment(config).distill for config in found} - {Experiment(demo).distill}
    assert len(trained) == (0 if path.stem == "demo-baselines" else len(found) - ("experiments" in both))


def test_lists_are_replaced_and_sources_merged(values):
    more = {"uri": "file:other.tsv", "format": "pairs", "language": "xx"}
    (_, variant) = variants(values, more={"sources": {"more": more}, "align": {"train_datasets": ["more"]}})
    assert variant.config.align.train_datasets == ["more"]
    assert variant.config.sources.keys() == {*values["sources"], "more"}


def test_what_a_variant_does_not_change_lies_where_the_experiment_has_it(values):
    base, no_echo, longer = variants(
        values, **{"no-echo": {"model": {"echo": False}}, "longer": {"align": {"num_train_epochs": 3}}}
    )
    shared = {node.label for node in set(base.nodes) & set(no_echo.nodes)}
    assert {"corpora", "tokenize", "teacher", "mine", "pack", "align", "evaluate align", "evaluate bm25"} <= shared
    assert {"distill", "evaluate distill", "index", "prune"} & shared == set()
    assert base.encoder == no_echo.encoder and base.results != no_echo.results and base.settings != no_echo.settings
    assert base.tokens == longer.tokens and base.align != longer.align


def test_without_an_echo_there_is_no_source_view_to_weigh(values):
    weighed = {**values, "evaluate": {**values["evaluate"], "source_weights": [0.5]}}
    base, no_echo = variants(weighed, **{"no-echo": {"model": {"echo": False}}})
    assert base.config.systems()[-3:] == ["distill", "distill-pivot", "distill-source-0.5"]
    assert no_echo.config.systems()[-1] == "distill"
    assert base.vectors["distill-source-0.5"] == base.vectors["distill"]
    assert base.runs["distill-source-0.5"] != base.runs["distill"]


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({"x": {"model": {"ecko": False}}}, r"experiments\.x: model\.ecko: unknown key"),
        ({"x": {"distill": 3}}, r"experiments\.x: distill: .*valid dictionary"),
        ({"Große Gruppe": {}}, r"experiments\.Große Gruppe"),
        ({"x": {"align": {"train_datasets": ["nowhere"]}}}, r"experiments\.x: align\.train_datasets: no source"),
    ],
)
def test_a_wrong_variant_is_named(values, experiments, message):
    with pytest.raises(MilcoError, match=message):
        parse_all({**values, "experiments": experiments})


def keys(changes: dict | None = None) -> dict[str, str]:
    """Label of every node → its key."""
    found = Experiment(parse(demo(changes)))
    nodes = [found.corpora, found.tokens, found.targets, found.align, found.triples, found.packed, found.distill]
    nodes += [found.collections, found.overlap]
    nodes += [*found.vectors.values(), *found.runs.values(), found.index, found.pruning]
    return {node.label: node.key for node in nodes}


def stages_that_change(changes: dict, base: dict | None = None) -> set[str]:
    base = {"corpora/decontaminate_for": ["home-assistant"], **(base or {})}
    before, after = (
        {s: k for s, k in found.items() if " distill-" not in s} for found in (keys(base), keys(base | changes))
    )
    assert before.keys() == after.keys()
    return {stage for stage in before if before[stage] != after[stage]}


AFTER_DISTILL = {"distill", "encode distill", "evaluate distill", "index", "prune"}
AFTER_ALIGN = {"align", "encode align", "evaluate align"} | AFTER_DISTILL
DENSE = {"encode dense", "evaluate dense"}
ENCODER = {"tokenize", "pack", "evaluate bm25"} | DENSE | AFTER_ALIGN
TEACHER = {"teacher", "mine", "pack", "overlap", "encode teacher", "evaluate teacher"} | AFTER_ALIGN
SEARCHED = {"encode teacher", "evaluate teacher", "evaluate bm25", "collections"} | DENSE
TEXT = {"corpora", "tokenize", "teacher", "mine", "pack", "overlap"} | AFTER_ALIGN
EVERYTHING = SEARCHED | TEXT
COLLECTIONS = (
    {"collections", "overlap"}
    | {f"{rule} {system}" for rule in ("encode", "evaluate") for system in ("teacher", "dense", "align", "distill")}
    | {"evaluate bm25", "index", "prune"}
)  # and no weight
QUIZ = {"uri": "file:quiz", "format": "beir", "language": "de", "document_language": "en"}
ANOTHER = {"sources/quiz": QUIZ, "corpora/decontaminate_for": ["home-assistant"]}
CHANGES = {
    "name of the experiment": ({"experiment": "other"}, set()),
    "weight of the queries' regularizer": ({"distill/lambda_q": 0.5}, AFTER_DISTILL),
    "group size": ({"distill/train_group_size": 8}, AFTER_DISTILL),
    "LexEcho": ({"model/echo": False}, AFTER_DISTILL),
    "LexEcho as the authors' code has it": (
        {"model/echo_scale_trained": True, "model/echo_special_tokens": True},
        AFTER_DISTILL,
    ),
    "LexEcho with punctuation": ({"model/echo_wordless_pieces": True}, AFTER_DISTILL),
    "InfoNCE instead of distillation": (
        {"distill/distillation_weight": 0, "distill/contrastive_weight": 1.0},
        AFTER_DISTILL,
    ),
    "rate of Stage 1": ({"align/learning_rate": 0.5}, AFTER_ALIGN),
    "mean over all terms of some pairs": (
        {"align/alignment_loss": "active", "align/pairs_per_mean": 2},
        AFTER_ALIGN,
    ),
    "raw targets": (
        {"align/alignment_loss": "active", "align/target": "raw"},
        {"teacher", "mine", "pack", "overlap"} | AFTER_ALIGN,
    ),
    "what a look sees": (
        {"evaluate/development_documents": 9, "evaluate/development_queries": 9, "evaluate/examples": {"de": "Hallo"}},
        set(),
    ),
    "steps between looks": ({"align/eval_steps": 7, "distill/eval_steps": 7}, set()),
    "layers": ({"model/encoder_layers": 2}, AFTER_ALIGN),
    "mined negatives": ({"distill/hard_negatives": 2}, {"mine", "pack", "overlap"} | AFTER_DISTILL),
    "a first round that mines": ({"distill/miner": "distill"}, {"mine", "pack", "overlap"} | AFTER_DISTILL),
    "cross-encoder": (
        {"sources/reranker": USER_FILES["reranker"], "distill/scorer": "reranker"},
        {"mine", "pack", "overlap"} | AFTER_DISTILL,
    ),
    "length in Stage 1": ({"align/max_length": 16}, {"tokenize", "teacher", "mine", "pack", "overlap"} | AFTER_ALIGN),
    "length of a document": (
        {"model/passage_max_length": 16},
        {"pack", "encode teacher", "evaluate teacher", "evaluate bm25"} | DENSE | AFTER_ALIGN,
    ),
    "prefix of the dense baseline": ({"evaluate/dense_query_prefix": ""}, DENSE),
    "measures": (
        {"sources/home-assistant/measures": ["nDCG@20"]},
        {f"evaluate {system}" for system in ("bm25", "teacher", "dense", "align", "distill")} | {"prune"},
    ),
    "a measure more": (
        {"sources/home-assistant/measures": ["nDCG@10", "R@9"]},
        {f"evaluate {system}" for system in ("bm25", "teacher", "dense", "align", "distill")},
    ),
    "what is compared": ({"evaluate/compared_collections": ["home-assistant"]}, {"prune"}),
    "the measure that is compared": ({"evaluate/compared_measure": "R@100"}, {"prune"}),
    "chunks": ({"sources/home-assistant/chunk_tokens": 64}, COLLECTIONS),
    "languages of the queries": ({"eval_languages": ["de"]}, COLLECTIONS),
    "a test collection more": (ANOTHER | {"evaluate/test_collections": ["home-assistant", "quiz"]}, COLLECTIONS),
    "a test collection more, taken out": (
        ANOTHER | {"evaluate/test_collections": ["home-assistant", "quiz"], "corpora/decontaminate_for": "all"},
        EVERYTHING,
    ),
    "other development collections": (
        ANOTHER | {"evaluate/development_collections": ["home-assistant", "quiz"]},
        set(),
    ),
    "cleaning": ({"sources/home-assistant/cleaning": "sentences"}, EVERYTHING),
    "cap": ({"sources/home-assistant/max_pairs": 1000}, EVERYTHING),
    "budgets": ({"evaluate/top_k": [7]}, {"prune"}),
    "budgets of queries": ({"evaluate/query_mass": [0.6]}, {"prune"}),
    "what is exported and published": (
        {"export": {"prune_documents": "auto"}, "publish": {"repo": "owner/name", "vectors": True}},
        set(),
    ),
    "baselines": ({"evaluate/baselines": ["bm25"]}, set()),
    "encoder": ({"sources/e5-small/sha256": "0" * 64}, ENCODER),
    "tokenizer": ({"sources/e5-tokenizer/sha256": "0" * 64}, ENCODER),
    "teacher": ({"sources/splade-tiny/sha256": "0" * 64}, TEACHER),
    "text": ({"sources/home-assistant/sha256": "0" * 64}, EVERYTHING),
    "languages": ({"languages": ["de", "ja"], "eval_languages": ["de"]}, EVERYTHING),
    "queries of a known-item collection": ({"corpora/max_queries": 9}, COLLECTIONS),
    "how the queries of a collection are read": (
        ANOTHER
        | {
            "sources/quiz/lowercase_queries": True,
            "sources/quiz/ignore_identical_ids": True,
            "evaluate/test_collections": ["home-assistant", "quiz"],
        },
        COLLECTIONS,
    ),
    "source that nothing uses": ({"sources/pairs": USER_FILES["pairs"]}, set()),
    "memory of one process in Stage 1": (
        {"align/max_tokens_per_device": 8, "align/gradient_checkpointing": True, "align/dataloader_num_workers": 1},
        set(),
    ),
    "attention": ({"model/attn_implementation": "sdpa"}, set()),
    "checkpoints and log": ({"align/save_steps": 7, "distill/logging_steps": 7}, set()),
    "tracking": ({"tracking": "tensorboard"}, set()),
    "batch of the evaluation": ({"evaluate/batch_size": 8}, set()),
}


@pytest.mark.parametrize("case", CHANGES)
def test_change_runs_exactly_the_stages_again_that_it_decides(case):
    changes, stages = CHANGES[case]
    assert stages_that_change(changes) == stages


def test_negatives_of_a_contrast_that_has_no_weight_change_no_model():
    without = {"align/contrastive_weight": 0.0}
    assert keys({**without, "align/contrastive_texts": 9}) == keys(without)


def test_languages_of_evaluation_train_nothing_anew_where_no_known_items_are_asked(values):
    for keep in ("last", "best"):
        training = {stage: {**values[stage], "keep": keep} for stage in ("align", "distill")}
        before, after = (
            Experiment(parse({**values, **training, "eval_languages": languages}))
            for languages in (["xx"], ["xx", "yy"])
        )
        assert before.nodes == after.nodes


def test_each_use_of_bfloat16_on_a_gpu_without_it_is_named(values, monkeypatch):
    monkeypatch.setattr(experiments, "gpu_without_bf16", lambda: "Tesla T4")
    Experiment(parse(values)).check_precision()
    for section, change, said in (
        ("align", {"bf16": True}, "align.bf16: Tesla T4 has no bfloat16; set it to false"),
        (
            "align",
            {"teacher_precision": "bf16"},
            "align.teacher_precision: Tesla T4 has no bfloat16; set it to float32",
        ),
        ("evaluate", {"bf16": True}, "evaluate.bf16: Tesla T4 has no bfloat16; set it to false"),
    ):
        with pytest.raises(MilcoError, match=f"^{re.escape(said)}$"):
            Experiment(parse({**values, section: {**values[section], **change}})).check_precision()


def test_development_collections_are_encoded_where_a_budget_is_chosen_on_them():
    def made(changes: dict) -> set[str]:
        return {node.label for node in Experiment(parse(demo(changes))).nodes}

    chosen = made({"export": {"prune_queries": "auto"}})
    assert chosen - made({}) == {"development tune", "encode development", "tune"}
    assert made({"export": {"prune_queries": "top-k 9"}}) == made({})


def test_a_connector_is_part_of_stage_2_alone():
    bare = {"distill/pretrained_alignment_checkpoint": "none", "model/echo": False, "model/freeze_pivot_head": False}
    with_one, without = keys(bare), keys({**bare, "model/connector": False})
    assert {stage for stage in without if without[stage] != with_one[stage]} == AFTER_DISTILL


def test_without_stage_1_its_settings_do_not_matter_to_stage_2():
    bare = {"distill/pretrained_alignment_checkpoint": "none"}
    assert keys(bare)["distill"] == keys({**bare, "align/learning_rate": 0.5})["distill"]


def test_without_stage_1_its_kept_start_still_matters_to_stage_2():
    starts = {"none": {}, "kept": {"sources/kept": {"uri": "file:kept", "format": "transformers"}}}
    found = {
        keys({**source, "distill/pretrained_alignment_checkpoint": start})["distill"]
        for start, source in starts.items()
    }
    assert len(found | {keys()["distill"]}) == 3


def test_without_stage_1_the_encoder_still_matters_to_stage_2():
    bare = {"distill/pretrained_alignment_checkpoint": "none"}
    assert keys(bare)["distill"] != keys({**bare, "sources/e5-small/sha256": "0" * 64})["distill"]


def download(**changes) -> Node:
    source = {f"sources/home-assistant/{key}": value for key, value in changes.items()}
    return Experiment(parse(demo(source))).downloads["home-assistant"]


def test_what_is_made_of_a_source_does_not_fetch_it_again():
    before = download()
    later = {"measures": ["R@2"], "chunk_tokens": 64, "max_pairs": 1000, "cleaning": "none"}
    later |= {"lowercase_queries": True, "lowercase_documents": True}
    assert download(**later) == before
    assert download(language="de") != before


def test_keys_are_the_same_in_another_process():
    program = (
        "import sys; from milco.config import load; from milco.experiments import Experiment; from pathlib import "
    )
    program += "Path; found = Experiment(load(Path(sys.argv[1]))); print(found.distill.key, found.pruning.key)"
    command = [sys.executable, "-c", program, str(DEMO)]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [keys()["distill"], keys()["prune"]]


@pytest.mark.parametrize(
    ("miner", "change", "again"),
    [
        ("align", {"align/learning_rate": 0.5}, True),
        ("distill", {"distill/lambda_q": 0.5}, True),
        ("kept", {"sources/kept/uri": "file:other"}, True),
        ("kept", {"evaluate/bf16": False}, True),
        ("kept", {"model/passage_max_length": 64}, True),
        ("kept", {"distill/lambda_q": 0.5}, False),
        ("teacher", {"evaluate/bf16": False}, False),
        ("teacher", {"model/passage_max_length": 64}, False),
    ],
)
def test_triples_are_mined_again_when_their_miner_changes(miner, change, again):
    settings = {"sources/kept": {"uri": "file:kept", "format": "transformers"}, "distill/miner": miner}
    assert (keys(settings)["mine"] != keys(settings | change)["mine"]) == again


def test_the_seed_of_a_first_round_decides_what_it_mines():
    twice = {"distill/miner": "distill"}
    assert keys(twice)["mine"] != keys({**twice, "seed": 1})["mine"]


def test_what_the_user_s_files_hold_decides_what_is_made_of_them(values, tmp_path):
    data = tmp_path / "my data"
    shutil.copytree(Path(values["sources"]["mine"]["uri"].removeprefix("file:")), data / "collection")
    sources = {**values["sources"], "mine": {**values["sources"]["mine"], "uri": f"file:{data}/collection"}}
    before = Experiment(parse({**values, "sources": sources}))
    os.utime(data / "collection")
    assert Experiment(before.config).nodes == before.nodes
    with (data / "collection" / "qrels" / "test.tsv").open("a") as file:
        file.write("q0\td1\t1\n")
    after = Experiment(before.config)
    assert after.collections != before.collections and after.corpora == before.corpora


SEEDLESS = {"encode teacher", "encode dense", "evaluate bm25", "evaluate teacher", "evaluate dense"}
DATA = {"corpora", "tokenize", "teacher", "collections", "overlap"} | SEEDLESS  # what no training decides
MINED = {"mine", "pack"}


@pytest.mark.parametrize(("miner", "shared"), [("teacher", DATA | MINED), ("align", DATA - {"overlap"})])
def test_seeds_share_what_no_training_decides(miner, shared):
    found = Experiment(parse(demo({"seeds": [5, 6], "distill/miner": miner})))
    first, second = found.seeds.values()
    assert list(found.seeds) == [5, 6] and first is found
    assert (second.name, second.config.training_seed) == ("demo-seed-6", 6)
    assert second.config.other_seeds() == []

    def nodes(experiment: Experiment) -> dict[str, str]:
        skipped = ("fetch", "convert", "development")
        return {node.label: node.path for node in experiment.nodes if node.rule not in skipped}

    one, two = nodes(first), nodes(second)
    both = {label for label in one if one[label] == two[label]}
    assert one.keys() == two.keys() and both == shared


def test_one_seed_is_that_of_a_training_without_seeds():
    assert keys({"seeds": [42]}) == keys() == keys({"seeds": [42, 1, 2]})
    assert stages_that_change({"seeds": [1]}) == AFTER_ALIGN
    assert stages_that_change({"seed": 1}) == EVERYTHING


def test_a_seed_mines_with_a_first_round_of_its_own():
    found = Experiment(parse(demo({"seeds": [5, 6], "distill/miner": "distill"})))
    rounds = [experiment.first_round for experiment in found.seeds.values()]
    assert [first.name for first in rounds] == ["demo-first-round", "demo-seed-6-first-round"]
    assert rounds[0].distill != rounds[1].distill and rounds[0].triples == rounds[1].triples


def test_a_system_has_runs_of_every_seed_that_decides_it():
    found = Experiment(parse(demo({"seeds": [5, 6], "evaluate/source_weights": [2]})))
    repeated = [system for system in found.config.systems() if list(found.runs_of(system)) == [5, 6]]
    assert repeated == ["align", "distill", "distill-pivot", "distill-source-2"]
    assert [list(found.runs_of(system)) for system in ("bm25", "teacher", "dense")] == [[5]] * 3
    assert found.runs_of("distill")[6] == found.seeds[6].runs["distill"] != found.runs["distill"]


def test_a_variant_is_trained_with_the_seeds_of_the_experiment_or_its_own(values):
    flops = {"distill": {"sparse_reg": "flops"}}
    found = variants({**values, "seeds": [1, 2]}, flops=flops, once={**flops, "seeds": [2]})
    assert [list(experiment.seeds) for experiment in found] == [[1, 2], [1, 2], [2]]
    assert found[1].seeds[2].name == "miniature-flops-seed-2" and found[1].seeds[2].distill == found[2].distill


def test_no_variant_has_the_name_of_a_further_seed(values):
    with pytest.raises(MilcoError, match=r"experiments\.seed-2: seeds makes an experiment of that name"):
        variants({**values, "seeds": [1, 2]}, **{"seed-2": {}})


def test_a_finished_model_is_trained_with_no_seed():
    finished = {
        key: value for key, value in demo({"seeds": [1]}).items() if key not in ("languages", "align", "distill")
    }
    finished |= {"eval_languages": [], "export": {}, "corpora": {}}
    finished["evaluate"] = {**finished["evaluate"], "model": "splade-tiny"}
    with pytest.raises(MilcoError, match=r"seeds: nothing is trained where evaluate\.model names a finished model"):
        parse(finished)


SEEN = [
    {"evaluate/development_queries": 9},
    {"evaluate/development_documents": 9},
    {"align/eval_steps": 7, "distill/eval_steps": 7},
    ANOTHER | {"evaluate/development_collections": ["home-assistant", "quiz"]},
]
UNSEEN = [{"evaluate/examples": {"de": "Hallo"}}, {"sources/home-assistant/measures": ["nDCG@10", "R@9"]}]


@pytest.mark.parametrize("setting", [{"keep": "best"}, {"patience": 2}, {"keep": "best", "patience": 2}])
@pytest.mark.parametrize(("stage", "decided"), [("align", AFTER_ALIGN), ("distill", AFTER_DISTILL)])
def test_what_looks_see_decides_where_the_best_look_is_kept(stage, decided, setting):
    keeping = {f"{stage}/{key}": value for key, value in setting.items()}
    assert stages_that_change(keeping) == decided
    for change in SEEN:
        assert stages_that_change(change, base=keeping) == decided, change
    for change in UNSEEN:
        assert not stages_that_change(change, base=keeping) & {"align", "distill"}, change


def test_the_last_weights_are_kept_by_default():
    assert keys({"align/keep": "last", "distill/keep": "last", "align/patience": None}) == keys()


def test_what_a_development_collection_holds_decides_where_the_best_look_is_kept(values, tmp_path):
    data = tmp_path / "looked at"
    shutil.copytree(Path(values["sources"]["mine"]["uri"].removeprefix("file:")), data)
    mine = values["sources"]["mine"]
    looked_at = {"development_collections": ["looks"], "test_collections": ["mine"]}
    whole = {
        **values,
        "sources": {**values["sources"], "looks": {**mine, "uri": f"file:{data}"}},
        "evaluate": {**values["evaluate"], **looked_at},
        "experiments": {"best": {"distill": {"keep": "best"}}},
    }
    before = [Experiment(config) for config in parse_all(whole)]
    one = [(experiment.align.key, experiment.distill.key) for experiment in before]
    with (data / "qrels" / "dev.tsv").open("a") as file:
        file.write("q0\td1\t1\n")
    (last, best), (wanted, other) = (
        [(experiment.align.key, experiment.distill.key) for experiment in map(Experiment, [e.config for e in before])],
        one,
    )
    assert last == wanted and best[0] == other[0] and best[1] != other[1]


def test_the_order_of_collections_and_how_much_is_taken_out_of_nothing_train_nothing_again():
    quiz = {"sources/quiz": QUIZ, "corpora/decontaminate_for": "all"}
    one, other = (
        keys(quiz | {"evaluate/test_collections": names})
        for names in (["home-assistant", "quiz"], ["quiz", "home-assistant"])
    )
    assert {stage for stage in one if one[stage] != other[stage]} <= COLLECTIONS | {"evaluate distill-pivot"}
    nothing = {"corpora/decontaminate_for": "none"}
    assert keys(nothing) == keys(nothing | {"corpora/decontaminate": "all"})


def test_a_path_that_is_written_otherwise_or_has_moved_is_the_same_source(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = shutil.copytree(
        Path(values["sources"]["mine"]["uri"].removeprefix("file:")), tmp_path / "data" / "collection"
    )
    shutil.copytree(data, tmp_path / "moved" / "collection")

    def nodes(uri: str) -> list[Node]:
        sources = {**values["sources"], "mine": {**values["sources"]["mine"], "uri": uri}}
        return Experiment(parse({**values, "sources": sources})).nodes

    wanted = nodes(f"file:{data}")
    assert all(
        nodes(f"file:{place}") == wanted for place in ("data/collection", "./data/collection/", "moved/collection")
    )
    (tmp_path / "moved" / "collection").rename(tmp_path / "moved" / "other")
    assert nodes("file:moved/other") != wanted


@pytest.mark.parametrize("start", ["none", "kept"])
def test_what_a_miner_looked_at_belongs_to_the_settings_without_a_stage_1_of_their_own(start):
    kept = {"sources/kept": {"uri": "file:model", "format": "transformers"}} if start == "kept" else {}
    changes = {"distill/miner": "align", "distill/pretrained_alignment_checkpoint": start, **kept}
    experiment = Experiment(parse(demo(changes)))
    experiment.check_key(Path(experiment.development(experiment.align).path))

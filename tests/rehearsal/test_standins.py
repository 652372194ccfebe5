"""The stand-ins have every repository, subset and split that the files name, and the traits of the real ones."""

import fnmatch
import io
import json
import os
import subprocess
import sys
import unicodedata
import urllib.error
import urllib.request
from pathlib import Path

import hub as loopback
import mteb
import pandas as pd
import pytest
import standins
import tiny_models
import yaml
from phrases import TEXTS, questions, sentences

from milco import config
from milco.config.reading import merge
from milco.data.text import clean, comparable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMED = [ROOT / "config" / "milco.yaml", ROOT / "config" / "ablations.yaml"]
SOURCES = {name: source for path in NAMED for name, source in yaml.safe_load(path.read_text())["sources"].items()}
MTEB = {name: source for name, source in SOURCES.items() if source["format"] == "mteb"}
# First words of the Unicode names of letters.
SCRIPTS = {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "THAI",
           "KHMER", "GEORGIAN", "ETHIOPIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL"}  # fmt: skip


@pytest.fixture(scope="module")
def hub():
    with loopback.running() as running:
        standins.fill(running)
        yield running


def files(hub: loopback.Hub, name: str, revision: str = "main") -> dict[str, bytes]:
    """A repository at a commit that must be there."""
    repository = hub.repositories[name]
    return repository.commits[repository.resolve(revision)]


def configurations(there: dict[str, bytes]) -> dict[str, dict[str, list[str]]]:
    """Configuration → split → files, as the card of a dataset says; without a card, `default` and train."""
    said = yaml.safe_load(there["README.md"].decode().split("---\n")[1]).get("configs")
    if said is None:
        return {"default": {"train": [path for path in there if path.startswith("data/train-")]}}
    return {
        part["config_name"]: {
            file["split"]: fnmatch.filter(there, file["path"]) for file in part["data_files"]
        } for part in said
    }  # fmt: skip


def read(there: dict[str, bytes], paths: list[str]) -> pd.DataFrame:
    assert paths
    return pd.concat([
        pd.read_parquet(io.BytesIO(there[path])) if path.endswith(".parquet")
        else pd.DataFrame(map(json.loads, there[path].decode().splitlines()))
        for path in paths
    ])  # fmt: skip


def table(hub: loopback.Hub, name: str, subset: str = "default") -> pd.DataFrame:
    there = files(hub, f"datasets/{name}")
    return read(there, configurations(there)[subset]["train"])


def parts(hub: loopback.Hub, task: str, subset: str = "default", split: str | None = None) -> list[pd.DataFrame]:
    """Corpus, queries and qrels of a task, found as mteb finds them, with the ids in a column `id`."""
    about = mteb.get_task(task).metadata
    there = files(hub, f"datasets/{about.dataset['path']}", about.dataset["revision"])
    known, prefix = configurations(there), "" if subset == "default" else f"{subset}-"
    found = []
    for kind in ("corpus", "queries", "default" if subset == "default" else "qrels"):
        splits = known[prefix + kind]
        paths = splits.get(split or about.eval_splits[0]) or (next(iter(splits.values())) if len(splits) == 1 else [])
        found.append(read(there, paths).rename(columns={"_id": "id"}))
    return found


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source["format"] in ("pairs", "triples")])
def test_tables_have_their_subsets_and_columns(hub, name):
    source = SOURCES[name]
    subsets = source.get("subsets", {"default": None})
    if name == "ccmatrix" and "all" in subsets:  # which the real one does not have
        subsets = {f"en-{language}": language for language in standins.CCMATRIX}
    columns = {"pairs": ["english", "non_english"], "triples": ["query", "pos", "neg", "pos_scores", "neg_scores"]}
    for subset in subsets:
        rows = table(hub, source["uri"].removeprefix("hf:"), subset)
        assert len(rows) and set(columns[source["format"]]) <= set(rows)


def test_ccmatrix_has_a_subset_for_each_language_and_none_of_all(hub):
    there = configurations(files(hub, "datasets/sentence-transformers/parallel-sentences-ccmatrix"))
    assert {"en-ar", "en-de", "en-ko", "en-or", "en-zh"} <= set(there) and "all" not in there and len(there) > 60


@pytest.mark.parametrize("name", MTEB)
def test_tasks_have_all_subsets_in_the_split_that_is_read(hub, name):
    source = MTEB[name]
    task, about = source["uri"].removeprefix("mteb:"), mteb.get_task(source["uri"].removeprefix("mteb:")).metadata
    for subset in source.get("subsets") or about.hf_subsets:
        for split in [source["split"]] if "split" in source else about.eval_splits:
            corpus, queries, qrels = parts(hub, task, subset, split)
            assert 5 < len(corpus) < 40 and 3 <= len(queries) <= 6
            assert corpus.id.is_unique and queries.id.is_unique
            relevant = qrels[qrels.score > 0]
            assert set(relevant["query-id"]) >= set(queries.id) and set(relevant["corpus-id"]) & set(corpus.id)


def test_every_script_stands_in_one_table(hub):
    for name in ("opensubtitles", "jw300", "wikimatrix", "talks", "tatoeba"):
        rows = table(hub, f"sentence-transformers/parallel-sentences-{name}", "all")
        found = {unicodedata.name(letter, "").split(" ")[0] for text in rows.non_english for letter in text}
        assert set(rows) == {"english", "non_english"} and found >= SCRIPTS, SCRIPTS - found


def test_some_triples_have_fewer_negatives_than_a_group_wants(hub):
    for name in ("bge-multilingual-distillation-dataset", "bge-retrieval-distillation-qwen3-4b"):
        rows = table(hub, f"omai-research/{name}")
        assert {"query", "pos", "neg", "pos_scores", "neg_scores"} == set(rows)
        sizes = rows.neg.map(len)
        assert 0 < (sizes < 7).sum() < len(rows) and (rows.neg_scores.map(len) == sizes).all()
        assert (rows.pos_scores.map(len) == rows.pos.map(len)).all()


def test_people_are_the_ids_of_limit(hub):
    corpus, _, qrels = parts(hub, "LIMITRetrieval")
    assert all(" " in name for name in corpus.id)
    assert any("  " in name for name in corpus.id)  # not what is left when white space is made one blank
    assert qrels["query-id"].value_counts().tolist() == [2] * 4


def test_documents_and_queries_are_judged_that_are_nowhere(hub):
    corpus, queries, qrels = parts(hub, "ClimateFEVER")
    gone = qrels[~qrels["corpus-id"].isin(corpus.id)]
    assert gone.score.tolist() == [1] and gone["query-id"].isin(queries.id).all()
    corpus, queries, qrels = parts(hub, "NFCorpus")
    gone = qrels[~qrels["query-id"].isin(queries.id)]
    assert gone.score.tolist() == [2] and gone["corpus-id"].isin(corpus.id).all()


def test_queries_of_arguana_are_documents(hub):
    corpus, queries, _ = parts(hub, "ArguAna")
    assert mteb.get_task("ArguAna").ignore_identical_ids
    assert queries.text.tolist() == corpus.set_index("id").text[queries.id].tolist()


def test_neuclir_asks_in_english(hub):
    for year in (2022, 2023):
        for subset, language in standins.SUBSETS.items():
            if subset in ("fas", "rus", "zho"):
                corpus, queries, qrels = parts(hub, f"NeuCLIR{year}Retrieval", subset)
                assert set(queries.text) <= set(questions("en")) and set(qrels.score) == {0, 3}
                assert all(text.startswith(tuple(sentences(language))) for text in corpus.text)


def test_documents_of_msmarco_are_the_passages_of_mmarco(hub):
    corpus, _, qrels = parts(hub, "MSMARCO", split="dev")
    passages = {text for language in standins.MMARCO
                for text in table(hub, "omai-research/parallel_mmarco_passage", f"en_{language}").english}  # fmt: skip
    found = corpus[corpus.text.isin(passages)]
    assert set(found.text) == passages
    assert 0 < found.id.isin(qrels["corpus-id"]).sum() < len(found) / 4


def test_long_documents_have_more_tokens_than_a_chunk(hub):
    tokenizer = tiny_models.source_tokenizer()
    for subset in mteb.get_task("MultiLongDocRetrieval").metadata.hf_subsets:
        corpus, _, _ = parts(hub, "MultiLongDocRetrieval", subset, "test")
        lengths = sorted(len(ids) for ids in tokenizer(corpus.text.tolist(), verbose=False).input_ids)
        assert lengths[-2] > 512 > lengths[0], (subset, lengths)


def form(text: str) -> str:
    """A string in the form in which a hold-out that misses nothing compares it."""
    letters = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return comparable(clean(letters)).strip()


def test_strings_of_test_collections_are_in_training_text_where_they_are_meant_to_be(hub):
    tested = set()
    for name in yaml.safe_load(NAMED[0].read_text())["evaluate"]["test_collections"]:
        source = MTEB[name]
        about = mteb.get_task(source["uri"].removeprefix("mteb:")).metadata
        for subset in source.get("subsets") or about.hf_subsets:
            corpus, queries, qrels = parts(hub, about.name, subset, source.get("split"))
            relevant = corpus.id.isin(qrels[qrels.score > 0]["corpus-id"])
            tested |= {form(text) for text in [*queries.text, *corpus[relevant].text]}
    for name in yaml.safe_load(NAMED[0].read_text())["align"]["train_datasets"]:
        source = SOURCES[name]
        rows = pd.concat([table(hub, source["uri"].removeprefix("hf:"), subset) for subset in source["subsets"]])
        leaked = rows[rows.english.map(form).isin(tested) | rows.non_english.map(form).isin(tested)]
        if name == "mmarco-passages":
            assert 0 < len(leaked) < len(rows) / 4
        else:
            found = sorted(leaked[["english", "non_english"]].itertuples(index=False, name=None))
            assert found == sorted(standins.LEAKS.get(name, [])), name


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("BAAI/bge-m3-unsupervised", "XLMRobertaModel"),
        ("FacebookAI/xlm-roberta-large", "XLMRobertaForMaskedLM"),
        ("intfloat/multilingual-e5-large", "XLMRobertaModel"),
    ],
)
def test_encoders_have_the_shape_of_xlm_r(hub, name, architecture):
    about = json.loads(files(hub, f"models/{name}")["config.json"])
    wanted = {"model_type": "xlm-roberta", "architectures": [architecture], "max_position_embeddings": 514,
              "pad_token_id": 1, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}  # fmt: skip
    assert {key: about[key] for key in wanted} == wanted


def test_no_letter_is_unknown_to_the_encoder():
    tokenizer = tiny_models.source_tokenizer()
    assert [tokenizer.convert_ids_to_tokens(place) for place in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    for language in TEXTS:
        assert tokenizer.unk_token_id not in tokenizer(" ".join(sentences(language))).input_ids


def test_the_teacher_is_given_to_those_with_a_token_alone(hub):
    about = json.loads(files(hub, "models/naver/splade-v3")["config.json"])
    assert (about["architectures"], about["max_position_embeddings"]) == (["BertForMaskedLM"], 512)
    address = f"{hub.address}/naver/splade-v3/resolve/main/config.json"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address)
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {standins.TOKEN}"})
    assert json.loads(urllib.request.urlopen(request).read()) == about


def test_they_are_the_same_each_time(hub):
    with loopback.Hub() as again:
        standins.fill(again)
    assert again.blobs == hub.blobs
    assert {name: there.branches for name, there in again.repositories.items()} == {
        name: there.branches for name, there in hub.repositories.items()
    }


PROGRAM = """
import sys; from pathlib import Path; from milco.config import Source; from milco.data.sources import fetch
for name, source in {}.items(): fetch(name, Source(**source), Path(name))
"""


def test_the_real_clients_read_them(hub, tmp_path):
    wanted = {name: SOURCES[name] for name in ("splade-v3", "limit", "neuclir-2022", "cqadupstack-android", "tatoeba")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    environment |= {"HF_TOKEN": standins.TOKEN, "NO_PROXY": "127.0.0.1,localhost"}
    program = [sys.executable, "-c", PROGRAM.format(wanted)]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    there = {path.parent.name for path in tmp_path.glob("*/*/corpus.jsonl")}
    assert there == {"limit", "neuclir-2022-fas", "neuclir-2022-rus", "neuclir-2022-zho", "cqadupstack-android"}
    assert (tmp_path / "splade-v3" / "model.safetensors").exists()


def leaves(values: dict, prefix: tuple = ()) -> dict[tuple, object]:
    found: dict[tuple, object] = {}
    for name, value in values.items():
        found |= leaves(value, (*prefix, name)) if isinstance(value, dict) else {(*prefix, name): value}
    return found


def test_the_overlay_makes_numbers_smaller_and_takes_nothing_away():
    values: dict = {}
    for path in NAMED:
        values = merge(values, yaml.safe_load(path.read_text(encoding="utf-8")))
    changes = yaml.safe_load((Path(__file__).parent / "overlay.yaml").read_text(encoding="utf-8"))
    before, after = config.parse_all(values), config.parse_all(merge(values, changes))
    assert [one.experiment for one in before] == [one.experiment for one in after]
    full = leaves(before[0].model_dump())
    for key, value in leaves(changes).items():
        assert key[0] in ("model", "align", "distill", "evaluate") and key[-1] != "dataloader_num_workers"
        if isinstance(value, list):
            assert set(value) <= set(full[key])
        else:
            assert isinstance(value, int | float) and 0 < value < full[key], key
    for one, other in zip(before, after, strict=True):
        assert one.systems() == other.systems() and one.used_datasets() == other.used_datasets()
        assert (other.align.dataloader_num_workers, other.distill.dataloader_num_workers) == (4, 4)

"""Tasks of mteb as test collections: what is written, what is refused, and that our measures are those of mteb."""

import json
import random
import re
from pathlib import Path

import mteb
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SOURCE_WORDS
from datasets import Dataset
from miniature import build_corpora
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType
from transformers import AutoTokenizer

from milco import config
from milco.data import corpora, mteb_tasks
from milco.data.beir import Collection, read_collection
from milco.data.held_out import HeldOut
from milco.data.mteb_tasks import pooled
from milco.data.sources import fetch
from milco.errors import MilcoError
from milco.evaluation import budgets, index
from milco.evaluation.encode import encode
from milco.evaluation.evaluate import evaluate, run_of
from milco.evaluation.lookup import folders_of
from milco.modeling.model import MilcoModel

pytestmark = pytest.mark.slow

LANGUAGES = {"de": ["deu-Latn"], "fr": ["fra-Latn"]}
CHECKED = {"nDCG@10": "ndcg_at_10", "RR@10": "mrr_at_10", "R@5": "recall_at_5", "nDCG@20": "ndcg_at_20"}


def metadata(**changes) -> TaskMetadata:
    values = {
        "name": "TinyRetrieval",
        "description": "Words look for longer lists of words.",
        "dataset": {"path": "nobody/tiny", "revision": "abc123"},
        "type": "Retrieval",
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": ["dev", "test"],
        "eval_langs": LANGUAGES,
        "main_score": "ndcg_at_10",
        **dict.fromkeys(["reference", "date", "domains", "task_subtypes", "license", "annotations_creators"]),
        **dict.fromkeys(["dialect", "sample_creation", "bibtex_citation"]),
    }
    return TaskMetadata(**{**values, **changes})


def draw(seed: str) -> dict:
    """One subset as mteb keeps it: documents with and without titles, queries, grades from 0 to 2."""
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(SOURCE_WORDS, k=chance.randint(3, 12))) for _ in range(60)]
    corpus = [{"id": f"d{n}", "title": chance.choice(["", "Haus"]), "text": text} for n, text in enumerate(texts)]
    queries = [{"id": f"q{n}", "text": " ".join(chance.sample(texts[n].split(), 3))} for n in range(15)]
    relevant = {
        f"q{n}": {f"d{n}": 2, **{f"d{chance.randrange(15, 60)}": grade for grade in (0, 1, 1)}} for n in range(15)
    }
    tables = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries)}
    return {**tables, "relevant_docs": relevant, "top_ranked": None}


class Tiny(AbsTaskRetrieval):
    metadata = metadata()

    def load_data(self, **arguments) -> None:
        self.dataset = {
            subset: {split: draw(f"{subset} {split}") for split in self.eval_splits} for subset in self.hf_subsets
        }
        self.data_loaded = True


class Encoder:
    """A model as mteb wants to see it."""

    mteb_model_meta = None

    def __init__(self, model: MilcoModel):
        self.model = model

    def encode(self, inputs, *, prompt_type, **arguments) -> np.ndarray:
        texts = [text for batch in inputs for text in batch["text"]]
        if prompt_type == PromptType.query:
            return self.model.encode_query(texts).toarray()
        return self.model.encode_document(texts).toarray()

    def similarity(self, queries, documents) -> torch.Tensor:
        return torch.as_tensor(queries) @ torch.as_tensor(documents).T

    def similarity_pairwise(self, queries, documents) -> torch.Tensor:
        return (torch.as_tensor(queries) * torch.as_tensor(documents)).sum(dim=1)


@pytest.fixture
def known(monkeypatch) -> dict[str, type]:
    """Tasks that mteb knows beside its own."""
    tasks: dict[str, type] = {"TinyRetrieval": Tiny}
    own = mteb.get_task

    def get_task(name, eval_splits=None, hf_subsets=None):
        if name not in tasks:
            return own(name)
        return tasks[name]().filter_eval_splits(eval_splits).filter_languages(None, hf_subsets=hf_subsets)

    monkeypatch.setattr(mteb, "get_task", get_task)
    return tasks


def source(**changes) -> config.Source:
    return config.Source.model_validate({"uri": "mteb:TinyRetrieval", "format": "mteb", **changes})


def settings(values: dict, **changes) -> config.Config:
    """The miniature experiment with the task `tiny` for a test collection; texts are cut where the model cuts them."""
    tiny = {"uri": "mteb:TinyRetrieval", "format": "mteb", **changes}
    return config.parse(
        {
            **values,
            "sources": {**values["sources"], "tiny": tiny},
            "model": {**values["model"], "query_max_length": 8, "passage_max_length": 16},
            "corpora": {"decontaminate_for": "all"},
            "evaluate": {**values["evaluate"], "test_collections": ["tiny"], "development_collections": []},
            "export": {},
        }
    )


def built(experiment: config.Config, encoder: Path, folder: Path) -> Path:
    """The test collections of an experiment, fetched and turned into artifacts."""
    fetch("tiny", experiment.sources["tiny"], folder / "tiny")
    sources = {"tiny": folder / "tiny"}
    for name in ("pairs", "triples"):
        sources[name] = Path(experiment.sources[name].uri.removeprefix("file:"))
    build_corpora(experiment, sources, folder / "corpora", encoder)
    return folder / "corpora" / "collections" / "test"


def measured(experiment: config.Config, collections: Path, model: Path, encoder: Path, folder: Path) -> pd.DataFrame:
    encode(experiment, "distill", model, collections, folder / "vectors")
    evaluate(experiment, "distill", collections, folder / "vectors", encoder, folder / "runs")
    return pd.read_parquet(folder / "runs" / "measures.parquet")


def refusal(name: str = "tiny", **changes) -> str:
    with pytest.raises(MilcoError) as error:
        fetch(name, source(**changes), Path("nowhere"))
    assert "\n" not in str(error.value) and not Path("nowhere").exists()
    return str(error.value)


def test_each_subset_becomes_a_folder_that_says_where_it_is_from(known, tmp_path):
    fetch("tiny", source(subsets={"de": "de"}, document_language="en"), tmp_path / "tiny")
    fetch("all", source(split="dev"), tmp_path / "all")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["tiny-de"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["all-de", "all-fr"]
    assert json.loads((tmp_path / "tiny" / "tiny-de" / "collection.json").read_text()) == {
        "query_language": "de",
        "document_language": "en",
        "task": "TinyRetrieval",
        "subset": "de",
        "split": "test",
        "dataset": "nobody/tiny",
        "revision": "abc123",
        "measure": "ndcg_at_10",
        "ignore_identical_ids": False,
    }
    about = read_collection(tmp_path / "all" / "all-fr").about
    assert [about[key] for key in ("query_language", "document_language", "split")] == ["fr", "fr", "dev"]


def test_texts_titles_and_grades_arrive_as_they_are(known, tmp_path):
    fetch("tiny", source(), tmp_path / "tiny")
    found, wanted = read_collection(tmp_path / "tiny" / "tiny-fr"), draw("fr test")
    assert found.qrels == wanted["relevant_docs"] and any(0 in grades.values() for grades in found.qrels.values())
    assert found.queries == {row["id"]: row["text"] for row in wanted["queries"]}
    assert found.documents == {row["id"]: f"{row['title']} {row['text']}".strip() for row in wanted["corpus"]}


def test_a_task_of_one_language_becomes_one_collection_with_the_instructions_of_its_queries(known, tmp_path):
    class One(Tiny):
        metadata = metadata(eval_langs=["deu-Latn"], eval_splits=["dev"])
        ignore_identical_ids = True

        def load_data(self, **arguments) -> None:
            queries = [{"id": 1, "text": "Katze", "instruction": "no dogs"}, {"id": 2, "text": "nobody judged this"}]
            texts = [{"id": 7, "title": None, "text": "Hund"}, {"id": 1, "title": "", "text": "Katze"}]
            relevant = {"1": {"7": 1, "gone": 1}, "9": {"7": 1}}
            self.dataset = {"default": {"dev": {"queries": queries, "corpus": texts, "relevant_docs": relevant}}}
            self.data_loaded = True

    known["TinyRetrieval"] = One
    fetch("tiny", source(), tmp_path / "tiny")
    found = read_collection(tmp_path / "tiny" / "tiny")
    assert found.queries == {"1": "Katze no dogs"} and found.documents == {"7": "Hund", "1": "Katze"}
    assert found.qrels == {"1": {"7": 1, "gone": 1}}
    assert found.texts_to_find(1) == 2
    # the document of the query's own id is passed over
    assert run_of(found, [[(1, 3.0), (0, 2.0)]], found.judged_ids(), 1) == {"1": {"7": 2.0}}


class Two(Tiny):
    metadata = metadata(eval_langs={"de-fr": ["deu-Latn", "fra-Latn"]})


@pytest.mark.parametrize("changes", [{}, {"subsets": {"de-fr": "de"}}, {"language": "de"}])
def test_two_languages_without_a_word_on_whose_they_are_are_refused(known, changes):
    known["TinyRetrieval"] = Two
    assert "two languages for subset de-fr (de, fr)" in refusal(**changes)


def test_two_languages_are_told_apart_by_the_source(known, tmp_path):
    known["TinyRetrieval"] = Two
    for number, changes in enumerate(
        [{"language": "fr", "document_language": "de"}, {"language": "fr", "subsets": {"de-fr": "de"}}]
    ):
        fetch("tiny", source(**changes), tmp_path / str(number))
        about = read_collection(tmp_path / str(number) / "tiny-de-fr").about
        assert (about["query_language"], about["document_language"]) == ("fr", "de")


def test_unknown_tasks_subsets_and_splits_are_answered_with_those_that_exist(known):
    assert "MIRACLRetrieval" in refusal(uri="mteb:MIRACLRetrival")
    assert "has no 'xx' (there are: de, fr)" in refusal(subsets={"xx": "xx"})
    assert "not evaluated on 'train' (there are: dev, test)" in refusal(split="train")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("Banking77Classification", "a task of Classification over text; text retrieval is wanted"),
        ("MIRACLReranking", "a task of Reranking"),
        ("CQADupstackRetrieval", "one source for each of its tasks: CQADupstackAndroid"),
    ],
)
def test_what_is_no_retrieval_task_is_refused(task, words):
    assert words in refusal(uri=f"mteb:{task}")


def test_a_task_that_does_not_load_is_named_with_the_cause(known):
    def fail(self, **arguments):
        raise ConnectionError("no route\nto the hub")

    known["TinyRetrieval"] = type("Broken", (Tiny,), {"load_data": fail})
    assert refusal() == "sources.tiny: mteb cannot load TinyRetrieval, subset de, test: no route"


def test_the_paper_s_tasks_have_the_languages_that_a_configuration_calls_them():
    def languages(task: str) -> dict[str, str]:
        named = mteb.get_task(task).metadata.hf_subsets_to_langscripts
        return {subset: mteb_tasks._languages("x", source(), subset, codes)["document_language"]
                for subset, codes in named.items()}  # fmt: skip

    for task in ("MIRACLRetrieval", "MIRACLRetrievalHardNegatives", "MultiLongDocRetrieval"):
        assert all(subset == language for subset, language in languages(task).items())
    assert languages("MKQARetrieval")["en"] == "en" and languages("MKQARetrieval")["zh_cn"] == "zh"
    assert languages("LIMITRetrieval") == languages("MSMARCO") == {"default": "en"}


def test_the_english_teacher_is_measured_on_english_subsets(known, tmp_path):
    class English(Tiny):
        metadata = metadata(eval_langs={"de": ["deu-Latn"], "en": ["eng-Latn"]})

    known["TinyRetrieval"] = English
    fetch("tiny", source(), tmp_path / "tiny")
    assert [folder.name for folder in folders_of("teacher", tmp_path / "tiny")] == ["tiny-en"]
    about = tmp_path / "tiny" / "tiny-en" / "collection.json"
    about.write_text(about.read_text().replace('"en"', '"eng"'))  # as it was once written
    assert [c.about["document_language"] for c in mteb_tasks.read_task("tiny", source(), tmp_path / "tiny")] == [
        "de",
        "en",
    ]


def test_names_of_the_paper_s_tasks_are_known():
    for name in ("MIRACLRetrieval", "MIRACLRetrievalHardNegatives", "MKQARetrieval", "MultiLongDocRetrieval",
                 "NeuCLIR2022Retrieval", "NeuCLIR2023Retrieval", "LIMITRetrieval", "XQuADRetrieval",
                 "BelebeleRetrieval", "NQ", "SciFact", "ArguAna"):  # fmt: skip
        assert mteb.get_task(name).metadata.name == name


def test_our_measures_are_those_of_mteb(known, values, model_folder, encoder_checkpoint, tmp_path):
    experiment = settings(values, measures=list(CHECKED))
    collections = built(experiment, encoder_checkpoint, tmp_path)
    ours = measured(experiment, collections, model_folder, encoder_checkpoint, tmp_path)
    ours = ours.groupby(["collection", "measure"]).value.mean()
    theirs = Tiny().evaluate(Encoder(MilcoModel.from_pretrained(model_folder)), "test", encode_kwargs={})
    for subset, scores in theirs.items():
        for measure, name in CHECKED.items():
            assert ours[f"tiny-{subset}", measure] == pytest.approx(scores[name], abs=1e-4)
            assert 0.05 < scores[name] < 0.99
    deepest = (tmp_path / "runs" / "runs" / "tiny-de.trec").read_text().splitlines()
    assert pd.Series(line.split()[0] for line in deepest).value_counts().max() == 20


@pytest.mark.parametrize("side", ["queries", "corpus"])
@pytest.mark.parametrize("wrong", ["", "a\tb", "a\nb"])
def test_an_id_that_no_file_can_hold_is_refused_before_anything_is_trained(known, values, tmp_path, side, wrong):
    data = draw("de")
    data[side] = data[side].add_item({**data[side][0], "id": wrong})
    with pytest.raises(
        MilcoError, match=f"^tiny-de, {side}: the id {re.escape(repr(wrong))} is empty or has a control character"
    ):
        mteb_tasks._write(data, tmp_path / "tiny-de", {})


def test_the_best_chunk_of_a_document_counts(known, values, model_folder, encoder_checkpoint, tmp_path):
    experiment = settings(values, subsets={"de": "de"}, chunk_tokens=8, measures=["nDCG@10", "R@20"])
    collections = built(experiment, encoder_checkpoint, tmp_path)
    measured(experiment, collections, model_folder, encoder_checkpoint, tmp_path)
    whole = read_collection(tmp_path / "tiny" / "tiny-de")
    chunked = read_collection(collections / "tiny-de")
    assert set(chunked.judged_ids()) == set(whole.documents) and len(chunked.documents) > len(whole.documents) + 20
    assert chunked.qrels == whole.qrels
    model = MilcoModel.from_pretrained(model_folder)
    scores = (
        model.encode_query(list(whole.queries.values())) @ model.encode_document(list(chunked.documents.values())).T
    )
    best = pd.DataFrame(scores.toarray().T).groupby(chunked.judged_ids()).max().to_dict()
    run: dict[str, dict[str, float]] = {query: {} for query in whole.queries}
    for line in (tmp_path / "runs" / "runs" / "tiny-de.trec").read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        run[query][document] = float(score)
    for number, query in enumerate(whole.queries):
        wanted = sorted(best[number].values(), reverse=True)[:20]
        np.testing.assert_allclose(list(run[query].values()), wanted, rtol=1e-3)
        assert run[query] == pytest.approx({document: best[number][document] for document in run[query]}, rel=1e-3)
    index.build_all(experiment, collections, tmp_path / "vectors", tmp_path / "index")
    (row,) = pd.read_parquet(tmp_path / "index" / "seismic.parquet").to_dict("records")
    assert row["recall"] > 0.9 and abs(row["nDCG@10"] - row["exact nDCG@10"]) < 0.1
    budgets.sweep(experiment, collections, tmp_path / "vectors", tmp_path / "prune.parquet")
    assert pd.read_parquet(tmp_path / "prune.parquet").value[0] == pytest.approx(row["exact nDCG@10"])


def test_chunks_hold_so_many_tokens_and_the_whole_text(encoder_checkpoint):
    documents = {"long": " ".join(SOURCE_WORDS), "a#b": "Katze", "empty": ""}
    (found,) = corpora.in_chunks([Collection("c", documents)], encoder_checkpoint, 8)
    assert found.judged_ids() == ["long"] * (len(found.documents) - 2) + ["a#b", "empty"]
    assert list(found.documents)[-2:] == ["a#b#0", "empty#0"]
    chunks = list(found.documents.values())
    assert " ".join(chunks[:-2]) == documents["long"]
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(encoder_checkpoint)(chunks)["input_ids"]]
    assert set(lengths[:-3]) == {8} and max(lengths) == 8


def test_a_search_goes_so_deep_that_enough_documents_are_among_the_chunks():
    documents = dict.fromkeys(["a#0", "b#0", "b#1", "b#2", "c#0", "c#1"], "")
    chunked = Collection("c", documents, {"q": ""}, about={"chunked": True})
    assert [chunked.texts_to_find(depth) for depth in (1, 2, 9)] == [3, 5, 6]
    ranking = [(2, 9.0), (1, 8.0), (3, 7.0), (5, 6.0), (4, 5.0), (0, 4.0)]
    assert run_of(chunked, [ranking], chunked.judged_ids(), 2) == {"q": {"b": 9.0, "c": 6.0}}


@pytest.mark.parametrize("lower", [set(), {"queries"}, {"documents"}, {"queries", "documents"}])
def test_texts_keep_their_case_unless_the_source_says_otherwise(lower, known, values, encoder_checkpoint, tmp_path):
    changes = {f"lowercase_{side}": True for side in lower}
    collections = built(settings(values, **changes, chunk_tokens=16), encoder_checkpoint, tmp_path)
    for collection in map(read_collection, collections.iterdir()):
        for side in ("queries", "documents"):
            texts = getattr(collection, side).values()
            assert any(text != text.lower() for text in texts) == (side not in lower), side


def test_collections_over_the_same_documents_share_them_in_lower_case_too():
    documents = {"d": "The Cat"}
    found = list(corpora.in_lower_case([Collection(n, documents, {"q": "Who?"}) for n in "ab"], False, True))
    assert found[0].documents is found[1].documents and found[0].documents == {"d": "the cat"}
    assert found[0].queries == {"q": "Who?"} and documents == {"d": "The Cat"}


def test_a_pool_holds_the_documents_of_all_subsets_and_is_asked_in_each_language(
    known, values, model_folder, encoder_checkpoint, tmp_path
):
    experiment = settings(values, subsets={"de": "de", "fr": "fr"}, pool=True)
    collections = built(experiment, encoder_checkpoint, tmp_path)
    german, french = (read_collection(collections / f"tiny-{language}") for language in ("de", "fr"))
    assert german.documents == french.documents and len(german.documents) == 120
    alone = read_collection(tmp_path / "tiny" / "tiny-fr")
    assert french.queries == alone.queries
    assert french.qrels["q3"] == {f"fr/{document}": grade for document, grade in alone.qrels["q3"].items()}
    assert (french.about["query_language"], french.about["document_language"]) == ("fr", "mul")
    files = [collections / f"tiny-{language}" / "corpus.jsonl" for language in ("de", "fr")]
    assert files[0].samefile(files[1])
    found = measured(experiment, collections, model_folder, encoder_checkpoint, tmp_path)
    assert set(found.collection) == {"tiny-de", "tiny-fr"} and found.groupby("measure").value.mean()["nDCG@10"] > 0.05


@pytest.mark.parametrize("pool", [False, True])
def test_queries_and_what_answers_them_are_held_out(pool, known, values, encoder_checkpoint, tmp_path):
    built(settings(values, pool=pool), encoder_checkpoint, tmp_path)
    forbidden = HeldOut.read(tmp_path / "corpora")
    for subset in LANGUAGES:
        drawn = draw(f"{subset} test")
        right = {name for grades in drawn["relevant_docs"].values() for name, grade in grades.items() if grade}
        texts = {row["id"]: row["text"] for row in drawn["corpus"]}
        assert all(row["text"] in forbidden for row in drawn["queries"])
        assert all((text in forbidden) == (name in right) for name, text in texts.items())
        assert 0 < len(right) < len(texts)
    assert "Haus" in forbidden  # the title of some


def test_subsets_asked_in_one_language_share_their_queries_and_what_is_relevant():
    def part(name: str, query: str) -> Collection:
        about = {"subset": name, "query_language": "en", "document_language": name}
        return Collection(f"x-{name}", {"d": name}, {"q": query}, {"q": {"d": 1}}, about)

    (pool,) = pooled("x", [part("de", "cat"), part("fr", "cat")])
    assert (pool.name, pool.queries, pool.qrels) == ("x-en", {"q": "cat"}, {"q": {"de/d": 1, "fr/d": 1}})
    with pytest.raises(MilcoError, match=r"sources\.x\.pool: two subsets in language en .* 'q'"):
        list(pooled("x", [part("de", "cat"), part("fr", "dog")]))

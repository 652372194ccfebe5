"""Models of mteb's registry as systems: fetched, loaded without a network, and encoded as mteb's own wrapper does it.

The names, revisions, wrappers and prompts are those of mteb; the weights under these names are tiny ones.
"""
# ruff: noqa: F401, F811 (fixtures of another file)

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hub as loopback
import mteb
import numpy as np
import pytest
from datasets import Dataset
from huggingface_hub import constants
from miniature import ROOT
from mteb._create_dataloaders import create_dataloader
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer, SparseEncoder
from test_baselines import dense, inference_free, tests

from milco import config
from milco.config import Source
from milco.data import mteb_registry
from milco.data.beir import read_collection
from milco.data.trec import read_run
from milco.errors import MilcoError
from milco.evaluation.encode import encode
from milco.evaluation.evaluate import evaluate
from milco.evaluation.lookup import Vectors
from milco.evaluation.mteb_models import RETRIEVAL

pytestmark = pytest.mark.slow

E5 = "intfloat/multilingual-e5-small"  # prompts
INSTRUCT = "Qwen/Qwen3-Embedding-0.6B"  # an instruction for queries
SPARSE = "opensearch-project/opensearch-neural-sparse-encoding-doc-v2-distill"  # a table of weights for queries
CODE = "Alibaba-NLP/gte-multilingual-base"  # mteb has it run the Python files of its repository
WEIGHTS = {E5: "dense", INSTRUCT: "dense", SPARSE: "inference_free"}
KINDS = {"queries": PromptType.query, "documents": PromptType.document}


def measured(values: dict, title: str, trusted: bool = False, **lengths: int) -> config.Config:
    """The settings of the miniature with a model of mteb as a baseline."""
    source = {"uri": f"mteb:{title}", "format": "mteb-model", "trust_remote_code": trusted}
    sources = {**values["sources"], "other": source}
    changed = {**values, "sources": sources, "model": {**values["model"], **lengths}}
    return config.parse({**changed, "evaluate": {**values["evaluate"], "baselines": ["bm25", "other"]}})


def fetched(weights: Path, title: str, folder: Path) -> Path:
    """A folder as rule `fetch` leaves it."""
    shutil.copytree(weights, folder)
    revision = mteb.get_model_meta(title).revision
    (folder / "revision.json").write_text(json.dumps({"repository": f"models/{title}", "revision": revision}))
    return folder


def wrapper(title: str, folder: Path):
    """mteb's own wrapper, of the weights in a folder."""
    about = mteb.get_model_meta(title)
    found = about.loader(str(folder), revision=None, device="cpu", **about.loader_kwargs)
    found.mteb_model_meta = about
    return found


def asked(model, side: str, texts: list[str]) -> np.ndarray:
    """What mteb gets from a wrapper."""
    table = Dataset.from_dict({"id": [str(n) for n in range(len(texts))], "text": texts})
    kind = KINDS[side]
    loader = create_dataloader(table, task_metadata=RETRIEVAL, prompt_type=kind)
    found = model.encode(loader, task_metadata=RETRIEVAL, hf_split="test", hf_subset="default", prompt_type=kind)
    return found.to_dense().numpy() if not isinstance(found, np.ndarray) else found


def rows_of(folder: Path, side: str, texts: list[str]) -> np.ndarray:
    rows = Vectors(folder).of(side, texts)
    return rows if isinstance(rows, np.ndarray) else rows.toarray()


def run(folder: Path, *arguments: str, **environment: str) -> None:
    """A program as its rule runs it, with nothing of the Hub on this machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    kept |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "home"), **environment}
    command = [sys.executable, "-m", "milco.stages", *arguments]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_a_model_is_fetched_and_encodes_without_a_network(values, tests, dense, tmp_path):
    settings, revision = measured(values, E5), mteb.get_model_meta(E5).revision
    settings.save(tmp_path / "my.yaml")
    files = {path.relative_to(dense).as_posix(): path.read_bytes() for path in dense.rglob("*") if path.is_file()}
    with loopback.running() as hub:
        hub.commit(f"models/{E5}", {**files, "onnx/model.onnx": b"other"})
        # Under the revision that mteb names, which is not the newest one.
        (tree,) = hub.repositories[f"models/{E5}"].commits.values()
        hub.repositories[f"models/{E5}"] = loopback.Repository({revision: tree}, {"main": "0" * 40})
        run(
            tmp_path,
            *("fetch", "--config", "my.yaml", "--name", "other", "--output", "resources/other"),
            HF_ENDPOINT=hub.address,
            HF_HUB_OFFLINE="0",
        )
    model = tmp_path / "resources" / "other"
    assert json.loads((model / "revision.json").read_text())["revision"] == revision
    assert not (model / "onnx").exists() and (model / "1_Pooling").exists()
    (tmp_path / "collected" / "collections").mkdir(parents=True)
    (tmp_path / "collected" / "collections" / "test").symlink_to(tests)
    run(
        tmp_path,
        *("encode", "--config", "my.yaml", "--system", "other", "--model", "resources/other"),
        *("--corpora", "collected", "--output", "vectors"),
    )
    evaluate(settings, "other", tests, tmp_path / "vectors", model, tmp_path / "runs")

    collection, theirs = read_collection(tests / "mine"), wrapper(E5, dense)
    texts = {side: [*getattr(collection, side).values()] for side in KINDS}
    vectors = {side: asked(theirs, side, texts[side]) for side in KINDS}
    for side in KINDS:
        wanted = vectors[side] / np.linalg.norm(vectors[side], axis=1, keepdims=True)
        np.testing.assert_allclose(rows_of(tmp_path / "vectors", side, texts[side]), wanted, atol=1e-5)
    prompted = SentenceTransformer(str(dense), device="cpu").encode(texts["queries"], prompt="query: ")
    np.testing.assert_allclose(vectors["queries"], prompted, atol=1e-5)
    assert abs(vectors["queries"] - SentenceTransformer(str(dense)).encode(texts["queries"], prompt="")).max() > 0.01

    scores, found = theirs.similarity(vectors["queries"], vectors["documents"]).numpy(), [*collection.documents]
    ranked = read_run(tmp_path / "runs" / "runs" / "mine.trec")
    for query, row in zip(collection.queries, scores, strict=True):
        for document, score in ranked[query].items():
            assert score == pytest.approx(row[found.index(document)], abs=1e-4)
    (said,) = json.loads((tmp_path / "runs" / "statistics.json").read_text())
    assert said["dimensions"] == 24 and said["bytes_document"] == 96 and said["milliseconds"] > 0


@pytest.mark.parametrize("title", [INSTRUCT, SPARSE])
def test_vectors_are_those_of_mteb_s_own_wrapper(title, values, tests, tmp_path, request, monkeypatch):
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "elsewhere"))
    weights, cache = request.getfixturevalue(WEIGHTS[title]), constants.HF_HUB_CACHE
    model = fetched(weights, title, tmp_path / "model")
    encode(measured(values, title), "other", model, tests, tmp_path / "vectors")
    assert cache == constants.HF_HUB_CACHE
    collection, theirs = read_collection(tests / "mine"), wrapper(title, weights)
    bare = (SentenceTransformer if title == INSTRUCT else SparseEncoder)(str(weights), device="cpu")
    for side in KINDS:
        texts = [*getattr(collection, side).values()]
        wanted = asked(theirs, side, texts)
        if title == INSTRUCT:
            plain = bare.encode(texts, prompt="")
            assert (abs(wanted - plain).max() > 0.01) == (side == "queries")  # the instruction is for queries
            wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(rows_of(tmp_path / "vectors", side, texts), wanted, atol=1e-5)


@pytest.mark.parametrize("title", [E5, INSTRUCT])
def test_texts_are_cut_where_ours_are_and_counted_with_their_prompts(
    title,
    values,
    tests,
    dense,
    tmp_path,
):
    settings = measured(values, title, query_max_length=9, passage_max_length=5)
    encode(settings, "other", fetched(dense, title, tmp_path / "model"), tests, tmp_path / "vectors")
    collection, theirs = read_collection(tests / "mine"), wrapper(title, dense)
    said = json.loads((tmp_path / "vectors" / "cut.json").read_text())
    prompts = {"queries": "query: ", "documents": "passage: "}
    if title == INSTRUCT:
        prompts = {"queries": theirs.get_task_instruction(RETRIEVAL, PromptType.query), "documents": ""}
        assert "Retrieve text based on user query." in prompts["queries"]
    for side, limit in (("queries", 9), ("documents", 5)):
        texts = [*getattr(collection, side).values()]
        lengths = [len(ids) for ids in theirs.model.tokenizer([prompts[side] + text for text in texts])["input_ids"]]
        assert sum(said[side]["cut"].values()) == sum(length > limit for length in lengths) > 0
        theirs.model.max_seq_length = limit
        wanted = asked(theirs, side, texts)
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(rows_of(tmp_path / "vectors", side, texts), wanted, atol=1e-5)


def test_code_of_a_repository_runs_only_where_it_is_trusted(values, tests, dense, tmp_path):
    model = fetched(dense, CODE, tmp_path / "model")
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["type"] = "own_code.Summed"
    (model / "modules.json").write_text(json.dumps(modules))
    refused = rf"^{CODE} cannot be loaded without .* set sources\.other\.trust_remote_code to true"
    with pytest.raises(MilcoError, match=refused):
        encode(measured(values, CODE), "other", model, tests, tmp_path / "vectors")
    (model / "own_code.py").write_text(
        "from sentence_transformers.sentence_transformer.modules import Pooling\n"
        "class Summed(Pooling):\n"
        "    def forward(self, features):\n"
        "        found = super().forward(features)\n"
        "        found['sentence_embedding'] = found['sentence_embedding'].cumsum(1)\n"
        "        return found\n"
    )
    with pytest.raises(MilcoError, match=refused):
        encode(measured(values, CODE), "other", model, tests, tmp_path / "vectors")
    encode(measured(values, CODE, trusted=True), "other", model, tests, tmp_path / "vectors")
    texts = [*read_collection(tests / "mine").documents.values()]
    wanted = SentenceTransformer(str(dense), device="cpu").encode_document(texts).cumsum(1)
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(rows_of(tmp_path / "vectors", "documents", texts), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("intfloat/multilingual-e5-smal", "not found in MTEB registry. Did you mean: 'intfloat/multilingual-e5-small'"),
        ("BAAI/bge-reranker-v2-m3", "is a cross-encoder model; one that gives every text a single vector"),
        ("colbert-ir/colbertv2.0", "is a late-interaction model; one that gives every text a single vector"),
        ("openai/text-embedding-3-small", "has no weights that could be downloaded"),
        ("samaya-ai/promptriever-llama2-7b-v1", "is no single repository of the Hub"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(title, message):
    with pytest.raises(MilcoError, match=r"^sources\.other\.uri: ") as caught:
        mteb_registry.weights("other", Source(uri=f"mteb:{title}", format="mteb-model"))
    assert title in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_loaded_is_an_error_of_one_line(values, tests, dense, tmp_path, monkeypatch):
    model, known = fetched(dense, E5, tmp_path / "model"), MODEL_REGISTRY[E5]

    def refusal(**changes) -> str:
        monkeypatch.setitem(MODEL_REGISTRY, E5, known.model_copy(update=changes))
        with pytest.raises(MilcoError, match=r"^sources\.other: ") as caught:
            encode(measured(values, E5), "other", model, tests, tmp_path / "vectors")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def lacking(*_, **__):
        raise ImportError("Model x is missing required dependencies: nopackage.\nYou can install it with `pip`.")

    wanted = "mteb cannot load intfloat/multilingual-e5-small: Model x is missing required dependencies: nopackage. You"
    assert wanted in refusal(loader=lacking)
    assert f"at {known.revision}, but mteb now names {'1' * 40}; delete that folder" in refusal(revision="1" * 40)
    (model / "model.safetensors").unlink()
    assert f"mteb cannot load {E5}: " in refusal()

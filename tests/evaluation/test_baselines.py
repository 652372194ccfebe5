"""Finished models of others as systems: every vector and every rank is the one that the model's own package gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from miniature import ROOT, build_corpora
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SparseStaticEmbedding, SpladePooling
from test_authors_layout import LAYOUT
from test_report import comparison, pages, results
from transformers import AutoModel, AutoTokenizer, CanineConfig, CanineModel, CanineTokenizer

from milco import config
from milco.config.reading import merge
from milco.data.beir import read_collection
from milco.data.trec import read_run
from milco.errors import MilcoError
from milco.evaluation.encode import encode
from milco.evaluation.evaluate import evaluate
from milco.evaluation.lookup import Vectors
from milco.experiments import Experiment
from milco.modeling.model import MilcoModel
from milco.tools.export import export
from milco.training.score import CrossEncoder

pytestmark = pytest.mark.slow
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="session")
def dense(encoder_checkpoint, tmp_path_factory) -> Path:
    """A dense model that is not like ours: the first token's state, a prompt for each side, the cosine."""
    folder = tmp_path_factory.mktemp("models") / "dense"
    modules = [Transformer(str(encoder_checkpoint)), Pooling(24, pooling_mode="cls")]
    SentenceTransformer(modules=modules, prompts={"query": "cat ", "document": "dog "}).save(str(folder))
    return folder


@pytest.fixture(scope="session")
def characters(tmp_path_factory) -> Path:
    """A dense model whose tokenizer is Python and has no fast form."""
    folder = tmp_path_factory.mktemp("characters")
    CanineModel(CanineConfig(**SHAPE, num_hash_buckets=64, local_transformer_stride=8)).save_pretrained(folder / "bare")
    CanineTokenizer(model_max_length=64).save_pretrained(folder / "bare")
    reader = Transformer(str(folder / "bare"))
    prompts = {"query": "q ", "document": "d "}
    SentenceTransformer(modules=[reader, Pooling(SHAPE["hidden_size"])], prompts=prompts, device="cpu").save(
        str(folder / "st")
    )
    return folder / "st"


@pytest.fixture(scope="session")
def inference_free(teacher_checkpoint, tmp_path_factory) -> Path:
    """A sparse model of two routes: a table of weights for queries, SPLADE for documents."""
    folder = tmp_path_factory.mktemp("models") / "inference-free"
    tokenizer = AutoTokenizer.from_pretrained(teacher_checkpoint)
    query = SparseStaticEmbedding(tokenizer)
    query.weight.data.uniform_(0.5, 2.0)
    document = [MLMTransformer(str(teacher_checkpoint)), SpladePooling("max")]
    SparseEncoder(modules=[Router.for_query_document([query], document)]).save(str(folder))
    return folder


@pytest.fixture(scope="session")
def bge_m3(encoder_checkpoint, tmp_path_factory) -> Path:
    """What FlagEmbedding writes: an encoder, and a layer that weighs its states."""
    folder = shutil.copytree(encoder_checkpoint, tmp_path_factory.mktemp("models") / "bge-m3")
    layer = torch.nn.Linear(24, 1)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(5))
    torch.save(layer.half().state_dict(), folder / "sparse_linear.pt")
    return folder


def measured(values: dict, name: str, model: Path, kind: str, **lengths: int) -> config.Config:
    """The settings of the miniature with one more baseline."""
    source = {"uri": f"file:{model}", "format": kind}
    changed = {**values, "sources": {**values["sources"], name: source}, "model": {**values["model"], **lengths}}
    return config.parse({**changed, "evaluate": {**values["evaluate"], "baselines": ["bm25", name]}})


@pytest.fixture
def tests(values, tmp_path) -> Path:
    settings = config.parse(values)
    sources = {name: Path(settings.sources[name].uri.removeprefix("file:")) for name in settings.used_datasets()}
    build_corpora(settings, sources, tmp_path / "corpora")
    return tmp_path / "corpora" / "collections" / "test"


@pytest.mark.parametrize("name", ["dense", "inference_free", "teacher_checkpoint"])
def test_vectors_and_ranks_are_those_of_sentence_transformers(name, values, tests, tmp_path, request):
    """The last is SPLADE as it was published before that library knew it: a masked language model and nothing more."""
    folder, kind = request.getfixturevalue(name), SentenceTransformer if name == "dense" else SparseEncoder
    settings = measured(values, "other", folder, "sentence-transformers")
    encode(settings, "other", folder, tests, tmp_path / "vectors")
    evaluate(settings, "other", tests, tmp_path / "vectors", folder, tmp_path / "runs")

    model, collection = kind(str(folder), device="cpu"), read_collection(tests / "mine")
    queries = model.encode_query([*collection.queries.values()])
    documents = model.encode_document([*collection.documents.values()])
    scores = model.similarity(queries, documents).numpy()
    run = read_run(tmp_path / "runs" / "runs" / "mine.trec")
    ids = [*collection.documents]
    for query, row in zip(collection.queries, scores, strict=True):
        found = run[query]
        assert len(found) == min(40, int((row != 0).sum()) if name != "dense" else 40)
        for document, score in found.items():
            assert score == pytest.approx(row[ids.index(document)], abs=1e-4)
        assert max(found.values()) == pytest.approx(row.max(), abs=1e-4)
    (said,) = json.loads((tmp_path / "runs" / "statistics.json").read_text())
    if name == "dense":
        assert said["dimensions"] == 24 and said["bytes_document"] == 96 and "active_query" not in said
    else:
        terms = (documents.to_dense() > 0).sum(dim=1).double().mean().item()
        assert said["active_document"] == pytest.approx(terms) and said["bytes_document"] == pytest.approx(8 * terms)
    assert said["milliseconds"] > 0


@pytest.mark.parametrize("name", ["dense", "teacher_checkpoint"])
def test_weights_in_half_precision_are_computed_in_float32(name, values, tests, tmp_path, request):
    folder, kind = request.getfixturevalue(name), SentenceTransformer if name == "dense" else SparseEncoder
    model = kind(str(folder), device="cpu").bfloat16()
    model.save(str(tmp_path / "half"))
    settings = measured(values, "other", tmp_path / "half", "sentence-transformers")
    encode(settings, "other", tmp_path / "half", tests, tmp_path / "vectors")
    texts = [*read_collection(tests / "mine").documents.values()]
    rows, wanted = Vectors(tmp_path / "vectors").of("documents", texts), model.float().encode_document(texts)
    rows = rows if name == "dense" else rows.toarray()
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True) if name == "dense" else wanted.to_dense().numpy()
    np.testing.assert_allclose(rows, wanted, atol=1e-5)


def test_a_model_of_the_authors_layout_is_a_system(values, tests, tmp_path):
    folder = shutil.copytree(LAYOUT / "released", tmp_path / "released")
    shutil.copytree(LAYOUT / "encoder", folder / "encoder")
    settings = measured(values, "milco-650m", folder, "transformers", query_max_length=16, passage_max_length=16)
    encode(settings, "milco-650m", folder, tests, tmp_path / "vectors")
    texts = [*read_collection(tests / "mine").documents.values()]
    rows = Vectors(tmp_path / "vectors").of("documents", texts)
    wanted = MilcoModel.from_pretrained(folder).encode_document(texts, max_length=16)
    np.testing.assert_allclose(rows.toarray(), wanted.toarray(), atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "characters", "inference_free"])
def test_texts_are_cut_where_ours_are_and_counted(name, values, tests, tmp_path, request):
    folder, kind = request.getfixturevalue(name), SparseEncoder if name == "inference_free" else SentenceTransformer
    settings = measured(values, "other", folder, "sentence-transformers", query_max_length=4, passage_max_length=5)
    encode(settings, "other", folder, tests, tmp_path / "vectors")
    collection, model = read_collection(tests / "mine"), kind(str(folder), device="cpu")
    reader = {"queries": model[0], "documents": model[0]}
    if name == "inference_free":
        reader = {"queries": model[0].sub_modules["query"][0], "documents": model[0].sub_modules["document"][0]}
    said = json.loads((tmp_path / "vectors" / "cut.json").read_text())
    texts = {side: [*getattr(collection, side).values()] for side in reader}
    prompts = {"queries": model.prompts["query"], "documents": model.prompts["document"]}
    ids = {side: reader[side].preprocess(texts[side], prompt=prompts[side])["attention_mask"] for side in reader}
    for side, limit in (("queries", 4), ("documents", 5)):
        longer = int((ids[side].sum(dim=1) > limit).sum())
        assert sum(said[side]["cut"].values()) == longer and (longer or side == "queries")
        reader[side].tokenizer.model_max_length = limit
        wanted = (model.encode_query if side == "queries" else model.encode_document)(texts[side])
        dense = kind is SentenceTransformer
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True) if dense else wanted.to_dense()
        rows = Vectors(tmp_path / "vectors").of(side, texts[side])
        np.testing.assert_allclose(rows if dense else rows.toarray(), wanted, atol=1e-5)


@torch.no_grad()
def test_the_sparse_weights_of_bge_m3_are_those_of_flag_embedding(bge_m3, values, tests, tmp_path):
    """Text by text and token by token, as `M3Embedder` of FlagEmbedding counts them."""
    settings = measured(values, "other", bge_m3, "bge-m3-sparse", query_max_length=6, passage_max_length=5)
    encode(settings, "other", bge_m3, tests, tmp_path / "vectors")
    evaluate(settings, "other", tests, tmp_path / "vectors", bge_m3, tmp_path / "runs")
    tokenizer, model = AutoTokenizer.from_pretrained(bge_m3), AutoModel.from_pretrained(bge_m3).eval()
    layer = torch.load(bge_m3 / "sparse_linear.pt", weights_only=True)
    collection, rows = read_collection(tests / "mine"), {}
    said = json.loads((tmp_path / "vectors" / "cut.json").read_text())
    for side, limit in (("queries", 6), ("documents", 5)):
        texts = [*getattr(collection, side).values()]
        rows[side] = Vectors(tmp_path / "vectors").of(side, texts).toarray()
        for row, text in zip(rows[side], texts, strict=True):
            read = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
            weights = model(**read).last_hidden_state[0] @ layer["weight"][0].float() + layer["bias"].float()
            wanted: dict[int, float] = {}
            for token, weight in zip(read["input_ids"][0].tolist(), weights.tolist(), strict=True):
                if weight > max(0.0, wanted.get(token, 0.0)) and tokenizer.convert_ids_to_tokens(token)[0] != "<":
                    wanted[token] = weight
            assert dict(zip(row.nonzero()[0], row[row > 0], strict=True)) == pytest.approx(wanted, abs=1e-5)
        assert sum(said[side]["cut"].values()) == sum(len(tokenizer(text)["input_ids"]) > limit for text in texts)
    scores, run = rows["queries"] @ rows["documents"].T, read_run(tmp_path / "runs" / "runs" / "mine.trec")
    for query, row in zip(collection.queries, scores, strict=True):
        assert max(run.get(query, {}).values(), default=0) == pytest.approx(row.max(), abs=1e-4)
    assert run and rows["queries"].any()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (None, "no such file, and the sparse weights of BGE-M3 are in it; a model without .* sentence-transformers"),
        (
            {"weight": torch.zeros(1, 25), "bias": torch.zeros(1)},
            r"holds .*\[1, 25\].*, but this model wants .*\[1, 24\]",
        ),
        ({"weight": torch.zeros(1, 24)}, r"holds {'weight': \[1, 24\]}, but this model wants"),
        ([1.0], "no file of tensors alone"),
        ({"weight": 1.0}, "no file of tensors alone .weight is no tensor"),
        (torch.nn.Linear(24, 1), "no file of tensors alone"),  # with code in it
    ],
)
def test_a_layer_that_is_none_is_refused_in_one_line(layer, message, bge_m3, values, tests, tmp_path):
    folder = shutil.copytree(bge_m3, tmp_path / "model")
    (folder / "sparse_linear.pt").unlink()
    if layer is not None:
        torch.save(layer, folder / "sparse_linear.pt")
    settings = measured(values, "other", folder, "bge-m3-sparse")
    with pytest.raises(MilcoError, match=rf"model/sparse_linear\.pt: {message}") as caught:
        encode(settings, "other", folder, tests, tmp_path / "vectors")
    assert "\n" not in str(caught.value)


def test_a_milco_model_in_another_format_is_refused_in_one_line(values, tests, model_folder, tmp_path):
    theirs = LAYOUT / "released"
    for folder, kind in ((theirs, "sentence-transformers"), (theirs, "bge-m3-sparse"), (model_folder, "bge-m3-sparse")):
        with pytest.raises(MilcoError, match=r"^sources\.other: .* holds a MILCO model; set format: transformers$"):
            encode(measured(values, "other", folder, kind), "other", folder, tests, tmp_path / "vectors")
    with pytest.raises(MilcoError, match=r"^distill\.scorer: .* holds a MILCO model; name a cross-encoder$"):
        CrossEncoder(measured(values, "other", theirs, "transformers"), theirs)


def test_a_source_of_another_kind_is_refused_in_one_line(values, tests, encoder_checkpoint, dense, tmp_path):
    settings = measured(values, "bert", encoder_checkpoint, "transformers")
    with pytest.raises(MilcoError, match=r"^sources\.bert: .* kind bert, not a MILCO model; .*sentence-transformers$"):
        encode(settings, "bert", encoder_checkpoint, tests, tmp_path / "vectors")
    foreign = shutil.copytree(dense, tmp_path / "foreign")
    modules = json.loads((foreign / "modules.json").read_text())
    modules[1]["type"] = "own_code.Pooling"
    (foreign / "modules.json").write_text(json.dumps(modules))
    settings = measured(values, "foreign", foreign, "sentence-transformers")
    with pytest.raises(MilcoError, match=r"foreign cannot be loaded without .*sources\.foreign\.trust_remote_code"):
        encode(settings, "foreign", foreign, tests, tmp_path / "vectors")


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        (["nowhere"], "neither bm25, teacher, dense nor a source 'nowhere'"),
        (["pairs"], "source 'pairs' has format pairs, expected bge-m3-sparse or mteb-model or sentence-transformers"),
        (["encoder", "encoder"], "'encoder' occurs twice"),
        (["align"], "'align' is the name of a stage's own model"),
    ],
)
def test_a_wrong_baseline_is_named_before_any_job(baselines, message, values):
    sources = {**values["sources"], "align": values["sources"]["encoder"]}
    wrong = {**values, "sources": sources, "evaluate": {**values["evaluate"], "baselines": baselines}}
    with pytest.raises(MilcoError, match=f"evaluate.baselines: {message}"):
        config.parse(wrong)


def test_the_demo_with_one_more_model_makes_nothing_else_anew():
    demo, more = (yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) for name in ("demo", "demo-baselines"))
    before, after = Experiment(config.parse(demo)), Experiment(config.parse(merge(demo, more)))
    assert set(before.nodes) < set(after.nodes)
    name = "all-MiniLM-L6-v2"
    added = [node for node in after.nodes if node not in before.nodes]
    assert [node.label for node in added] == [f"fetch {name}", f"encode {name}", f"evaluate {name}"]
    assert after.model(name) == after.downloads[name].path


def test_it_stands_in_the_tables_before_ours(values, encoder_checkpoint, tmp_path):
    found = results([("x-de", "de", "en", "nDCG@10")])
    named = found.measures[found.measures.system == "bm25"].assign(system="minilm", value=0.25)
    weighed = named.assign(system="distill-source-2")  # stands in none of the tables but the means
    found.measures = pd.concat([found.measures, named, weighed])
    costs = {"system": "minilm", "collection": "x-de", "dimensions": 384, "bytes_document": 1536, "milliseconds": 0.5}
    found.statistics = pd.concat([found.statistics, pd.DataFrame([costs])])
    settings = measured(values, "minilm", encoder_checkpoint, "sentence-transformers").model_dump()
    settings["evaluate"]["source_weights"] = [2]
    page, summary = pages(settings, found, comparison(found), tmp_path)
    assert "| collection | BM25 | minilm | Stage 2 |" in summary and "| x-de | 0.500 | 0.250 | 0.500 |" in summary
    assert "<tr><th>minilm</th><td>384</td><td>1536</td><td>0.50</td></tr>" in page
    assert "taken once, reading the vectors included, while other jobs may run" in page
    assert "<tr><th>minilm</th><td>1</td><td>1</td><td>+0.250</td>" in page  # Stage 2 minus it


def test_a_milco_model_reads_as_much_through_sentence_transformers_as_without(values, tests, model_folder, tmp_path):
    export(model_folder, tmp_path / "exported")
    vectors = {}
    for kind in ("transformers", "sentence-transformers"):
        settings = measured(values, "other", tmp_path / "exported", kind, query_max_length=4, passage_max_length=5)
        trusted = settings.sources["other"].model_copy(update={"trust_remote_code": True})
        settings = settings.model_copy(update={"sources": {**settings.sources, "other": trusted}})
        encode(settings, "other", tmp_path / "exported", tests, tmp_path / kind)
        texts = [*read_collection(tests / "mine").documents.values()]
        vectors[kind] = Vectors(tmp_path / kind).of("documents", texts).toarray()
        assert sum(json.loads((tmp_path / kind / "cut.json").read_text())["documents"]["cut"].values()) > 0
    np.testing.assert_allclose(*vectors.values(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("dense", "encoder.layer.0.output.dense.weight"),
        ("teacher_checkpoint", "cls.predictions.transform.dense.weight"),
        ("inference_free", "cls.predictions.transform.dense.weight"),
    ],
)
def test_a_model_whose_weights_are_not_all_there_is_refused(name, tensor, values, tests, tmp_path, request):
    broken = shutil.copytree(request.getfixturevalue(name), tmp_path / "broken")
    files = {file: load_file(file) for file in broken.rglob("model.safetensors")}
    ((file, tensors),) = ((file, tensors) for file, tensors in files.items() if tensor in tensors)
    del tensors[tensor]
    save_file(tensors, file, {"format": "pt"})
    settings = measured(values, "other", broken, "sentence-transformers")
    with pytest.raises(MilcoError, match=f"broken.*: no weights for .*{tensor.replace('.', '[.]')}, as "):
        encode(settings, "other", broken, tests, tmp_path / "vectors")

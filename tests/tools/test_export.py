"""An exported model gives the rows of `MilcoModel` to everyone who loads it: AutoModel, SparseEncoder, onnxruntime."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hub as loopback
import mteb
import numpy as np
import onnxruntime
import pytest
import torch
from mteb.models import SparseEncoderWrapper
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sentence_transformers.sparse_encoder.search_engines import semantic_search_seismic
from test_model import TEXTS
from test_mteb_tasks import Encoder, Tiny
from transformers import AutoModel

from milco.errors import MilcoError
from milco.modeling.model import MilcoModel
from milco.tools.export import export, write_code, write_onnx

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LONG = " ".join(["the", "cat", "Hund", "house", "rot", "water", "дом", "red"] * 3)
# Loads a model where neither this package nor Triton can be imported, and says what it makes of the texts it is given.
BARE = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("milco", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import milco
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("milco is there")

from sentence_transformers import SparseEncoder
from transformers import AutoModel

place, settings, texts = map(json.loads, sys.argv[1:])
model = AutoModel.from_pretrained(place, trust_remote_code=True, **settings)
encoder = SparseEncoder(place, trust_remote_code=True, **settings)
queries = model.encode_query(texts)
rows = {
    "queries": queries.toarray().tolist(),
    "documents": model.encode_document(texts).toarray().tolist(),
    "sparse queries": encoder.encode_query(texts).to_dense().tolist(),
    "sparse documents": encoder.encode_document(texts).to_dense().tolist(),
}
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"rows": rows, "words": model.decode(queries), "modules": modules}))
"""


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    """The whole folder, ONNX included; tests only read it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(model_folder, folder, onnx=True)
    return folder


@pytest.fixture(scope="module")
def encoder(exported) -> SparseEncoder:
    return SparseEncoder(str(exported), trust_remote_code=True)


def loaded_bare(place: str, tmp_path, settings: dict, **environment: str) -> dict:
    """What `BARE` prints; -I leaves out PYTHONPATH and the current folder."""
    command = [sys.executable, "-I", "-c", BARE, *map(json.dumps, (place, settings, [*TEXTS, LONG]))]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), **environment}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trust_remote_code" not in done.stdout + done.stderr  # nobody is asked
    return json.loads(done.stdout.splitlines()[-1])


def check_bare(found: dict, model: MilcoModel) -> None:
    queries = model.encode_query([*TEXTS, LONG])
    for name, rows in (("queries", queries), ("documents", model.encode_document([*TEXTS, LONG]))):
        np.testing.assert_allclose(found["rows"][name], rows.toarray(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["rows"][f"sparse {name}"], rows.toarray(), rtol=0, atol=1e-5)
    assert [set(words) for words in found["words"]] == [set(words) for words in model.decode(queries)]
    assert not {"milco", "triton"} & set(found["modules"])


def test_a_folder_alone_is_enough_without_this_package(exported, model, tmp_path):
    moved = shutil.copytree(exported, tmp_path / "elsewhere")
    check_bare(loaded_bare(str(moved), tmp_path, {}, HF_HUB_OFFLINE="1"), model)


def test_a_repository_of_the_hub_is_enough_and_its_revision_counts(exported, model, tmp_path):
    files = {str(path.relative_to(exported)): path.read_bytes() for path in exported.rglob("*.*")}
    with loopback.running() as hub:
        first = hub.commit("models/owner/name", files)
        spoilt = {name: b"{}" for name in files if name.endswith((".json", ".py"))}
        hub.commit("models/owner/name", spoilt)
        there = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}
        check_bare(loaded_bare("owner/name", tmp_path, {"revision": first}, **there), model)
    # Without the Hub, from its cache.
    check_bare(loaded_bare("owner/name", tmp_path, {"revision": first}, HF_HUB_OFFLINE="1"), model)


def test_the_copied_modules_are_those_of_the_package_and_import_each_other_alone(exported):
    copies = {path.stem: path.read_text(encoding="utf-8") for path in exported.glob("*.py")}
    for name, copy in copies.items():
        folder = ROOT / "milco" if name == "errors" else ROOT / "milco" / "modeling"
        head, _, code = copy.partition("\n")
        assert head.startswith("# SPDX-License-Identifier: Apache-2.0")
        assert code == (folder / f"{name}.py").read_text(encoding="utf-8")
        assert "milco." not in "".join(re.findall(r"^ *(?:from|import) .*", code, re.MULTILINE))
    wanted = set(re.findall(r"^ *from \.(\w+) import", "".join(copies.values()), re.MULTILINE))
    assert copies.keys() == wanted | {"sparse_encoder"}  # nothing is missing, and nothing is there that nobody wants


def test_a_module_of_the_encoder_is_not_overwritten(tmp_path):
    (tmp_path / "model.py").write_text("", encoding="utf-8")
    with pytest.raises(MilcoError, match=r"^model\.py: the code of the encoder has a file of this name"):
        write_code(tmp_path)
    assert (tmp_path / "model.py").read_text(encoding="utf-8") == ""


def test_a_published_folder_names_no_folder_of_this_machine(exported, encoder_checkpoint):
    for path in exported.rglob("*.json"):
        assert str(encoder_checkpoint.parents[1]) not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("trust", [False, True])
def test_where_this_package_is_imported_its_own_classes_are_taken(exported, encoder, trust):
    assert type(encoder[0].model).__module__.startswith("transformers_modules.")  # the copy is loaded as well
    assert type(AutoModel.from_pretrained(exported, trust_remote_code=trust)) is MilcoModel


@pytest.mark.parametrize("side", ["query", "document"])
def test_sparse_encoder_gives_the_same_rows(encoder, model, side):
    texts = [*TEXTS, LONG]
    wanted = getattr(model, f"encode_{side}")(texts).toarray()
    rows = getattr(encoder, f"encode_{side}")(texts, batch_size=3)
    assert rows.is_sparse and rows.shape == (len(texts), encoder.get_embedding_dimension())
    np.testing.assert_allclose(rows.to_dense(), wanted, rtol=0, atol=1e-5)
    # The sides differ in where they cut, and in nothing else.
    other = encoder.encode_query(texts) if side == "document" else encoder.encode_document(texts)
    differs = (other.to_dense() - rows.to_dense()).abs().amax(dim=1) > 1e-4
    assert differs.tolist() == [len(ids) > 8 for ids in model.tokenizer(texts)["input_ids"]]


def test_sparse_encoder_obeys_its_own_settings(encoder, model):
    rows = encoder.encode_query(TEXTS, max_active_dims=3)
    assert max(map(len, encoder.decode(rows))) == 3
    prompted = encoder.encode_query(["cat"], prompt="the ").to_dense()
    np.testing.assert_allclose(prompted, model.encode_query(["the cat"]).toarray(), rtol=0, atol=1e-5)
    encoder.max_seq_length, before = 3, encoder.max_seq_length
    short = encoder.encode_document(["the cat house"]).to_dense()
    encoder.max_seq_length = before
    np.testing.assert_allclose(short, model.encode_document(["the"]).toarray(), rtol=0, atol=1e-5)


def test_sparse_encoder_decodes_names_and_its_similarity_is_the_score(encoder, model):
    queries, documents = encoder.encode_query(TEXTS), encoder.encode_document([*TEXTS, LONG])
    for words, wanted in zip(encoder.decode(queries), model.decode(model.encode_query(TEXTS)), strict=True):
        assert dict(words) == pytest.approx(wanted, abs=1e-5)
    wanted = model.encode_query(TEXTS) @ model.encode_document([*TEXTS, LONG]).T
    np.testing.assert_allclose(encoder.similarity(queries, documents), wanted.toarray(), rtol=1e-5, atol=1e-4)


def test_sparse_encoder_is_saved_and_loaded_again(encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path / "again"))
    again = SparseEncoder(str(tmp_path / "again"), trust_remote_code=True)
    np.testing.assert_allclose(again.encode_query(TEXTS).to_dense(), encoder.encode_query(TEXTS).to_dense(), atol=1e-6)


def test_sparse_encoder_can_be_trained(encoder, exported):
    trained = SparseEncoder(str(exported), trust_remote_code=True)
    trained(trained.preprocess(TEXTS[:3]))["sentence_embedding"].sum().backward()
    assert all(parameter.grad is not None for name, parameter in trained.named_parameters() if "echo" in name)


def test_search_helper_finds_what_exact_search_finds(encoder, model):
    documents, queries = encoder.encode_document([*TEXTS, LONG]), encoder.encode_query(["die Katze", "maison"])
    found, _ = semantic_search_seismic(encoder.decode(queries), encoder.decode(documents), top_k=1)
    assert [hits[0]["corpus_id"] for hits in found] == encoder.similarity(queries, documents).argmax(dim=1).tolist()


def test_evaluator_and_mteb_measure_what_they_measure_with_milco_model(encoder, model):
    task = Tiny()
    wanted = task.evaluate(Encoder(model), "test", encode_kwargs={})
    (result,) = mteb.evaluate(encoder, Tiny(), cache=None).task_results
    found = {scores["hf_subset"]: scores for scores in result.scores["test"]}
    assert 0.05 < wanted["de"]["ndcg_at_10"] < 0.99
    for subset, scores in wanted.items():
        assert found[subset]["ndcg_at_10"] == pytest.approx(scores["ndcg_at_10"], abs=1e-4)
    data = task.dataset["de"]["test"]
    queries = {row["id"]: row["text"] for row in data["queries"]}
    documents = {row["id"]: f"{row['title']} {row['text']}".strip() for row in data["corpus"]}
    relevant = {
        query: {name for name, grade in found.items() if grade} for query, found in data["relevant_docs"].items()
    }
    evaluator = SparseInformationRetrievalEvaluator(queries, documents, relevant, write_csv=False)
    measures = evaluator(encoder)
    assert measures["dot_mrr@10"] == pytest.approx(wanted["de"]["mrr_at_10"], abs=1e-4)
    rows = model.encode_query(list(queries.values()))
    assert measures["query_active_dims"] == pytest.approx(rows.nnz / rows.shape[0])


def test_mteb_loads_the_folder_by_its_name(exported):
    found = SparseEncoderWrapper(str(exported), trust_remote_code=True)
    assert found.model.get_embedding_dimension() == 133


def run_onnx(folder, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


@pytest.mark.parametrize(("texts", "longest"), [(TEXTS, 64), ([LONG] * 3, 16), (["", ""], 64), (["Katze"], 64)])
def test_onnxruntime_gives_the_same_views_for_any_batch_and_length(exported, model, texts, longest):
    batch = model.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        wanted = model(**batch)
    found = run_onnx(exported, *batch.values())
    np.testing.assert_allclose(found["pivot"], wanted.pivot, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["source"], wanted.source, rtol=0, atol=1e-3)


def test_a_model_without_lexecho_has_one_output_and_the_head_is_left_as_it_was(model_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("milco.tools.export.TILE_TERMS", 7)  # several tiles, the last one shorter
    plain = MilcoModel.from_pretrained(model_folder, echo=False).eval()
    (tmp_path / "onnx").mkdir()
    write_onnx(plain, tmp_path / "onnx" / "model.onnx")
    batch = plain.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = plain(batch["input_ids"], batch["attention_mask"])
    found = run_onnx(tmp_path, batch["input_ids"], batch["attention_mask"])
    assert set(found) == {"pivot"} and wanted.source is None
    np.testing.assert_allclose(found["pivot"], wanted.pivot, rtol=0, atol=1e-3)
    assert type(plain.pivot_head).__name__ == "PivotHead"


def test_a_model_of_the_authors_recipe_is_the_same_everywhere(model, model_folder, tmp_path):
    """A trained scale, and special tokens in the source view."""
    theirs = MilcoModel.from_pretrained(model_folder, echo_scale_trained=True, special_token_ids=[]).eval()
    torch.nn.init.constant_(theirs.echo_scale, 1.5)
    theirs.save_pretrained(tmp_path / "theirs")
    export(tmp_path / "theirs", tmp_path / "out", onnx=True)
    check_bare(loaded_bare(str(tmp_path / "out"), tmp_path, {}, HF_HUB_OFFLINE="1"), theirs)
    batch = theirs.tokenizer(TEXTS, padding=True, return_tensors="pt")
    found, views = run_onnx(tmp_path / "out", batch["input_ids"], batch["attention_mask"]), theirs(**batch)
    np.testing.assert_allclose(found["source"], views.source.detach(), rtol=0, atol=1e-5)
    assert found["source"][:, 0].max() > 0  # the first token of a text is a special one
    assert not np.allclose(views.source.detach(), model(**batch).source.detach())


def test_what_cannot_be_exported_is_named(model_folder, encoder_checkpoint, monkeypatch, tmp_path):
    with pytest.raises(MilcoError, match=r"model .*encoder: a model of type 'bert'"):
        export(encoder_checkpoint, tmp_path / "out")
    half = shutil.copytree(model_folder, tmp_path / "half")
    (half / "model.safetensors").unlink()
    with pytest.raises(MilcoError, match=r"model .*half: .*model\.safetensors"):
        export(half, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(MilcoError, match=r"mine: holds something other than a MILCO model"):
        export(model_folder, tmp_path / "mine")
    monkeypatch.setattr("milco.tools.export.ONNX_PACKAGES", ("onnx", "onnx_of_the_future"))
    with pytest.raises(
        MilcoError, match=r"--onnx: onnx_of_the_future not installed; pip install '\.\[onnx\]' in milco"
    ):
        export(model_folder, tmp_path / "out", onnx=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "mine"]


def test_an_earlier_export_is_replaced_and_a_model_may_be_exported_again(exported, tmp_path):
    again = shutil.copytree(exported, tmp_path / "again")
    export(again, again)
    assert not (again / "onnx").exists() and (again / "model.py").exists()


@pytest.fixture
def project(exported, tmp_path, monkeypatch):
    """A project's folder after `make demo`, as docs/python.md takes it for given."""
    shutil.copytree(exported, tmp_path / "results" / "demo" / "model", ignore=shutil.ignore_patterns("onnx"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_runs_and_all_ways_give_the_same_scores(project, capsys):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, flags=re.DOTALL)
    scores = []
    paths = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
    environment = os.environ | {name: f"{path}:{os.environ.get(name, '')}" for name, path in paths.items()}
    for language, block in blocks:
        if language == "sh":
            subprocess.run(["bash", "-ec", block], env=environment, check=True)
            continue
        names: dict = {}
        exec(compile(block, "docs/python.md", "exec"), names)
        scores += [np.asarray(names["scores"])] if "scores" in names else []
    assert (len(blocks), len(scores)) == (7, 5)
    assert scores[0].shape == (1, 2) and (scores[0] > 0).all()
    for others in scores[1:]:
        np.testing.assert_allclose(others, scores[0], rtol=0, atol=1e-3)
    assert len(capsys.readouterr().out.splitlines()) >= 5

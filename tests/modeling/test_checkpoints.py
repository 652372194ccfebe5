"""Code that lies in a checkpoint is run where the configuration trusts it, and nowhere else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from miniature import OFFLINE, ROOT
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, BertModel, dynamic_module_utils

from milco.config import parse
from milco.errors import MilcoError
from milco.evaluation import encode
from milco.modeling.checkpoints import load
from milco.modeling.model import MilcoModel
from milco.modeling.teacher import Teacher
from milco.tools import command
from milco.tools.export import export
from milco.training import distill

pytestmark = pytest.mark.slow

CONFIGURATION = """
from transformers import BertConfig

class OwnConfig(BertConfig):
    model_type = "own"
"""
MODELING = """
from transformers import BertModel
from .configuration_own import OwnConfig
from .parts import TWICE

class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        found = super().forward(*args, **kwargs)
        found.last_hidden_state = TWICE * found.last_hidden_state
        return found
"""
PARTS = """
import pathlib, os

TWICE = 2.0
if "RAN" in os.environ:
    pathlib.Path(os.environ["RAN"]).touch()
"""
AUTO_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
TEXTS = ["Katze und Hund", "the red house"]
UNTRUSTED = r"cannot be loaded without running Python code in it; read that, then "


def with_code(checkpoint: Path, folder: Path, model_type: str | None = "own") -> Path:
    """A copy of a checkpoint that brings code: a model whose states are twice as large."""
    shutil.copytree(checkpoint, folder)
    for name, code in (("configuration_own", CONFIGURATION), ("modeling_own", MODELING), ("parts", PARTS)):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {"auto_map": AUTO_MAP, "model_type": model_type or settings["model_type"]}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def copies() -> list[str]:
    """Modules of models that have been loaded in this process."""
    return [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]


@pytest.fixture(autouse=True)
def ran(monkeypatch, tmp_path) -> Iterator[Path]:
    """A file that is there once the code has run; transformers keeps its copy of the code in this test's folder."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != dynamic_module_utils.HF_MODULES_CACHE])
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name in copies():
        monkeypatch.delitem(sys.modules, name)  # another test's
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    yield tmp_path / "ran"
    for name in copies():  # another test must not look for its own in this folder
        del sys.modules[name]


@pytest.fixture
def own(encoder_checkpoint, tmp_path) -> Path:
    return with_code(encoder_checkpoint, tmp_path / "own")


def test_a_model_of_its_own_kind_is_refused_in_one_line(own, teacher_checkpoint, ran):
    with pytest.raises(MilcoError, match=rf"^{own} {UNTRUSTED}set trust_remote_code of its source to true, [^\n]*$"):
        MilcoModel.from_checkpoints(own, teacher_checkpoint)
    with pytest.raises(MilcoError, match=UNTRUSTED):
        MilcoModel.from_checkpoints(own, teacher_checkpoint, trust_teacher=True)
    assert not ran.exists()


def test_what_transformers_knows_is_loaded_without_the_code(encoder_checkpoint, teacher_checkpoint, ran, tmp_path):
    known, lsr = (with_code(old, tmp_path / old.name, None) for old in (encoder_checkpoint, teacher_checkpoint))
    model = MilcoModel.from_checkpoints(known, lsr)
    model.save_pretrained(tmp_path / "model")
    assert type(MilcoModel.from_pretrained(tmp_path / "model").encoder) is BertModel
    assert Teacher(lsr).head.decoder.out_features and not list((tmp_path / "model").glob("*.py"))
    assert not ran.exists()


def test_a_finished_model_brings_its_encoder_s_code(own, teacher_checkpoint, tmp_path):
    model = MilcoModel.from_checkpoints(own, teacher_checkpoint, trust_encoder=True).eval()
    wanted = model.encode_query(TEXTS).toarray()
    assert type(model.encoder).__name__ == "OwnModel" and wanted.any()
    model.save_pretrained(tmp_path / "first")
    shutil.rmtree(own)
    # Again and again from what was saved, in processes that have never seen the checkpoint.
    for old, new, kind in (("first", "second", "MilcoModel"), ("second", "third", "AutoModel")):
        load_and_save = f"""
import sys, numpy
from milco.modeling.model import AutoModel, MilcoModel
model = {kind}.from_pretrained(sys.argv[1], trust_remote_code=True)
model.save_pretrained(sys.argv[2])
numpy.save(sys.argv[3], model.encode_query({TEXTS!r}).toarray())
"""
        command = [sys.executable, "-c", load_and_save, *(str(tmp_path / name) for name in (old, new, "rows.npy"))]
        cache = {"HF_MODULES_CACHE": str(tmp_path / f"modules of {new}"), "PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, env={**os.environ, **OFFLINE, **cache})
        shutil.rmtree(tmp_path / old)
        np.testing.assert_allclose(np.load(tmp_path / "rows.npy"), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [MilcoModel, AutoModel])
def test_a_finished_model_runs_its_code_only_when_asked(kind, own, teacher_checkpoint, ran, tmp_path):
    MilcoModel.from_checkpoints(own, teacher_checkpoint, trust_encoder=True).save_pretrained(tmp_path / "model")
    ran.unlink(missing_ok=True)
    with pytest.raises(MilcoError, match=rf"^{tmp_path / 'model'} {UNTRUSTED}load it with trust_remote_code=True, .*$"):
        kind.from_pretrained(tmp_path / "model")
    assert not ran.exists()


def test_a_command_runs_the_code_only_when_asked(own, teacher_checkpoint, ran, tmp_path, monkeypatch, capsys):
    MilcoModel.from_checkpoints(own, teacher_checkpoint, trust_encoder=True).save_pretrained(tmp_path / "model")
    ran.unlink(missing_ok=True)
    words = ["milco", "inspect", "die Katze", "--json", "--model", str(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=f"{UNTRUSTED}.*--trust-remote-code$"):
        command.main()
    assert not ran.exists()
    monkeypatch.setattr(sys, "argv", [*words, "--trust-remote-code"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert not ended.value.code and json.loads(capsys.readouterr().out)[0]["text"] == "die Katze"


def test_programs_run_the_code_of_the_source_that_says_so(prepared, values, own, teacher_checkpoint, tmp_path):
    source = {"uri": f"file:{own}", "format": "transformers"}
    stage = {**values["distill"], "pretrained_alignment_checkpoint": "none", "num_train_epochs": 0.4}
    bare = {**values, "sources": {**values["sources"], "encoder": source}, "distill": stage}
    trusted = {**bare, "sources": {**values["sources"], "encoder": {**source, "trust_remote_code": True}}}
    data, triples = prepared
    test, model = data / "collections" / "test", tmp_path / "run" / "trained"
    distill.run(parse(trusted), data, triples, own, teacher_checkpoint, data, model)
    for system, folder in (("dense", own), ("distill", model)):
        with pytest.raises(MilcoError, match=UNTRUSTED):
            encode.encode(parse(bare), system, folder, test, tmp_path / system)
        encode.encode(parse(trusted), system, folder, test, tmp_path / system)
    with pytest.raises(MilcoError, match=UNTRUSTED):
        export(model, tmp_path / "exported")
    export(model, tmp_path / "exported", trust_remote_code=True)
    one, other = (MilcoModel.from_pretrained(at, trust_remote_code=True) for at in (model, tmp_path / "exported"))
    np.testing.assert_array_equal(one.encode_query(TEXTS).toarray(), other.encode_query(TEXTS).toarray())
    with pytest.raises(MilcoError, match=UNTRUSTED):
        distill.run(parse(bare), data, triples, own, teacher_checkpoint, data, tmp_path / "other" / "model")


def test_a_cross_encoder_without_its_pooler_is_refused_and_an_encoder_is_not(cross_encoder_checkpoint, tmp_path):
    """Only a classifier reads what the pooler gives."""
    broken = shutil.copytree(cross_encoder_checkpoint, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    assert [tensors.pop(name) for name in [*tensors] if "pooler." in name]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(MilcoError, match=r"broken: no weights for bert\.pooler\.dense\.bias and 1 more"):
        load(AutoModelForSequenceClassification, broken, False)
    assert load(AutoModelForSequenceClassification, cross_encoder_checkpoint, False) and load(AutoModel, broken, False)


def test_a_teacher_without_the_files_of_its_tokenizer_is_refused(teacher_checkpoint, tmp_path):
    bare = shutil.copytree(teacher_checkpoint, tmp_path / "bare")
    for path in [*bare.glob("*token*"), *bare.glob("vocab*")]:
        path.unlink()
    with pytest.raises(MilcoError, match="bare: no files of a tokenizer"):
        Teacher(bare)

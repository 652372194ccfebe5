"""Models as MILCO's authors publish them: two tiny ones, written by their classes, with the vectors these gave."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import hub as loopback
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertModel

from milco.errors import MilcoError
from milco.modeling.authors_layout import BERT_TERMS
from milco.modeling.model import MilcoModel
from milco.modeling.teacher import Teacher
from milco.tools.export import export
from milco.tools.inspection import load_model

ROOT = Path(__file__).parents[2]
LAYOUT = Path(__file__).with_name("authors-layout")
RECORDED = json.loads((LAYOUT / "expected.json").read_text(encoding="utf-8"))
TEXTS = [text["text"] for text in RECORDED["released"]]
PARTS = {"encoder": LAYOUT / "encoder", "teacher": LAYOUT / "splade"}
# Code in their layout, as it lies beside their weights; its formulas are the paper's.
CODE = """
import pathlib
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel

pathlib.Path(__file__).with_name("ran").touch()

class MILCOConfig(PretrainedConfig):
    model_type = "milco"

class ContrastiveMILCOModel(PreTrainedModel):
    config_class = MILCOConfig

    def __init__(self, config):
        super().__init__(config)
        encoder = AutoConfig.from_pretrained(config.multilingual_encoder_checkpoint)
        teacher = AutoConfig.from_pretrained(config.lsr_encoder_checkpoint)
        self.m_model = AutoModel.from_config(encoder)
        self.mlm_head = AutoModelForMaskedLM.from_config(teacher).cls
        self.projector = nn.Linear(encoder.hidden_size, teacher.hidden_size)
        self.echo, self.scale = nn.Linear(encoder.hidden_size, 1), nn.Parameter(torch.ones(1))
        self.post_init()

    def encode(self, ids):
        states = self.m_model(torch.tensor([ids])).last_hidden_state
        logits = self.mlm_head(nn.functional.gelu(self.projector(states)))
        source = torch.zeros(self.config.m_vocab_size)
        source.index_add_(0, torch.tensor(ids), self.scale * torch.relu(self.echo(states)).flatten())
        return torch.cat([torch.log1p(torch.relu(logits.amax(dim=1)))[0], source])
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the released model whose config.json names its encoder and teacher by their folders, with code beside
    it, and with weights in its source view."""
    model = shutil.copytree(LAYOUT / "released", tmp_path / "theirs")
    change(model, lambda tensors: tensors["echo.bias"].add_(4.0))
    code = {"AutoConfig": "milco.MILCOConfig", "AutoModel": "milco.ContrastiveMILCOModel"}
    named = {"multilingual_encoder_checkpoint": str(PARTS["encoder"]), "lsr_encoder_checkpoint": str(PARTS["teacher"])}
    say(model, auto_map=code, **named)
    (model / "milco.py").write_text(CODE)
    return model


def change(model: Path, what) -> None:
    """Do something to the tensors of a checkpoint."""
    tensors = torch.load(model / "pytorch_model.bin", weights_only=True)
    what(tensors)
    torch.save(tensors, model / "pytorch_model.bin")


def say(model: Path, **settings) -> None:
    """Change config.json."""
    there = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(there | settings))


def check(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def rows(model: MilcoModel) -> torch.Tensor:
    return torch.from_numpy(model.encode_document(TEXTS).toarray())


@pytest.mark.parametrize("stage", ["released", "stage1"])
def test_vectors_are_those_that_were_recorded(stage):
    model = MilcoModel.from_pretrained(LAYOUT / stage, **PARTS)
    wanted = [text["vector"] for text in RECORDED[stage]]
    assert (model.echo is None) == (stage == "stage1")
    for encode in (model.encode_query, model.encode_document):
        check(model.decode(encode(TEXTS)), wanted)
        check([model.decode(encode([text]))[0] for text in TEXTS], wanted)
    assert [model.tokenizer(text)["input_ids"] for text in TEXTS] == [one["input_ids"] for one in RECORDED[stage]]
    assert model.config.query_max_length == model.config.passage_max_length == 64


def test_special_tokens_and_the_scale_have_their_part_in_the_source_view(folder):
    model = MilcoModel.from_pretrained(folder)
    assert model.echo_scale.item() == pytest.approx(1.7)
    source = rows(model)[:, model.config.pivot_vocab_size :]
    assert (source[:, 0] > 0).all()  # <s>
    negative = shutil.copytree(folder, folder.with_name("negative"))
    change(negative, lambda tensors: tensors["scale"].neg_())
    assert (rows(MilcoModel.from_pretrained(negative))[:, model.config.pivot_vocab_size :] == 0).all()


def test_their_code_still_works_and_gives_the_same_rows(folder):
    theirs = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(theirs).__name__ == "ContrastiveMILCOModel"
    ours = MilcoModel.from_pretrained(folder)
    with torch.no_grad():
        wanted = torch.stack([theirs.encode(ours.tokenizer(text)["input_ids"]) for text in TEXTS])
    assert (wanted[:, ours.config.pivot_vocab_size :] > 0).any()
    torch.testing.assert_close(rows(ours), wanted, atol=1e-5, rtol=0)


def test_none_of_their_code_runs_and_nothing_random_comes_without_it(folder):
    MilcoModel.from_pretrained(folder, trust_remote_code=True)
    assert not (folder / "ran").exists()
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModel.from_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["auto_map"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="milco"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model", "model"])
def test_weights_may_lie_in_one_file_or_in_shards_of_either_format(folder, form):
    wanted = rows(MilcoModel.from_pretrained(folder))
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    del tensors["mlm_head.predictions.decoder.bias"]  # one vector with predictions.bias: safetensors writes it once
    if form == "model.safetensors":
        save_file(tensors, folder / form, {"format": "pt"})
    else:
        end, write = (".bin", torch.save) if form == "pytorch_model" else (".safetensors", save_file)
        names = sorted(tensors)
        parts = {f"{form}-0000{n}-of-00002{end}": names[n - 1 :: 2] for n in (1, 2)}
        for name, part in parts.items():
            write({key: tensors[key] for key in part}, folder / name)
        places = {key: name for name, part in parts.items() for key in part}
        (folder / f"{form}{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert torch.equal(rows(MilcoModel.from_pretrained(folder)), wanted)


def test_weights_may_be_a_file_from_before_torch_wrote_archives(folder):
    wanted = rows(MilcoModel.from_pretrained(folder))
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(rows(MilcoModel.from_pretrained(folder)), wanted)


@pytest.mark.parametrize("layout", ["theirs", "ours"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_computed_in_float32(folder, tmp_path, layout, kind):
    change(folder, lambda tensors: cast(tensors, kind))
    change(folder, lambda tensors: cast(tensors, torch.float32))
    wanted = rows(MilcoModel.from_pretrained(folder))
    if layout == "theirs":
        change(folder, lambda tensors: cast(tensors, kind))
    else:
        MilcoModel.from_pretrained(folder).to(kind).save_pretrained(tmp_path / "ours")
    place = tmp_path / layout
    assert torch.equal(rows(MilcoModel.from_pretrained(place)), wanted)
    model = MilcoModel.from_pretrained(place, dtype=kind)
    assert {parameter.dtype for parameter in model.parameters()} == {kind}
    torch.testing.assert_close(rows(model), wanted, atol=0.1, rtol=0)


def cast(tensors, kind):
    tensors.update({name: tensor.to(kind) for name, tensor in tensors.items()})


def test_a_head_may_have_the_names_of_the_roberta_family(folder):
    wanted = rows(MilcoModel.from_pretrained(folder))
    change(folder, as_roberta)
    model = MilcoModel.from_pretrained(folder)
    assert model.pivot_head.norm.eps == 1e-5
    model.pivot_head.norm.eps = 1e-12
    assert torch.equal(rows(model), wanted)


def as_roberta(tensors):
    for name in [name for name in tensors if name.startswith("mlm_head.")]:
        short = name.replace("predictions.", "").replace("transform.", "").replace("LayerNorm", "layer_norm")
        tensors[short] = tensors.pop(name)


def test_a_roberta_head_has_its_own_names_in_errors(folder):
    change(folder, as_roberta)
    change(folder, lambda tensors: tensors.pop("mlm_head.layer_norm.weight"))
    with pytest.raises(MilcoError, match=r": mlm_head\.layer_norm\.weight is missing"):
        MilcoModel.from_pretrained(folder)


def test_a_first_stage_may_leave_out_that_it_has_no_lexecho(tmp_path):
    model = shutil.copytree(LAYOUT / "stage1", tmp_path / "stage1")
    settings = json.loads((model / "config.json").read_text())
    settings.pop("echo", None)
    (model / "config.json").write_text(json.dumps(settings))
    found = MilcoModel.from_pretrained(model, **PARTS)
    assert found.echo is None
    check(found.decode(found.encode_document(TEXTS)), [text["vector"] for text in RECORDED["stage1"]])


def test_a_text_is_cut_where_the_encoder_has_no_more_positions(folder):
    say_tokenizer = folder / "tokenizer_config.json"
    say_tokenizer.write_text(json.dumps(json.loads(say_tokenizer.read_text()) | {"model_max_length": 8192}))
    model = MilcoModel.from_pretrained(folder)
    assert model.config.passage_max_length == model.config.query_max_length == model.positions < 8192
    assert model.encode_document(["door " * 9000]).nnz
    assert MilcoModel.from_pretrained(folder, query_max_length=7).config.query_max_length == 7


def test_a_padded_vocabulary_has_columns_without_a_term(folder):
    before = rows(MilcoModel.from_pretrained(folder))

    def pad(tensors):
        for name in ("weight", "bias"):
            old = tensors[f"mlm_head.predictions.decoder.{name}"]
            tensors[f"mlm_head.predictions.decoder.{name}"] = torch.cat([old, torch.zeros(8, *old.shape[1:])])
        tensors["mlm_head.predictions.decoder.bias"][165] = 9.0
        tensors["mlm_head.predictions.bias"] = tensors["mlm_head.predictions.decoder.bias"]

    change(folder, pad)
    say(folder, en_vocab_size=168)
    model = MilcoModel.from_pretrained(folder)
    found = rows(model)
    assert torch.equal(torch.cat([found[:, :160], found[:, 168:]], dim=1), before)
    assert "unk_165" in model.encode_text(TEXTS, return_dict=True)[0] and 165 not in model.get_vocab()


@pytest.mark.parametrize("field", ["en_vocab_size", "en_hidden_size", "m_hidden_size", "lsr_encoder_checkpoint"])
def test_a_field_that_is_missing_is_named(folder, field):
    settings = json.loads((folder / "config.json").read_text())
    del settings[field]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MilcoError, match=rf"config\.json: {field} is missing; download it again$"):
        MilcoModel.from_pretrained(folder)


def test_a_broken_tokenizer_or_list_of_shards_is_one_line(folder):
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text("{")
    say(folder, multilingual_encoder_checkpoint=str(folder / "none"))
    shutil.copytree(PARTS["encoder"], folder / "encoder", ignore=shutil.ignore_patterns("tok*"))
    with pytest.raises(MilcoError, match="no tokenizer of its encoder") as error:
        MilcoModel.from_pretrained(folder)
    assert "\n" not in str(error.value)
    (folder / "tokenizer.json").write_text(whole)
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00001.bin")
    (folder / "pytorch_model.bin.index.json").write_text("{")
    with pytest.raises(MilcoError, match=r"pytorch_model\.bin\.index\.json: broken \(.*; download it again$"):
        MilcoModel.from_pretrained(folder)


def test_a_tokenizer_with_more_tokens_than_the_encoder_is_refused(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder, config=BertModel.config_class())
    tokenizer.add_tokens([f"new{n}" for n in range(200)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(MilcoError, match=r"its tokenizer has \d+ tokens, but its encoder 102; put the encoder's own"):
        MilcoModel.from_pretrained(folder)


def twice(tensors):
    tensors["mlm_head.dense.weight"] = tensors["mlm_head.predictions.transform.dense.weight"] + 1


def two_scales(tensors):
    tensors["scale"] = torch.ones(2)


def surplus(tensors):
    tensors["m_model.encoder.layer.2.output.dense.bias"] = torch.zeros(32)


def foreign(tensors):
    tensors["classifier.weight"] = torch.zeros(2, 2)


def narrow(tensors):
    tensors["projector.weight"] = torch.zeros(24, 31)


def untied(tensors):
    tensors["mlm_head.predictions.bias"] = tensors["mlm_head.predictions.bias"] + 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda tensors: tensors.pop("projector.bias"), "projector.bias is missing"),
        (lambda tensors: tensors.pop("echo.weight"), "echo.weight is missing"),
        (lambda tensors: tensors.pop("scale"), "scale is missing"),
        (
            lambda tensors: tensors.pop("mlm_head.predictions.transform.LayerNorm.weight"),
            "transform.LayerNorm.weight is",
        ),
        (surplus, "m_model.encoder.layer.2.output.dense.bias has no place"),
        (foreign, "classifier.weight has no place"),
        (narrow, "projector.weight is 24×31, but its place is 24×32"),
        (twice, "mlm_head.dense.weight and mlm_head.predictions.transform.dense.weight have one place in a model"),
        (two_scales, "scale is 2, but its place is 1"),
        (untied, "mlm_head.predictions.bias and mlm_head.predictions.decoder.bias are one vector"),
    ],
)
def test_a_tensor_without_a_place_is_named(folder, fault, said):
    change(folder, fault)
    with pytest.raises(MilcoError) as error:
        MilcoModel.from_pretrained(folder)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_our_own_models_load_that_were_saved_as_milco(model_folder, tmp_path):
    """As they were saved before that name was left to the authors' models."""
    earlier = shutil.copytree(model_folder, tmp_path / "earlier")
    say(earlier, model_type="milco")
    wanted = MilcoModel.from_pretrained(model_folder)
    assert torch.equal(rows(MilcoModel.from_pretrained(earlier)), rows(wanted))
    assert torch.equal(rows(load_model(earlier)), rows(wanted))
    for path in earlier.glob("*token*"):
        path.unlink() if path.is_file() else None
    with pytest.raises(MilcoError, match="no files of a tokenizer"):
        MilcoModel.from_pretrained(earlier).encode_document(TEXTS)


def test_our_own_models_must_be_complete_too_by_every_route(model_folder, tmp_path, teacher_checkpoint):
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    del tensors["connector.weight"]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    for kind in (MilcoModel, AutoModel):
        with pytest.raises(MilcoError, match=r"broken: .*connector\.weight is missing"):
            kind.from_pretrained(broken)
    with pytest.raises(MilcoError, match=r"not of a MILCO model"):
        MilcoModel.from_pretrained(teacher_checkpoint)


def test_a_checkpoint_without_the_head_that_is_wanted_is_refused(teacher_checkpoint, tmp_path):
    BertModel.from_pretrained(teacher_checkpoint).save_pretrained(tmp_path / "headless")
    AutoTokenizer.from_pretrained(teacher_checkpoint).save_pretrained(tmp_path / "headless")
    with pytest.raises(MilcoError, match=r"headless: no weights for cls\.predictions\..* BertForMaskedLM"):
        Teacher(tmp_path / "headless")


def test_a_file_of_more_than_tensors_is_not_run(folder):
    class Payload:
        def __reduce__(self):
            return Path.touch, (folder / "ran",)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(MilcoError, match=r"pytorch_model\.bin: no file of tensors alone"):
        MilcoModel.from_pretrained(folder)
    assert not (folder / "ran").exists()


def test_lexecho_can_be_added_to_a_model_of_theirs_and_left_out(folder):
    """Stage 2 adds it to a model of their Stage 1."""
    model = MilcoModel.from_pretrained(LAYOUT / "stage1", **PARTS, echo=True, echo_scale=0.5, query_max_length=9)
    assert model.echo.bias.item() == pytest.approx(0.1) and model.config.query_max_length == 9
    assert MilcoModel.from_pretrained(folder, echo=False).echo is None


def test_the_shape_of_the_encoder_is_looked_for_where_it_may_be(folder):
    wanted = rows(MilcoModel.from_pretrained(folder))
    shape = json.loads((PARTS["encoder"] / "config.json").read_text())
    say(folder, multilingual_encoder_checkpoint="BAAI/bge-m3-unsupervised")
    with pytest.raises(MilcoError, match=r"put the config\.json of BAAI/bge-m3-unsupervised into .*theirs/encoder/"):
        MilcoModel.from_pretrained(folder)
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text(json.dumps(shape))
    assert torch.equal(rows(MilcoModel.from_pretrained(folder)), wanted)
    shutil.rmtree(folder / "encoder")
    with pytest.raises(MilcoError, match=r"an encoder of width 24, but .*theirs has one of width 32"):
        MilcoModel.from_pretrained(folder, encoder=PARTS["teacher"])
    say(folder, m_config=shape)
    assert torch.equal(rows(MilcoModel.from_pretrained(folder)), wanted)


def test_an_encoder_that_lies_within_needs_no_other_and_a_milco_model_is_none(folder):
    say(folder, multilingual_encoder_checkpoint=str(folder))
    with pytest.raises(
        MilcoError, match=r"theirs: this is a MILCO model, and not its encoder; put the encoder's config"
    ):
        MilcoModel.from_pretrained(folder)


def test_a_tokenizer_without_its_files_is_looked_for_elsewhere_and_never_an_empty_one(folder, tmp_path):
    wanted = rows(MilcoModel.from_pretrained(folder))
    for path in folder.glob("*token*"):
        path.unlink()
    assert torch.equal(rows(MilcoModel.from_pretrained(folder)), wanted)  # that of the encoder, which config.json names
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(PARTS["encoder"] / "config.json", bare)
    say(folder, multilingual_encoder_checkpoint=str(bare))
    with pytest.raises(MilcoError, match=r"theirs: no tokenizer of its encoder \(.*no files of a tokenizer.*bare: "):
        MilcoModel.from_pretrained(folder)


def test_a_precision_or_a_revision_is_named_as_in_transformers(folder):
    assert MilcoModel.from_pretrained(folder, dtype="auto").dtype == torch.float32
    say(folder, dtype="bfloat16")
    assert MilcoModel.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
    assert MilcoModel.from_pretrained(folder).dtype == torch.float32
    at = shutil.copytree(folder, folder.with_name("model@home"))
    assert torch.equal(rows(MilcoModel.from_pretrained(at)), rows(MilcoModel.from_pretrained(folder)))


def test_english_terms_of_bert_uncased_have_their_names_without_any_other_repository(folder):
    say(folder, en_vocab_size=BERT_TERMS, lsr_encoder_checkpoint="naver/splade-v3")
    change(folder, more_terms)
    model = MilcoModel.from_pretrained(folder)
    ids = model.pivot_tokenizer("Reset your password, naïve café!")["input_ids"]
    assert ids == [101, 25141, 2115, 20786, 1010, 15743, 7668, 999, 102]
    assert len(model.pivot_tokenizer) == BERT_TERMS and model.column_name(BERT_TERMS - 1) == "e_##～"
    assert model.column_name(20786) == "e_password" and model.width == BERT_TERMS + 102
    model.save_pretrained(folder.with_name("saved"))
    again = AutoTokenizer.from_pretrained(folder.with_name("saved") / "pivot_tokenizer")
    assert again.get_vocab() == model.pivot_tokenizer.get_vocab()


def more_terms(tensors):
    generator = torch.Generator().manual_seed(0)
    del tensors["mlm_head.predictions.bias"]
    tensors["mlm_head.predictions.decoder.weight"] = torch.randn(BERT_TERMS, 24, generator=generator)
    tensors["mlm_head.predictions.decoder.bias"] = torch.full((BERT_TERMS,), -12.0)


def test_a_model_whose_english_terms_have_no_names_encodes_and_says_what_to_do(folder):
    say(folder, lsr_encoder_checkpoint="naver/splade-v3")
    model = MilcoModel.from_pretrained(folder)
    assert model.encode_query(TEXTS).nnz
    with pytest.raises(MilcoError, match=r"no tokenizer for its 160 English terms \(naver/splade-v3: .*pivot_tokeniz"):
        model.column_name(0)
    shutil.copytree(PARTS["teacher"], folder / "pivot_tokenizer")
    assert model.column_name(0) == "e_[PAD]"


@pytest.mark.slow
def test_an_exported_one_is_a_folder_that_stands_alone(folder, tmp_path):
    export(folder, tmp_path / "ours")
    wanted = MilcoModel.from_pretrained(folder)
    shutil.rmtree(folder)
    ours = MilcoModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(rows(ours), rows(wanted), atol=1e-6, rtol=0)
    named = str(PARTS["encoder"].parent)
    said = [path.read_text() for path in (tmp_path / "ours").rglob("*.json")]
    assert not any("BAAI" in text or named in text or "trust" in text for text in said)
    script = (
        "import json, sys; from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print(json.dumps(model.decode(model.encode_document(json.loads(sys.argv[2])))))"
    )
    command = [sys.executable, "-I", "-c", script, tmp_path / "ours", json.dumps(TEXTS)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    check(json.loads(done.stdout.splitlines()[-1]), wanted.decode(wanted.encode_document(TEXTS)))


@pytest.mark.slow
def test_a_name_on_the_hub_is_enough_and_of_the_encoder_comes_one_small_file(folder, tmp_path):
    named = {"multilingual_encoder_checkpoint": "BAAI/bge-m3-unsupervised", "lsr_encoder_checkpoint": "naver/splade-v3"}
    say(folder, **named)
    wanted = MilcoModel.from_pretrained(folder, **PARTS)
    with loopback.running() as hub:
        revision = hub.commit("models/omai-research/milco-650m", contents(folder))
        weights = {"model.safetensors": bytes(1000)}
        hub.commit("models/BAAI/bge-m3-unsupervised", contents(LAYOUT / "encoder") | weights)
        hub.commit("models/naver/splade-v3", contents(LAYOUT / "splade") | weights)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HF_") and not name.lower().endswith("_proxy")
        }
        environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        for address in ("omai-research/milco-650m", f"omai-research/milco-650m@{revision}"):
            command = [sys.executable, "-m", "milco", "inspect", "--json", "--model", address, *TEXTS]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr
            found = [
                {
                    f"{mark}_{word}": weight
                    for mark, view in (("e", "pivot"), ("m", "source"))
                    for word, weight in one[view].items()
                }
                for one in json.loads(done.stdout)
            ]
            check(found, wanted.decode(wanted.encode_document(TEXTS)))
        command[command.index(address)] = "omai-research/milco-x"
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 1 and "no such folder, nor such a model on the Hub" in done.stderr
        asked = [request.path for request in hub.log]
        export(folder, tmp_path / "ours", encoder=PARTS["encoder"], teacher=PARTS["teacher"])
        command[command.index("omai-research/milco-x")] = str(tmp_path / "ours")
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and len(hub.log) == len(asked)  # a folder of ours asks for nothing
    assert not any("model.safetensors" in path and "milco-650m" not in path for path in asked)
    assert not any(path.endswith("milco.py") for path in asked)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

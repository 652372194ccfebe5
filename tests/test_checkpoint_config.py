"""Lengths beyond the positions of a checkpoint are refused in one line, before anything has run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from miniature import Project
from test_authors_layout import LAYOUT
from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

from milco.checkpoint_config import positions
from milco.config import parse
from milco.errors import MilcoError
from milco.evaluation.encode import encoder_of
from milco.experiments import Experiment
from milco.training import teacher, trainer

SHAPE = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (BertModel, BertConfig(**SHAPE, max_position_embeddings=12)),
        (XLMRobertaModel, XLMRobertaConfig(**SHAPE, max_position_embeddings=12)),
        (XLMRobertaModel, XLMRobertaConfig(**SHAPE, max_position_embeddings=12, pad_token_id=3)),
    ],
)
def test_a_checkpoint_reads_as_many_tokens_as_it_is_said_to_and_no_more(model, config, tmp_path):
    model(config).save_pretrained(tmp_path)
    most, encoder = positions(tmp_path), model.from_pretrained(tmp_path).eval()
    encoder(torch.full((1, most), 5))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(torch.full((1, most + 1), 5))


def test_a_milco_model_reads_what_its_encoder_reads(model_folder, encoder_checkpoint):
    assert positions(model_folder) == positions(encoder_checkpoint) == 64


def test_so_does_one_in_the_authors_layout_whose_encoder_lies_beside_it(tmp_path):
    model = shutil.copytree(LAYOUT / "released", tmp_path / "released")
    assert positions(model) is None
    shutil.copytree(LAYOUT / "encoder", model / "encoder")
    assert positions(model) == positions(LAYOUT / "encoder") >= 64


@pytest.mark.parametrize("said", [None, {"model_type": "modernbert", "max_position_embeddings": 12}, {}])
def test_what_is_not_there_or_has_no_table_has_no_limit(said, tmp_path):
    if said is not None:
        (tmp_path / "config.json").write_text(json.dumps(said))
    assert positions(tmp_path) is None


def check(values: dict, **changes) -> str:
    changed = {name: {**values[name], **change} for name, change in changes.items()}
    with pytest.raises(MilcoError) as error:
        Experiment(parse({**values, **changed})).check_lengths()
    return str(error.value)


def test_a_length_beyond_the_encoder_s_or_the_teacher_s_positions_is_named(values, tmp_path):
    Experiment(parse(values)).check_lengths()
    message = check(values, model={"passage_max_length": 65})
    assert message == (
        "model.passage_max_length: 65, but sources.encoder has positions for 64 tokens; set it to 64 or less"
    )
    assert check(values, align={"max_length": 65}).startswith("align.max_length: 65, but sources.encoder has positions")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 32}))
    short = {"sources": {"lsr": {**values["sources"]["lsr"], "uri": f"file:{tmp_path}"}}}
    assert check(values, **short).endswith("set it to 32 or less, or take teacher out of evaluate.baselines")
    other = {"other": {"uri": f"file:{tmp_path}", "format": "transformers"}}
    baselines = {**values["evaluate"], "baselines": ["bm25", "other"]}
    assert check({**values, "evaluate": baselines}, sources={**values["sources"], **other}).endswith(
        "set it to 32 or less, or take other out of evaluate.baselines"
    )
    without = {**values["evaluate"], "baselines": ["bm25"]}
    sources = {**values["sources"], **short["sources"]}
    Experiment(parse({**values, "sources": sources, "evaluate": without})).check_lengths()
    assert check({**values, "evaluate": without}, **short, align={"max_length": 33}).startswith(
        "align.max_length: 33, but sources.lsr has positions for 32 tokens"
    )


@pytest.mark.slow
def test_the_workflow_refuses_it_before_any_job(values, tmp_path):
    project = Project(tmp_path, {**values, "model": {**values["model"], "passage_max_length": 1024}})
    plan = subprocess.run(project.command("--dry-run", "all"), capture_output=True, text=True)
    wanted = "model.passage_max_length: 1024, but sources.encoder has positions for 64 tokens; set it to 64 or less"
    assert plan.returncode and wanted in plan.stdout + plan.stderr and "Traceback" not in plan.stderr


def test_bfloat16_on_a_device_without_it_is_named(values, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    config, output = parse({**values, "align": {**values["align"], "bf16": True}}), tmp_path / "run" / "model"
    with pytest.raises(MilcoError, match=r"^align\.bf16: Tesla T4 has no bfloat16; set align\.bf16 to false$"):
        trainer.train(config, config.align, "align", None, range(8), None, None, None, [tmp_path], output)
    assert not Path(output.parent).exists()
    evaluate = {**values["evaluate"], "bf16": True}
    with pytest.raises(MilcoError, match=r"^evaluate\.bf16: Tesla T4 has no bfloat16; set evaluate\.bf16 to false$"):
        encoder_of(parse({**values, "evaluate": evaluate}), "dense", tmp_path)
    with pytest.raises(MilcoError, match=r"^align\.teacher_precision: Tesla T4 .* to float32$"):
        teacher.write_targets(tmp_path, tmp_path, 8, 8, tmp_path / "targets", precision="bf16")


def test_positions_of_a_config_as_others_write_it(tmp_path):
    said = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8-sig")
    assert positions(tmp_path) == 512
    for broken in ("{", "[]"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(MilcoError, match=f"^{tmp_path}/config.json: broken "):
            positions(tmp_path)

"""Vectors of the test collections: written in parts, read as one."""

import numpy as np
import pytest
from miniature import Project

import milco.encode
from milco import config
from milco.beir import read_collection
from milco.encode import Vectors, encode, merge
from milco.model import MilcoModel, in_text_order


@pytest.fixture
def corpora(values, tmp_path):
    project = Project(tmp_path / "project", values)
    project.snakemake("artifacts/corpora/" + config.parse(values).keys()["corpora"])
    return project.one("artifacts/corpora/*") / "collections" / "test"


@pytest.mark.parametrize("system", ["distill", "dense"])
def test_parts_and_shards_hold_the_vectors_of_all_texts(
    monkeypatch, corpora, values, system, model_folder, encoder_checkpoint, tmp_path
):
    settings = config.parse(values)
    model = model_folder if system == "distill" else encoder_checkpoint
    encode(settings, system, model, corpora, tmp_path / "whole")
    monkeypatch.setattr(milco.encode, "WINDOW", 7)
    shards = [tmp_path / str(shard) for shard in range(2)]
    for number, shard in enumerate(shards):
        encode(settings, system, model, corpora, shard, number, 2)
    merge(shards, tmp_path / "merged")
    assert len(list((tmp_path / "merged").glob("documents-*.safetensors"))) == 6  # 40 documents in two shards
    texts = list(read_collection(corpora / "mine").documents.values())
    one, other = (Vectors(tmp_path / name).of("documents", texts) for name in ("whole", "merged"))
    assert one.shape == other.shape and abs(one - other).max() < 1e-4
    if system == "distill":
        milco_model = MilcoModel.from_pretrained(model)
        parts = milco_model.iter_rows(texts, settings.model.passage_max_length, 64)
        wanted = in_text_order(parts, milco_model.width)
        np.testing.assert_allclose(one.toarray(), wanted.toarray(), atol=1e-4)

"""Vectors of the test collections: written in parts, read as one."""

import json
from itertools import islice

import numpy as np
import pytest
from miniature import Project

import milco.evaluation.encode
from milco import config
from milco.data.beir import read_collection
from milco.errors import MilcoError
from milco.evaluation.encode import encode, texts_of_shard
from milco.evaluation.lookup import Vectors, merge
from milco.modeling.model import MilcoModel
from milco.modeling.rows import in_text_order

pytestmark = pytest.mark.slow


@pytest.fixture
def corpora(values, tmp_path):
    project = Project(tmp_path / "project", values)
    project.snakemake("collections")
    return project.one("artifacts/collections/*") / "collections" / "test"


@pytest.mark.parametrize("system", ["distill", "dense"])
def test_parts_and_shards_hold_the_vectors_of_all_texts(
    monkeypatch, corpora, values, system, model_folder, encoder_checkpoint, tmp_path
):
    settings = config.parse(values)
    model = model_folder if system == "distill" else encoder_checkpoint
    encode(settings, system, model, corpora, tmp_path / "whole")
    monkeypatch.setattr(milco.evaluation.encode, "WINDOW", 7)
    shards = [tmp_path / str(shard) for shard in range(2)]
    for number, shard in enumerate(shards):
        encode(settings, system, model, corpora, shard, number, 2)
    merge(shards, tmp_path / "merged")
    parts = [path.read_text().split() for path in (tmp_path / "merged").glob("documents-*.ids.txt")]
    assert max(map(len, parts)) == 7 and sum(map(len, parts)) == len(set().union(*parts)) == 40
    texts = list(read_collection(corpora / "mine").documents.values())
    one, other = (Vectors(tmp_path / name).of("documents", texts) for name in ("whole", "merged"))
    assert one.shape == other.shape and abs(one - other).max() < 1e-4
    for name in ("whole", "merged"):
        counts = json.loads((tmp_path / name / "cut.json").read_text())
        assert counts["documents"] == {"texts": {"en": 40}, "cut": {}}
    if system == "distill":
        milco_model = MilcoModel.from_pretrained(model)
        parts = milco_model.iter_rows(texts, settings.model.passage_max_length, 64)
        wanted = in_text_order(parts, milco_model.width)
        np.testing.assert_allclose(one.toarray(), wanted.toarray(), atol=1e-4)


def test_documents_are_read_as_they_are_encoded_and_those_of_two_collections_once(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        lines = [json.dumps({"_id": f"{folder.name}{n}", "title": "", "text": f"text {n}"}) for n in range(50)]
        (folder / "corpus.jsonl").write_text("\n".join([*lines, "no JSON"]), encoding="utf-8")
    found = texts_of_shard(folders, "documents", 0, 1)
    assert [text for _, text, _ in islice(found, 50)] == [f"text {n}" for n in range(50)]
    with pytest.raises(MilcoError, match=r"corpus.jsonl:51: not a JSON object"):
        next(found)  # the next line is read now, not earlier
    (folders[0] / "corpus.jsonl").write_text(lines[0] + "\n", encoding="utf-8")
    (folders[1] / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shards = [
        {identifier: text for identifier, text, _ in texts_of_shard(folders, "documents", shard, 3)}
        for shard in range(3)
    ]
    assert min(map(len, shards)) > 5 and sum(map(len, shards)) == len({**shards[0], **shards[1], **shards[2]}) == 50


def test_texts_that_are_cut_are_counted_by_language_on_any_number_of_shards(
    corpora, values, model_folder, encoder_checkpoint, tmp_path, capsys
):
    tokenizer = MilcoModel.from_pretrained(model_folder).tokenizer
    collection = read_collection(corpora / "mine")
    wanted, limits = {}, {}
    for side, language in (("queries", "xx"), ("documents", "en")):
        lengths = [len(ids) for ids in tokenizer(list(getattr(collection, side).values()))["input_ids"]]
        limits[side] = sorted(lengths)[len(lengths) // 2]  # some are longer, some are just as long
        cut = sum(length > limits[side] for length in lengths)
        wanted[side] = {"texts": {language: len(lengths)}, "cut": {language: cut} if cut else {}}
    assert 0 < wanted["documents"]["cut"]["en"] < 20
    lengths = {"query_max_length": limits["queries"], "passage_max_length": limits["documents"]}
    settings = config.parse({**values, "model": {**values["model"], **lengths}})
    for system, model in (("distill", model_folder), ("dense", encoder_checkpoint)):
        shards = [tmp_path / f"{system}{shard}" for shard in range(2)]
        for number, shard in enumerate(shards):
            encode(settings, system, model, corpora, shard, number, 2)
        merge(shards, tmp_path / system)
        assert json.loads((tmp_path / system / "cut.json").read_text()) == wanted
    assert f" documents are cut at {limits['documents']} tokens: en " in capsys.readouterr().out

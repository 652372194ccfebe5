"""Stage 2: its loss, put together from its parts as the configuration says, and whole trainings of other kinds."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from miniature import settings
from test_authors_layout import LAYOUT, PARTS

from milco.config import parse
from milco.data.triples import SIDES, Triples, pack
from milco.errors import MilcoError
from milco.evaluation import encode, evaluate
from milco.modeling.losses import contrastive_loss, distillation_loss
from milco.modeling.model import MilcoModel, Views
from milco.training import distill
from milco.training.distill import Groups, loss
from milco.training.mine import Miner

QUERIES, GROUP, TERMS = 4, 3, 20


@pytest.fixture
def batch():
    """Views of 4 queries with 3 documents each, and what is known of them."""
    random = torch.Generator().manual_seed(0)
    pooled = torch.randn(QUERIES * (1 + GROUP), TERMS, generator=random)
    part = {
        "input_ids": torch.zeros(len(pooled), 1, dtype=torch.long),
        "documents": torch.arange(QUERIES * GROUP),
        "scores": 3 * torch.randn(QUERIES, GROUP, generator=random),
    }
    return Views(pooled, None), part


@pytest.fixture
def packed(values, encoder_checkpoint, tmp_path):
    """What rule `pack` makes of triples."""

    def make(triples: dict) -> Triples:
        pq.write_table(pa.table(triples), tmp_path / "triples.parquet")
        pack(parse(values), tmp_path / "triples.parquet", encoder_checkpoint, 1, tmp_path / "packed")
        return Triples(tmp_path / "packed")

    return make


def terms(batch, **changes) -> dict[str, float]:
    values = settings("data", "teacher", "encoder")
    values["distill"] = {**values["distill"], **changes}
    return {name: value.item() for name, value in loss(parse(values))(*batch).items()}


def wanted(batch) -> tuple[float, float]:
    """Distillation loss and InfoNCE of the batch."""
    views, part = batch
    scores = views.pivot[:QUERIES] @ views.pivot[QUERIES:].T
    positives = torch.arange(QUERIES) * GROUP
    own = torch.stack([scores[query, GROUP * query : GROUP * (query + 1)] for query in range(QUERIES)])
    return (
        distillation_loss(own, part["scores"]).mean().item(),
        contrastive_loss(scores, positives, part["documents"]).mean().item(),
    )


@pytest.mark.parametrize(("distillation", "contrast"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_ranking_is_taught_by_the_losses_that_have_a_weight(batch, distillation, contrast):
    found = terms(batch, distillation_weight=distillation, contrastive_weight=contrast)
    divergence, infonce = wanted(batch)
    parts = {"loss_distillation": distillation * divergence, "loss_contrast": contrast * infonce}
    ranking = {name: value for name, value in found.items() if name in parts}
    assert ranking == pytest.approx({name: value for name, value in parts.items() if value})


def test_what_is_only_watched_does_not_hang_on_the_weights(batch):
    one, other = (terms(batch, distillation_weight=weight, contrastive_weight=1.0) for weight in (0.0, 1.0))
    assert other.keys() - one.keys() == {"loss_distillation"}
    assert {name: other[name] for name in one} == one
    assert {"agreement", "active_query", "empty_document"} <= one.keys()


@pytest.mark.parametrize("contrast", [0.0, 1.0])
def test_scores_are_in_float32_where_the_model_is_in_bfloat16(batch, contrast):
    wanted = terms(batch, contrastive_weight=contrast)
    with torch.autocast("cpu", torch.bfloat16):
        assert terms(batch, contrastive_weight=contrast) == wanted


def test_a_group_is_a_positive_and_different_negatives_with_their_scores(values, model, packed):
    config = parse({**values, "distill": {**values["distill"], "train_group_size": 3}})
    triples = {
        "query": ["die Katze", "Haus"],
        "pos": [["the cat"], ["the house", "a house"]],
        "neg": [["the dog", "the house", "a river"], ["the cat", "the dog", "a tree", "the night"]],
        "pos_scores": [[9.0], [8.0, 7.0]],
        "neg_scores": [[1.5, 1.0, 0.5], [2.5, 2.0, 0.25, 0.125]],
    }
    found = packed(triples)
    groups = Groups(found, model.tokenizer.pad_token_id, config)

    def ids(text: str) -> list[int]:
        return model.tokenizer(text)["input_ids"]

    assert found.longest(np.arange(2)).tolist() == [max(len(ids(text)) for text in texts) for texts in triples["neg"]]
    seen = set()
    for step in range(30):
        part = groups(np.array([1, 0]), step)
        texts = [row[mask.bool()].tolist() for row, mask in zip(part["input_ids"], part["attention_mask"], strict=True)]
        assert texts[:2] == [ids(triples["query"][1]), ids(triples["query"][0])]
        for place, example in enumerate([1, 0]):
            score = {
                tuple(ids(text)): value
                for side in SIDES
                for text, value in zip(triples[side][example], triples[f"{side}_scores"][example], strict=True)
            }
            documents = [tuple(text) for text in texts[2 + 3 * place : 5 + 3 * place]]
            assert documents[0] in [tuple(ids(text)) for text in triples["pos"][example]] and len(set(documents)) == 3
            assert part["scores"][place].tolist() == [score[text] for text in documents]
            seen.add((example, *documents))
        # The same text has the same number, whoever's document it is.
        numbers = {tuple(text): number for text, number in zip(texts[2:], part["documents"].tolist(), strict=True)}
        assert len(set(numbers.values())) == len({tuple(text) for text in texts[2:]})
        again = groups(np.array([1, 0]), step)
        assert again["documents"].equal(part["documents"]) and again["scores"].equal(part["scores"])
    assert len(seen) > 15


def test_a_group_takes_negatives_again_where_there_are_too_few(values, packed, capsys):
    triples = {
        "query": ["die Katze", "Haus", "Fluss"],
        "pos": [["the cat"], ["the house"], ["the river"]],
        "neg": [["the dog"], ["the cat", "the dog"], ["the cat", "the dog", "a tree", "a book", "red"]],
        "pos_scores": [[9.0], [8.0], [7.0]],
        "neg_scores": [[1.5], [2.5, 2.0], [5.0, 4.0, 3.0, 2.0, 1.0]],
    }
    found = packed(triples)
    capsys.readouterr()
    for size in (2, 4, 6, 12):
        config = parse({**values, "distill": {**values["distill"], "train_group_size": size}})
        groups = Groups(found, 0, config)
        short = sum(len(negatives) < size - 1 for negatives in triples["neg"])
        said = f"{short} of 3 queries have fewer than {size - 1} negatives: drawn with replacement\n" if short else ""
        assert capsys.readouterr().out == said
        seen: list[set[float]] = [set(), set(), set()]
        for step in range(20):
            part = groups(np.array([0, 1, 2]), step)
            assert part["scores"].shape == (3, size)
            for example, scores in enumerate(part["scores"].tolist()):
                assert scores[0] == triples["pos_scores"][example][0]
                seen[example] |= set(scores[1:])
                if len(triples["neg"][example]) >= size - 1:
                    assert len(set(scores)) == size
        assert seen == [set(scores) for scores in triples["neg_scores"]]


def test_stage_2_without_a_connector_is_trained_and_measured_in_the_words_of_its_encoder(
    prepared, values, encoder_checkpoint, teacher_checkpoint, tmp_path
):
    bare = {**values["model"], "connector": False, "echo": False}
    learning = {"pretrained_alignment_checkpoint": "none", "num_train_epochs": 12, "lambda_d": 1e-3}
    config = parse({**values, "model": bare, "distill": {**values["distill"], **learning}})
    data, triples = prepared
    distill.run(config, data, triples, encoder_checkpoint, teacher_checkpoint, data, tmp_path / "model")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss_distillation"] for row in rows if "loss_distillation" in row]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    model = MilcoModel.from_pretrained(tmp_path / "model")
    looks = [row["examples"] for row in rows if "examples" in row][-1]
    assert model.connector is None and looks["xx"]["pivot"].keys() <= model.tokenizer.get_vocab().keys()

    test = data / "collections" / "test"
    encode.encode(config, "distill", tmp_path / "model", test, tmp_path / "vectors")
    evaluate.evaluate(config, "distill", test, tmp_path / "vectors", encoder_checkpoint, tmp_path / "runs")
    measures = pd.read_parquet(tmp_path / "runs" / "measures.parquet")
    assert measures[measures.measure == "R@100"].value.tolist() == [1.0] * 20  # of 40 documents none is without a term


def test_stage_2_starts_from_a_model_in_the_authors_layout(prepared, values, tmp_path):
    """The released one: its scale and its special tokens stay, the lengths are those of the experiment."""
    sources = {
        **values["sources"],
        "encoder": {"uri": f"file:{PARTS['encoder']}", "format": "transformers"},
        "start": {"uri": f"file:{LAYOUT / 'released'}", "format": "transformers"},
    }
    learning = {"pretrained_alignment_checkpoint": "start", "miner": "start", "num_train_epochs": 1}
    lengths = {**values["model"], "query_max_length": 20, "passage_max_length": 30}
    config = parse({**values, "sources": sources, "model": lengths, "distill": {**values["distill"], **learning}})
    pack(config, prepared[1].with_name("triples.parquet"), LAYOUT / "released", 1, tmp_path / "packed")
    distill.run(
        config, prepared[0], tmp_path / "packed", LAYOUT / "released", PARTS["teacher"], prepared[0], tmp_path / "model"
    )
    model = MilcoModel.from_pretrained(tmp_path / "model")
    assert model.echo_scale.item() == pytest.approx(1.7, abs=0.1) and model.config.special_token_ids == []
    alone = config.model_copy(update={"model": config.model.model_copy(update={"lsr_encoder_checkpoint": "start"})})
    with pytest.raises(MilcoError, match="no tokenizer for its 160 English terms"):  # before the first step
        place = LAYOUT / "released"
        distill.run(alone, prepared[0], tmp_path / "packed", place, place, prepared[0], tmp_path / "other" / "model")
    assert not (tmp_path / "other").exists()
    assert model.config.query_max_length == config.model.query_max_length
    assert model.config.passage_max_length == config.model.passage_max_length
    assert model.column_name(0) == "e_[PAD]" and model.column_name(160) == "m_<s>"
    mined = Miner(config, LAYOUT / "released").rows("queries", ["door", "Passwort"])
    released = MilcoModel.from_pretrained(LAYOUT / "released", **PARTS)
    np.testing.assert_allclose(mined.toarray(), released.encode_query(["door", "Passwort"]).toarray(), atol=1e-5)


@pytest.mark.parametrize("special", [False, True])
def test_stage_2_adds_lexecho_to_the_authors_stage_1_with_the_words_that_the_settings_say(
    prepared, values, tmp_path, special
):
    start = LAYOUT / "stage1"
    sources = {
        **values["sources"],
        "encoder": {"uri": f"file:{PARTS['encoder']}", "format": "transformers"},
        "start": {"uri": f"file:{start}", "format": "transformers"},
    }
    learning = {"pretrained_alignment_checkpoint": "start", "miner": "start", "num_train_epochs": 0.1}
    shape = {**values["model"], "echo_special_tokens": special}
    config = parse({**values, "sources": sources, "model": shape, "distill": {**values["distill"], **learning}})
    pack(config, prepared[1].with_name("triples.parquet"), start, 1, tmp_path / "packed")
    distill.run(config, prepared[0], tmp_path / "packed", start, PARTS["teacher"], prepared[0], tmp_path / "model")
    model = MilcoModel.from_pretrained(tmp_path / "model")
    found = {name for name in model.decode(model.encode_document(["Passwort"]))[0] if name.startswith("m_")}
    assert ({"m_<s>", "m_</s>"} <= found) == special and found - {"m_<s>", "m_</s>"}

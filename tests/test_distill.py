"""Stage 2: its loss, put together from its parts as the configuration says, and whole trainings of other kinds."""

import json

import pandas as pd
import pytest
import torch
from miniature import settings

from milco import distill, encode, evaluation
from milco.config import parse
from milco.distill import loss
from milco.losses import contrastive_loss, distillation_loss
from milco.model import MilcoModel, Views

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


def test_stage_2_without_a_connector_is_trained_and_measured_in_the_words_of_its_encoder(
    prepared, values, encoder_checkpoint, teacher_checkpoint, tmp_path
):
    bare = {**values["model"], "connector": False, "echo": False}
    learning = {"pretrained_alignment_checkpoint": "none", "num_train_epochs": 6, "lambda_d": 1e-3}
    config = parse({**values, "model": bare, "distill": {**values["distill"], **learning}})
    data, triples = prepared
    distill.run(config, data, triples, encoder_checkpoint, teacher_checkpoint, tmp_path / "model")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss_distillation"] for row in rows if "loss_distillation" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    model = MilcoModel.from_pretrained(tmp_path / "model")
    (looks,) = [row["examples"] for row in rows if row["step"] == 30 and "examples" in row]
    assert model.connector is None and looks["xx"]["pivot"].keys() <= model.tokenizer.get_vocab().keys()

    test = data / "collections" / "test"
    encode.encode(config, "distill", tmp_path / "model", test, tmp_path / "vectors")
    evaluation.evaluate(config, "distill", test, tmp_path / "vectors", encoder_checkpoint, tmp_path / "runs")
    measures = pd.read_parquet(tmp_path / "runs" / "measures.parquet")
    assert measures[measures.measure == "R@100"].value.tolist() == [1.0] * 20  # of 40 documents none is without a term

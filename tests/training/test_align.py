"""Both stages as the authors' code has them where it differs from the paper, against plain formulas."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import gelu
from transformers import AutoModelForMaskedLM, AutoTokenizer

from milco.config import Config, parse
from milco.data import tokens
from milco.data.tokens import TokenCache
from milco.data.triples import Triples
from milco.modeling.model import MilcoModel
from milco.modeling.teacher import Teacher
from milco.training import align, distill
from milco.training.batching import Steps
from milco.training.distill import Groups
from milco.training.teacher import Targets, write_targets

STILL = (
    1e-12  # a rate at which the weights stay as they are, so that every step can be checked with the model at the end
)
BATCH, TOGETHER = 8, 4  # pairs of a step, and those whose active terms have one mean
AUTHORS = {"echo_scale_trained": True, "echo_special_tokens": True}


def settings(values: dict, **changes) -> Config:
    """The miniature as the authors' code would have it, for three steps a stage."""
    learning = {"learning_rate": STILL, "logging_steps": 1, "num_train_epochs": 0.3, "global_batch_size": BATCH}
    stage_1 = {"warm_start_texts": 0, "pairs_per_text": 1, "target": "raw", "pairs_per_mean": TOGETHER, **learning}
    stage_2 = {**learning, "num_train_epochs": 0.6, **changes}
    return parse(
        {
            **values,
            "model": {**values["model"], "dropout": 0.0, "echo_scale": 0.5, **AUTHORS},
            "align": {**values["align"], **stage_1},
            "distill": {**values["distill"], **stage_2},
        }
    )


@pytest.fixture(scope="module")
def stage_1(values, prepared, encoder_checkpoint, teacher_checkpoint, tmp_path_factory) -> Path:
    """A folder with what Stage 1 reads and writes: tokens, targets, run/model and run/metrics.jsonl."""
    folder, config, corpora = tmp_path_factory.mktemp("stage-1"), settings(values), prepared[0]
    length = config.align.max_length
    tokens.build(corpora, encoder_checkpoint, length, 1, folder / "tokens")
    write_targets(corpora, teacher_checkpoint, length, 4, folder / "targets", tokens=True)
    inputs = folder / "tokens", folder / "targets", encoder_checkpoint, teacher_checkpoint
    align.run(config, corpora, *inputs, corpora, folder / "run" / "model")
    return folder


def logged(run: Path) -> list[dict]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if "loss" in row]


def states_of(model: MilcoModel, ids: Tensor) -> Tensor:
    return model.encoder(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).last_hidden_state[0]


def raw_logits(model: MilcoModel, states: Tensor) -> Tensor:
    head = model.pivot_head
    hidden = head.norm(gelu(head.dense(gelu(model.connector(states)))))
    return (hidden @ head.decoder.weight.T + head.decoder.bias).amax(dim=0)


@torch.no_grad()
def test_the_mean_of_stage_1_runs_over_all_terms_of_some_pairs_with_the_teacher_s_raw_logits(
    stage_1, values, prepared, teacher_checkpoint
):
    model, config = MilcoModel.from_pretrained(stage_1 / "run" / "model").eval(), settings(values)
    teacher = AutoModelForMaskedLM.from_pretrained(teacher_checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher_checkpoint)
    texts = pq.read_table(prepared[0] / "english.parquet")["english"].to_pylist()
    cache = TokenCache(stage_1 / "tokens")

    def student(ids: np.ndarray) -> Tensor:
        return raw_logits(model, states_of(model, torch.from_numpy(ids.astype(np.int64))))

    def said(text: str) -> Tensor:
        batch = tokenizer(text, truncation=True, max_length=config.align.max_length, return_tensors="pt")
        return teacher(**batch).logits[0].amax(dim=0)

    steps = Steps(cache.lengths, cache.families, BATCH, config.align.num_train_epochs, config.seed)
    rows, negative = logged(stage_1 / "run"), 0
    assert len(rows) == len(steps) == 3
    for number, row in enumerate(rows):
        pairs = steps[number]
        english = cache.english_ids(pairs)
        sides = {
            "loss_other": [student(ids) for ids in cache.pairs.lists("input_ids", pairs)],
            "loss_english": [student(cache.english.lists("input_ids", np.array([e]))[0]) for e in english],
        }
        targets = [said(texts[e]) for e in english]
        for name, views in sides.items():
            means = []
            for start in range(0, BATCH, TOGETHER):
                squares, cells = 0.0, 0
                for r, t in list(zip(views, targets, strict=True))[start : start + TOGETHER]:
                    active = (r > 0) | (t > 0)
                    squares += ((r - t)[active] ** 2).sum().item()
                    cells += int(active.sum())
                    negative += int((active & (t < 0)).sum())
                means.append(squares / cells)
            assert row[name] == pytest.approx(sum(means) / len(means), rel=1e-4), (number, name)
    assert negative  # else raw and clamped would be the same


def test_what_one_mean_runs_over_does_not_hang_on_the_processes(values, prepared, stage_1, teacher_checkpoint):
    """Two shares of 4 pairs have the mean loss of one share of 8."""
    config, cache = settings(values), TokenCache(stage_1 / "tokens")
    model, teacher = MilcoModel.from_pretrained(stage_1 / "run" / "model").eval(), Teacher(teacher_checkpoint)
    collate = align.Pairs(cache, Targets(stage_1 / "targets"), model.tokenizer.pad_token_id, config, 0)
    terms = align.loss(config, teacher)

    def losses(pairs: np.ndarray) -> np.ndarray:
        part = collate(pairs, 0)
        found = terms(model(part["input_ids"], part["attention_mask"], part["passes"]), part)
        return np.array([found[name].item() for name in ("loss_other", "loss_english")])

    pairs = Steps(cache.lengths, cache.families, BATCH, 1, 0)[0]
    np.testing.assert_allclose(losses(pairs), (losses(pairs[:4]) + losses(pairs[4:])) / 2, rtol=1e-5)


@torch.no_grad()
def test_the_contrast_of_stage_1_is_infonce_over_stored_targets_whatever_number_of_processes(
    values, prepared, stage_1, teacher_checkpoint
):
    """Its own English side against those that a step draws; copies of it among these are no negatives."""
    config, cache, targets = settings(values), TokenCache(stage_1 / "tokens"), Targets(stage_1 / "targets")
    changes = {"target": "clamped", "pairs_per_mean": 1, "contrastive_weight": 0.5, "contrastive_texts": 40}
    config = config.model_copy(update={"align": config.align.model_copy(update=changes)})
    model = MilcoModel.from_pretrained(stage_1 / "run" / "model").eval()
    collate, terms = align.Pairs(cache, targets, model.tokenizer.pad_token_id, config), align.loss(config)

    def found(pairs: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
        part = collate(pairs, step)
        views = model(part["input_ids"], part["attention_mask"], part["passes"])
        return views.pivot[: len(pairs)], terms(views, part)["loss_contrast"]

    pairs = Steps(cache.lengths, cache.families, BATCH, 1, 0)[0]
    views, loss = found(pairs, 7)
    documents = collate(pairs, 7)["documents"].numpy()
    drawn = documents[-40:]
    own = cache.english_ids(pairs)
    assert set(own) & set(drawn), "no copy to leave out"
    assert not np.array_equal(drawn, collate(pairs, 8)["documents"].numpy()[-40:])
    losses = []
    for view, english in zip(views.double(), own, strict=True):
        texts = [english, *drawn[drawn != english]]
        scores = torch.from_numpy(targets.rows(np.array(texts)).toarray()).double() @ view
        losses.append(scores.logsumexp(dim=0) - scores[0])
    assert loss.item() == pytest.approx(0.5 * torch.stack(losses).mean().item(), rel=1e-4)
    halves = [found(part, 7)[1].item() for part in (pairs[:4], pairs[4:])]
    assert loss.item() == pytest.approx(sum(halves) / 2, rel=1e-5)


@torch.no_grad()
def test_an_english_side_without_a_weight_is_not_encoded_and_the_other_learns_the_same(
    values, prepared, stage_1, teacher_checkpoint
):
    config, cache, targets = settings(values), TokenCache(stage_1 / "tokens"), Targets(stage_1 / "targets")
    model, teacher = MilcoModel.from_pretrained(stage_1 / "run" / "model").eval(), Teacher(teacher_checkpoint)
    pairs = Steps(cache.lengths, cache.families, BATCH, 1, 0)[0]
    found = {}
    for weight, target in ((1.0, "raw"), (0.5, "raw"), (0.0, "raw"), (1.0, "clamped"), (0.0, "clamped")):
        changes = {"english_weight": weight, "target": target}
        one = config.model_copy(update={"align": config.align.model_copy(update=changes)})
        raw = (0, teacher) if target == "raw" else (None, None)
        batch = align.Pairs(cache, targets, model.tokenizer.pad_token_id, one, raw[0])(pairs, 0)
        views = model(batch["input_ids"], batch["attention_mask"], batch["passes"])
        assert (len(views.pooled) == BATCH) == (weight == 0)
        found[weight, target] = align.loss(one, raw[1])(views, batch)
    for target in ("raw", "clamped"):
        whole, without = found[1.0, target], found[0.0, target]
        assert whole.keys() - without.keys() == {"loss_english", "active_english"}
        for name, value in without.items():
            torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-6)
    assert found[0.5, "raw"]["loss_english"].item() == pytest.approx(found[1.0, "raw"]["loss_english"].item() / 2)


def test_stage_2_has_special_tokens_and_a_trained_scale_in_the_source_view(
    stage_1, values, prepared, teacher_checkpoint, tmp_path
):
    corpora, triples = prepared
    config, start = settings(values), stage_1 / "run" / "model"
    distill.run(config, corpora, triples, start, teacher_checkpoint, corpora, tmp_path / "model")
    model = MilcoModel.from_pretrained(tmp_path / "model").eval()
    assert model.config.echo_scale_trained and model.config.special_token_ids == []
    assert load_file(tmp_path / "model" / "model.safetensors")["echo_scale"].tolist() == pytest.approx([0.5])
    assert MilcoModel.from_pretrained(start).config.special_token_ids  # Stage 1 is that of every other experiment

    @torch.no_grad()
    def views(ids: Tensor) -> tuple[Tensor, Tensor]:
        states = states_of(model, ids)
        return raw_logits(model, states).relu().log1p(), 0.5 * model.echo(states).squeeze(-1).relu()

    packed = Triples(triples)
    groups = Groups(packed, model.tokenizer.pad_token_id, config)
    steps = Steps(packed.longest, [(1, len(packed))], BATCH, 0.6, config.seed)
    rows = logged(tmp_path)
    assert len(rows) == len(steps) == 3
    for number, row in enumerate(rows):
        part = groups(steps[number], number)
        texts = [ids[mask.bool()] for ids, mask in zip(part["input_ids"], part["attention_mask"], strict=True)]
        pivots, sources = zip(*map(views, texts), strict=True)
        divergence = 0.0
        for query in range(BATCH):
            first, scores = BATCH + 3 * query, []
            for document in range(first, first + 3):
                score = (pivots[query] * pivots[document]).sum()
                for i, token in enumerate(texts[query].tolist()):
                    for j, other in enumerate(texts[document].tolist()):
                        score += sources[query][i] * sources[document][j] * (token == other)
                scores.append(score)
            wanted, given = part["scores"][query].softmax(dim=0), torch.stack(scores).log_softmax(dim=0)
            divergence += (wanted * (wanted.log() - given)).sum().item()
        assert row["loss_distillation"] == pytest.approx(divergence / BATCH, rel=1e-4), number
        prices = [sum(pivot.sum().item() for pivot in some) for some in (pivots[:BATCH], pivots[BATCH:])]
        assert row["loss_query_sparsity"] == pytest.approx(config.distill.lambda_q * prices[0] / BATCH, rel=1e-4)
        assert row["loss_document_sparsity"] == pytest.approx(config.distill.lambda_d * prices[1] / BATCH / 3, rel=1e-4)


def test_the_scale_learns_as_fast_as_the_other_new_layers(stage_1, values, prepared, teacher_checkpoint, tmp_path):
    corpora, triples = prepared
    config = settings(values, new_layer_learning_rate=0.05)
    distill.run(config, corpora, triples, stage_1 / "run" / "model", teacher_checkpoint, corpora, tmp_path / "model")
    model = MilcoModel.from_pretrained(tmp_path / "model")
    assert abs(model.echo_scale.item() - 0.5) > 0.01


def test_a_trained_scale_is_kept_by_those_who_train_on(stage_1, values, prepared, teacher_checkpoint, tmp_path):
    corpora, triples = prepared
    model = MilcoModel.from_pretrained(
        stage_1 / "run" / "model", echo=True, echo_scale_trained=True, special_token_ids=[]
    )
    torch.nn.init.constant_(model.echo_scale, 1.75)
    model.save_pretrained(tmp_path / "start")
    plain = {"echo_scale_trained": False, "echo_special_tokens": False}
    config = settings(values).model_dump()
    config = parse({**config, "model": {**config["model"], **plain}})
    distill.run(config, corpora, triples, tmp_path / "start", teacher_checkpoint, corpora, tmp_path / "run" / "model")
    found = MilcoModel.from_pretrained(tmp_path / "run" / "model")
    assert found.echo_scale.item() == pytest.approx(1.75) and found.config.special_token_ids == []

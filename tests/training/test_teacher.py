"""The English teacher against transformers' own masked language model, one text at a time without padding."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import milco.data.shards
from milco.modeling.losses import alignment_loss
from milco.modeling.rows import in_text_order
from milco.modeling.teacher import Teacher
from milco.training.teacher import Targets, write_targets

pytestmark = pytest.mark.slow

TEXTS = ["the cat", "the dogs of the king and the queen", "", "red", "night train to the river in the rain", "red red"]


@pytest.fixture
def plain(teacher_checkpoint):
    """Raw pooled logits of texts, N by V_e: the largest logit over all positions, markers included; 0 for an
    empty text, which has no words."""
    model = AutoModelForMaskedLM.from_pretrained(teacher_checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher_checkpoint)

    def pooled(texts, max_length=64):
        rows = []
        with torch.no_grad():
            for text in texts:
                batch = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
                row = model(**batch).logits[0].amax(dim=0).numpy()
                rows.append(row if text else 0 * row)
        return np.stack(rows)

    return pooled


def encode(teacher, texts, batch_size=64, max_length=64):
    return in_text_order(teacher.iter_rows(texts, max_length, batch_size), teacher.head.decoder.out_features)


def test_weights_in_half_precision_are_computed_in_float32(teacher_checkpoint, tmp_path):
    half = shutil.copytree(teacher_checkpoint, tmp_path / "half")
    model = AutoModelForMaskedLM.from_pretrained(teacher_checkpoint).bfloat16()
    model.save_pretrained(half)
    model.float().save_pretrained(shutil.copytree(teacher_checkpoint, tmp_path / "whole"))
    found, wanted = (encode(Teacher(tmp_path / name), TEXTS) for name in ("half", "whole"))
    np.testing.assert_array_equal(found.toarray(), wanted.toarray())


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_a_row_is_that_of_the_text_alone(teacher_checkpoint, plain, batch_size):
    pooled = plain(TEXTS)
    assert 0.05 < (pooled > 0).mean() < 0.6
    rows = encode(Teacher(teacher_checkpoint), TEXTS, batch_size)
    np.testing.assert_allclose(rows.toarray(), np.log1p(np.maximum(pooled, 0)), rtol=1e-4, atol=1e-5)


def test_the_other_texts_of_a_batch_change_no_row(teacher_checkpoint):
    teacher = Teacher(teacher_checkpoint)
    alone, among = encode(teacher, ["the cat"]), encode(teacher, [TEXTS[4], "the cat", TEXTS[1]])
    np.testing.assert_allclose(among.toarray()[1], alone.toarray()[0], rtol=1e-4, atol=1e-5)


def test_expm1_gives_back_the_raw_positive_logits(teacher_checkpoint, plain):
    rows = encode(Teacher(teacher_checkpoint), TEXTS)
    np.testing.assert_allclose(np.expm1(rows.toarray()), np.maximum(plain(TEXTS), 0), rtol=1e-4, atol=1e-5)
    assert (rows.data > 0).all()  # only what is positive is stored


def test_dropout_is_off(teacher_checkpoint):
    teacher = Teacher(teacher_checkpoint)
    assert teacher.encoder.config.hidden_dropout_prob > 0
    assert (encode(teacher, TEXTS) != encode(teacher, TEXTS)).nnz == 0


def test_texts_are_cut_at_the_length(teacher_checkpoint, plain):
    rows = encode(Teacher(teacher_checkpoint), TEXTS, max_length=4)
    wanted = np.log1p(np.maximum(plain(TEXTS, max_length=4), 0))
    np.testing.assert_allclose(rows.toarray(), wanted, rtol=1e-4, atol=1e-5)
    assert abs(wanted[1] - np.log1p(np.maximum(plain(TEXTS)[1], 0))).max() > 0.1


@pytest.fixture
def targets(monkeypatch, teacher_checkpoint, tmp_path):
    for size in ("ROWS", "FILE_ROWS"):
        monkeypatch.setattr(milco.data.shards, size, 3)  # two files
    pq.write_table(pa.table({"english": TEXTS}), tmp_path / "english.parquet")
    write_targets(tmp_path, teacher_checkpoint, 64, 2, tmp_path / "targets")
    return Targets(tmp_path / "targets")


def test_targets_on_disk_stand_in_the_order_of_the_english_texts(targets, plain):
    order = np.array([3, 0, 4, 0])
    wanted = np.maximum(plain(TEXTS), 0)[order]
    half = 2.0**-10  # a weight of at most 4 in float16
    np.testing.assert_allclose(targets.rows(order).toarray(), np.log1p(wanted), atol=4 * half)
    row, term, weight = targets.cells(order)
    assert (wanted[row, term] > 0).all() and len(row) == (wanted > 0).sum()
    np.testing.assert_allclose(np.expm1(weight), wanted[row, term], rtol=4 * half, atol=4 * half)


def test_targets_have_the_columns_of_the_head_and_not_of_the_tokenizer(teacher_checkpoint, targets, tmp_path):
    wider = shutil.copytree(teacher_checkpoint, tmp_path / "wider")
    model = AutoModelForMaskedLM.from_pretrained(teacher_checkpoint)
    model.resize_token_embeddings(targets.columns + 5)  # as some checkpoints have it, to a multiple of 8
    with torch.no_grad():
        model.get_output_embeddings().bias[-5:] = 3.0
    model.save_pretrained(wider)
    write_targets(tmp_path, wider, 64, 2, tmp_path / "wide")
    wide = Targets(tmp_path / "wide")
    rows = wide.rows(np.arange(len(TEXTS)))
    assert wide.columns == rows.shape[1] == targets.columns + 5 and rows.indices.max() == wide.columns - 1


@pytest.mark.parametrize(("precision", "equal"), [("tf32", not torch.cuda.is_available()), ("bf16", False)])
def test_targets_in_another_precision_are_near(targets, teacher_checkpoint, tmp_path, precision, equal):
    write_targets(tmp_path, teacher_checkpoint, 64, 2, tmp_path / "other", precision=precision)
    one, other = (found.rows(np.arange(len(TEXTS))).toarray() for found in (targets, Targets(tmp_path / "other")))
    assert (one == other).all() == equal
    np.testing.assert_allclose(one, other, atol=0.05)


def test_targets_take_four_bytes_for_a_term(targets):
    batch = targets.shards._batch(0)
    assert batch.schema.field("terms").type == pa.list_(pa.uint16())
    assert batch.schema.field("weights").type == pa.list_(pa.float16())


@pytest.mark.parametrize("kind", ["active", "mass"])
def test_training_from_the_cache_has_the_loss_of_the_teacher_on_the_fly(targets, plain, kind):
    logits = torch.tensor(plain(TEXTS))
    student = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    cached = torch.zeros_like(logits)
    row, term, weight = targets.cells(np.arange(len(TEXTS)))
    cached[row, term] = torch.from_numpy(weight).expm1()
    found, wanted = alignment_loss(student, cached, kind), alignment_loss(student, logits.clamp(min=0), kind)
    np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_no_text_asked_for_is_no_cell(targets):
    assert [len(part) for part in targets.cells(np.array([], int))] == [0, 0, 0]

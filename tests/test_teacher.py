"""The English teacher against transformers' own masked language model, one text at a time without padding."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from milco.model import in_text_order
from milco.teacher import Teacher, write_targets
from milco.vectors import load_vectors

TEXTS = ["the cat", "the dogs of the king and the queen", "", "red", "night train to the river in the rain", "red red"]


@pytest.fixture
def plain(teacher_checkpoint):
    """Raw pooled logits of texts, N by V_e: the largest logit over all positions, markers included."""
    model = AutoModelForMaskedLM.from_pretrained(teacher_checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher_checkpoint)

    def pooled(texts, max_length=64):
        rows = []
        with torch.no_grad():
            for text in texts:
                batch = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
                rows.append(model(**batch).logits[0].amax(dim=0).numpy())
        return np.stack(rows)

    return pooled


def encode(teacher, texts, batch_size=64, max_length=64):
    return in_text_order(teacher.iter_rows(texts, max_length, batch_size), teacher.head.decoder.out_features)


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


def test_targets_on_disk_stand_in_the_order_of_the_english_texts(teacher_checkpoint, plain, tmp_path):
    corpora = tmp_path / "corpora"
    corpora.mkdir()
    pd.DataFrame({"english": TEXTS}).to_parquet(corpora / "english.parquet")
    write_targets(corpora, teacher_checkpoint, 64, 2, tmp_path / "targets.safetensors")
    rows, ids = load_vectors(tmp_path / "targets.safetensors")
    assert ids == [str(row) for row in range(len(TEXTS))]
    np.testing.assert_allclose(rows.toarray(), np.log1p(np.maximum(plain(TEXTS), 0)), rtol=1e-4, atol=1e-5)

"""The closed-form start of the connector."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

import milco.modeling.warmstart
from milco.errors import MilcoError
from milco.modeling.model import MilcoModel
from milco.modeling.teacher import Teacher
from milco.modeling.warmstart import fit_connector


@pytest.fixture(scope="module")
def texts(english_words):
    """More texts than are encoded at a time, of words that both tokenizers know or at least can spell."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(english_words, random.integers(1, 9))) for _ in range(150)]


@pytest.fixture
def same_model(teacher_checkpoint):
    """A model whose encoder is the teacher's own: its states are the teacher's states."""
    return MilcoModel.from_checkpoints(teacher_checkpoint, teacher_checkpoint)


def pooled_logits(model, texts):
    with torch.no_grad():
        batch = model.tokenizer(texts, padding=True, return_tensors="pt")
        return model(batch["input_ids"], batch["attention_mask"]).pooled


def test_states_that_are_a_linear_function_of_the_teacher_s_are_explained_nearly_whole(
    same_model, teacher_checkpoint, texts
):
    # Turned in space and shifted, behind the last layer
    layer, turn = same_model.encoder.encoder.layer[-1].output, torch.nn.Linear(16, 16)
    with torch.no_grad():
        turn.weight.copy_(torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q)
        turn.bias.fill_(2.0)
    layer.LayerNorm = torch.nn.Sequential(layer.LayerNorm, turn)
    share = fit_connector(same_model, teacher_checkpoint, texts, 32)
    assert 0.97 < share <= 1


def test_without_ridge_and_gelu_the_start_is_the_teacher_itself(monkeypatch, same_model, teacher_checkpoint, texts):
    monkeypatch.setattr(milco.modeling.warmstart, "RIDGE", 1e-9)
    monkeypatch.setattr(milco.modeling.warmstart, "SHIFT", 30.0)  # so far up that GELU is the identity
    share = fit_connector(same_model, teacher_checkpoint, texts, 32)
    assert share > 0.99999
    rows = list(Teacher(teacher_checkpoint).iter_rows(texts[:20], 32, 20))
    (places, wanted), found = rows[0], pooled_logits(same_model.eval(), texts[:20])
    pivot = torch.log1p(torch.relu(found)).numpy()[places]
    assert wanted.nnz > 50
    np.testing.assert_allclose(pivot, wanted.toarray(), rtol=0.01, atol=0.01)


def test_the_shift_lets_nearly_all_of_a_fitted_state_through_gelu(same_model, teacher_checkpoint, texts):
    def distance():
        rows = list(Teacher(teacher_checkpoint).iter_rows(texts[:20], 32, 20))
        pivot = torch.log1p(torch.relu(pooled_logits(same_model.eval(), texts[:20]))).numpy()
        return np.abs(pivot[rows[0][0]] - rows[0][1].toarray()).mean() / rows[0][1].toarray().mean()

    before = distance()
    fit_connector(same_model, teacher_checkpoint, texts, 32)
    assert distance() < 0.2 < before


def states_at_word_ends(checkpoint, kind, texts):
    """{(text, letter at which a piece ends): its state}, each text encoded alone."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    encoder = kind.from_pretrained(checkpoint).base_model.eval()
    found = {}
    for number, text in enumerate(texts):
        batch = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        offsets = batch.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            states = encoder(**batch).last_hidden_state[0]
        for (start, end), state in zip(offsets, states, strict=True):
            if end > start:  # markers have no letters
                found[number, end] = state.double().numpy()
    return found


def test_the_start_is_the_ridge_regression_of_states_that_end_at_the_same_letter(
    model, encoder_checkpoint, teacher_checkpoint, texts
):
    mine = states_at_word_ends(encoder_checkpoint, AutoModel, texts)
    theirs = states_at_word_ends(teacher_checkpoint, AutoModelForMaskedLM, texts)
    shared = sorted(mine.keys() & theirs.keys())
    assert len(theirs) == len(shared) < len(mine)  # the encoder spells words that the teacher knows whole
    x, y = (np.stack([side[key] for key in shared]) for side in (mine, theirs))
    centred, goal = x - x.mean(axis=0), y - y.mean(axis=0)
    # Ridge regression is plain least squares with a row more for each coordinate.
    price = np.sqrt(len(x) * milco.modeling.warmstart.RIDGE * centred.var(axis=0).mean()) * np.eye(24)
    weight = np.linalg.lstsq(np.r_[centred, price], np.r_[goal, np.zeros((24, 16))], rcond=None)[0]
    share = 1 - ((goal - centred @ weight) ** 2).sum() / (goal**2).sum()
    assert 0.05 < share < 0.95
    assert fit_connector(model, teacher_checkpoint, texts, 64) == pytest.approx(share, rel=1e-4)
    np.testing.assert_allclose(model.connector.weight.detach().T, weight, atol=1e-4)
    shift = y.mean(axis=0) - x.mean(axis=0) @ weight + milco.modeling.warmstart.SHIFT
    np.testing.assert_allclose(model.connector.bias.detach(), shift, atol=1e-4)


def test_a_start_changes_connector_and_dense_bias_alone_and_stays_finite(model, teacher_checkpoint, texts):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    share = fit_connector(model, teacher_checkpoint, texts, 32)
    assert 0 < share < 1
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"connector.weight", "connector.bias", "pivot_head.dense.bias"}
    pooled = pooled_logits(model, texts)
    assert torch.isfinite(pooled).all()
    assert len({tuple((row > 0).tolist()) for row in pooled}) > 10  # texts still differ


def test_the_order_of_texts_does_not_matter(model, built_model, teacher_checkpoint, texts):
    shares = [fit_connector(model, teacher_checkpoint, texts, 32)]
    weight = model.connector.weight.clone()
    model.load_state_dict(built_model.state_dict())
    shares.append(fit_connector(model, teacher_checkpoint, texts[::-1], 32))
    assert shares[0] == pytest.approx(shares[1], rel=1e-5)
    torch.testing.assert_close(model.connector.weight, weight, rtol=1e-3, atol=1e-3)


def test_tokenizers_that_agree_on_no_word_are_an_error(model, teacher_checkpoint):
    with pytest.raises(MilcoError, match="warm_start_texts"):
        fit_connector(model, teacher_checkpoint, ["", ""], 32)

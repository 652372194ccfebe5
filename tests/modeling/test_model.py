"""The model against its formulas (paper, section 3), computed text by text without padding in float64."""

import copy
import json
import math
import shutil
from statistics import NormalDist

import numpy as np
import pytest
import torch
from miniature import draw_weights
from safetensors import safe_open
from scipy.sparse import csr_array
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from milco.errors import MilcoError
from milco.modeling.model import MilcoModel
from milco.modeling.teacher import Teacher
from milco.training.batching import collate_texts

TEXTS = [
    "the cat",
    "Katze Katze ist Katze",  # one id three times
    "maison",
    "red water in the big house dog",
    "der Hund und die Katze rot",
    "",  # only special tokens
    "夜 水 €",  # with an unknown letter
]
COLUMN = "▁Katze"


def no_words(tokenizer):
    """Ids that have no place in the source view."""
    return {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids("▁")}


def padded(model, texts, more=0):
    """B by L ids and mask of texts, with `more` columns of nothing but pads."""
    ids = [model.tokenizer(text)["input_ids"] for text in texts]
    length = max(map(len, ids)) + more
    pad = model.tokenizer.pad_token_id
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return torch.tensor([row + [pad] * (length - len(row)) for row in ids]), mask


def state_views(states, ids, connector, head, echo, specials, scale):
    """L by d_m states of one text: raw pooled logits (V_e) and {source id: weight}."""
    pooled = head(torch.nn.functional.gelu(connector(states))).max(dim=0).values
    if specials.issuperset(ids):  # a text without a word says nothing
        pooled = torch.zeros_like(pooled)
    weights = scale * torch.relu(echo(states)[:, 0])
    source = {}
    for token, weight in zip(ids, weights, strict=True):
        if token not in specials:
            source[token] = source.get(token, 0.0) + weight
    return pooled, source


def plain_head(model):
    """The pivot head with all B by L by V_e logits, from the model's own weights."""
    head = model.pivot_head
    return lambda z: head.decoder(head.norm(torch.nn.functional.gelu(head.dense(z))))


def plain_views(model, text, max_length=None):
    """Raw pooled logits and source view of one text, alone in its batch."""
    ids = model.tokenizer(text, truncation=max_length is not None, max_length=max_length)["input_ids"]
    states = model.encoder(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state[0]
    specials = no_words(model.tokenizer)
    return state_views(states, ids, model.connector, plain_head(model), model.echo, specials, model.config.echo_scale)


def plain_row(model, text, max_length):
    """A dense row of V_e + V_m columns."""
    row = np.zeros(model.width)
    with torch.no_grad():
        pooled, source = plain_views(model, text, max_length)
    for term, logit in enumerate(pooled.tolist()):
        row[term] = math.log1p(max(logit, 0))
    for token, weight in source.items():
        row[len(pooled) + token] = weight
    return row


def test_views_follow_from_the_weights_of_both_checkpoints(model, encoder_checkpoint, teacher_checkpoint):
    # Nothing of the encoder and the pivot head is taken from the model, so that a wrongly copied weight shows.
    encoder = AutoModel.from_pretrained(encoder_checkpoint).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder_checkpoint)
    head = AutoModelForMaskedLM.from_pretrained(teacher_checkpoint).cls.double()
    model.double()
    ids, mask = padded(model, TEXTS)
    with torch.no_grad():
        views = model(ids, mask)
        for row, text in enumerate(TEXTS):
            tokens = tokenizer(text)["input_ids"]
            assert tokens == ids[row][: len(tokens)].tolist()
            states = encoder(torch.tensor([tokens])).last_hidden_state[0]
            specials = no_words(tokenizer)
            pooled, source = state_views(states, tokens, model.connector, head, model.echo, specials, 1.0)
            torch.testing.assert_close(views.pooled[row], pooled, rtol=0, atol=1e-10)
            for token in set(tokens):
                found = views.source[row, [at for at, other in enumerate(tokens) if other == token]].sum()
                assert found.item() == pytest.approx(float(source.get(token, 0.0)), abs=1e-5)


def test_pivot_view_is_log1p_of_the_positive_logits(model):
    views = model(*padded(model, TEXTS))
    assert (views.pooled < 0).any() and (views.pooled > 0).any()
    wanted = [[math.log1p(max(logit, 0)) for logit in row] for row in views.pooled.tolist()]
    torch.testing.assert_close(views.pivot, torch.tensor(wanted))


def test_gradients_of_the_pivot_view_equal_those_of_texts_alone(model):
    model.double()
    parameters = [value for name, value in model.named_parameters() if not name.startswith("echo.")]
    cells = torch.randn(len(TEXTS), 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled = model(*padded(model, TEXTS, more=2)).pooled
    plain = torch.stack([plain_views(model, text)[0] for text in TEXTS])
    ours, wanted = (
        torch.autograd.grad((torch.log1p(torch.relu(logits)) * cells).sum(), parameters, allow_unused=True)
        for logits in (pooled, plain)
    )
    for found, gradient in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-10)
    assert sum(gradient is not None and bool(gradient.any()) for gradient in wanted) == len(parameters)


def test_gradients_of_the_source_view_equal_those_of_texts_alone(model):
    model.double()
    parameters = [*model.encoder.parameters(), *model.echo.parameters()]
    ids, mask = padded(model, TEXTS, more=2)
    columns = torch.randn(model.config.source_vocab_size, generator=torch.Generator().manual_seed(0))
    score = (model(ids, mask).source * columns[ids]).sum()
    sources = [plain_views(model, text)[1] for text in TEXTS]
    plain = sum(weight * columns[token] for source in sources for token, weight in source.items())
    assert score.item() == pytest.approx(plain.item(), rel=1e-5)
    for found, gradient in zip(
        torch.autograd.grad(score, parameters), torch.autograd.grad(plain, parameters), strict=True
    ):
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-4)  # the source view is float32


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_encode_query_gives_the_rows_of_the_formulas_in_the_order_of_the_texts(model, batch_size):
    rows = model.encode_query(TEXTS, batch_size=batch_size)
    wanted = np.stack([plain_row(model, text, model.config.query_max_length) for text in TEXTS])
    np.testing.assert_allclose(rows.toarray(), wanted, rtol=1e-4, atol=1e-5)


def test_rows_are_float32_csr_without_stored_zeros_or_double_columns(model):
    rows = model.encode_document(TEXTS)
    assert isinstance(rows, csr_array) and rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), 60 + 73)
    assert (rows.data > 0).all()
    assert rows.has_canonical_format


def test_no_texts_give_no_rows(model):
    assert model.encode_query([]).shape == (0, model.width)


def test_more_padding_and_another_order_change_no_view(model):
    model.double()
    with torch.no_grad():
        ids, mask = padded(model, TEXTS)
        views = model(ids, mask)
        order = [4, 0, 6, 2, 5, 1, 3]
        more_ids, more_mask = padded(model, [TEXTS[place] for place in order], more=5)
        others = model(more_ids, more_mask)
    torch.testing.assert_close(others.pooled, views.pooled[order], rtol=0, atol=1e-10)
    torch.testing.assert_close(others.source[:, : ids.shape[1]], views.source[order], rtol=0, atol=1e-5)
    assert (others.source[more_mask == 0] == 0).all()


def test_what_stands_under_a_pad_changes_no_view(model):
    ids, mask = padded(model, TEXTS)
    other = torch.where(mask == 1, ids, model.tokenizer.convert_tokens_to_ids(COLUMN))
    with torch.no_grad():
        views, others = model(ids, mask), model(other, mask)
    torch.testing.assert_close(others.pooled, views.pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(others.source, views.source, rtol=0, atol=1e-5)


def test_weights_of_a_repeated_token_are_summed(model):
    ids, mask = padded(model, [TEXTS[1]])
    katze = model.tokenizer.convert_tokens_to_ids(COLUMN)
    with torch.no_grad():
        weights = model(ids, mask).source[0][ids[0] == katze]
    assert len(weights) == 3 and (weights > 0).sum() >= 2
    row = model.encode_query([TEXTS[1]]).toarray()[0]
    assert row[60 + katze] == pytest.approx(weights.sum().item(), rel=1e-5)


def test_special_and_unknown_tokens_never_enter_the_source_view(model):
    with torch.no_grad():  # every token that may have a weight has one
        model.echo.weight.zero_()
        model.echo.bias.fill_(1.0)
    ids, mask = padded(model, ["the €<mask> cat", "dog"])
    source = model(ids, mask).source
    tokens = [model.tokenizer.convert_ids_to_tokens(row.tolist()) for row in ids]
    assert {"<unk>", "<mask>"} <= set(tokens[0])
    wanted = [[float(not token.startswith("<") and token != "▁") for token in row] for row in tokens]
    assert source.tolist() == wanted


def test_negative_logits_leave_an_empty_pivot_view(model):
    with torch.no_grad():
        model.pivot_head.decoder.bias.fill_(-1000.0)
    rows = model.encode_query(["the cat", ""]).toarray()
    assert (rows[:, :60] == 0).all()
    assert (rows[0, 60:] > 0).any()
    assert model.decode(model.encode_query([""])) == [{}]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])  # they differ in what attention over nothing gives
def test_an_all_zero_mask_gives_zeros_and_no_gradient_that_is_no_number(model, attention):
    model.encoder.set_attn_implementation(attention)
    ids, mask = padded(model, TEXTS[:4])
    mask[2] = 0
    views = model(ids, mask)
    assert (views.pooled[2] == 0).all() and (views.source[2] == 0).all()
    (views.pivot.sum() + views.source.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    others = [0, 1, 3]
    alone = model(ids[others], mask[others])
    torch.testing.assert_close(views.pooled[others], alone.pooled, rtol=0, atol=1e-5)


def test_echo_scale_multiplies_the_source_view_alone(model):
    ids, mask = padded(model, TEXTS)
    with torch.no_grad():
        before = model(ids, mask)
        model.config.echo_scale = 2.5
        after = model(ids, mask)
    assert torch.equal(after.pooled, before.pooled)
    torch.testing.assert_close(after.source, 2.5 * before.source)


def test_a_trained_scale_takes_the_place_of_the_constant_and_changes_no_other_weight(
    encoder_checkpoint, teacher_checkpoint, tmp_path
):
    built = []
    for trained in (False, True):
        torch.manual_seed(5)
        built.append(
            MilcoModel.from_checkpoints(
                encoder_checkpoint, teacher_checkpoint, echo_scale=0.5, echo_scale_trained=trained
            ).eval()
        )
    constant, model = built
    state = model.state_dict()
    assert state.pop("echo_scale").tolist() == [0.5] and "echo_scale" not in constant.state_dict()
    assert all(torch.equal(state[name], value) for name, value in constant.state_dict().items())
    ids, mask = padded(model, TEXTS)
    before = model(ids, mask).source
    assert torch.equal(before, constant(ids, mask).source)
    before.sum().backward()
    assert model.echo_scale.grad.item() == pytest.approx(before.sum().item() / 0.5, rel=1e-5)
    torch.nn.init.constant_(model.echo_scale, 2.0)
    model.save_pretrained(tmp_path / "model")
    loaded = MilcoModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded(ids, mask).source, 4 * before)


def test_a_saved_model_is_the_same_whatever_its_tokenizers_were_used_for(model, tmp_path):
    for tokenizer in (model.tokenizer, model.pivot_tokenizer):
        tokenizer(TEXTS, truncation=True, max_length=3, padding=True)
    model.save_pretrained(tmp_path / "used")
    loaded = MilcoModel.from_pretrained(tmp_path / "used")
    loaded.save_pretrained(tmp_path / "unused")
    for name in ("tokenizer.json", "pivot_tokenizer/tokenizer.json"):
        assert (tmp_path / "used" / name).read_bytes() == (tmp_path / "unused" / name).read_bytes()


def test_a_trained_scale_begins_at_the_constant_when_an_aligned_model_is_loaded(
    encoder_checkpoint, teacher_checkpoint, tmp_path
):
    MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, echo=False).save_pretrained(
        tmp_path / "aligned"
    )
    settings = {"echo": True, "echo_scale": 0.25, "echo_scale_trained": True}
    assert MilcoModel.from_pretrained(tmp_path / "aligned", **settings).echo_scale.tolist() == [0.25]


def test_special_tokens_stay_in_the_source_view_of_a_model_that_names_none(
    model, encoder_checkpoint, teacher_checkpoint
):
    ids, mask = padded(model, TEXTS)
    special = torch.isin(ids, torch.tensor(sorted(no_words(model.tokenizer)))) & mask.bool()
    before = model(ids, mask).source
    assert special.any() and (before[special] == 0).all()
    model.config.special_token_ids = []
    after = model(ids, mask).source
    assert (after[special] > 0).any() and (after[~mask.bool()] == 0).all()
    torch.testing.assert_close(after[~special], before[~special])
    kept = MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, special_token_ids=[])
    assert kept.config.special_token_ids == []


def test_a_model_without_echo_has_the_pivot_view_alone(model, encoder_checkpoint, teacher_checkpoint):
    plain = MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, echo=False)
    assert plain.echo is None
    assert plain(*padded(plain, TEXTS)).source is None
    rows = plain.encode_query(TEXTS)
    assert rows.shape[1] == 60 + 73  # the same columns, so that vectors of both stages can be held together
    assert rows.indices.max() < 60


def test_texts_are_cut_at_the_length_of_their_side(model):
    text = " ".join(["the", "cat", "dog", "house", "river", "water", "book", "red"] * 3)
    for encode, length in ((model.encode_query, 8), (model.encode_document, 16)):
        np.testing.assert_allclose(encode([text]).toarray()[0], plain_row(model, text, length), rtol=1e-4, atol=1e-5)
    words = text.split()
    assert abs(model.encode_query([text]) - model.encode_query([" ".join(words[:6])])).max() < 1e-5
    assert abs(model.encode_query([text]) - model.encode_document([text])).max() > 0.1


def test_encoding_is_without_dropout_and_leaves_the_training_mode_as_it_was(model):
    wanted = model.encode_query(TEXTS)
    model.train()
    assert model.encoder.config.hidden_dropout_prob > 0
    np.testing.assert_allclose(model.encode_query(TEXTS).toarray(), wanted.toarray(), rtol=1e-4, atol=1e-5)
    assert model.training and model.encoder.training
    model.eval()
    model.encode_query(TEXTS)
    assert not model.training


def test_encoding_that_is_broken_off_leaves_the_training_mode_as_it_was(model):
    model.train()
    rows = model.iter_rows(TEXTS, 8, 2)
    next(rows)
    assert not model.training
    rows.close()
    assert model.training


def test_decode_names_both_vocabularies_and_puts_the_heaviest_first(model):
    rows = model.encode_query(TEXTS)
    for row, named in zip(rows.toarray(), model.decode(rows), strict=True):
        wanted = {f"e_{model.pivot_tokenizer.convert_ids_to_tokens(c)}": row[c] for c in range(60) if row[c] > 0}
        wanted |= {f"m_{model.tokenizer.convert_ids_to_tokens(c)}": row[60 + c] for c in range(73) if row[60 + c] > 0}
        assert named == pytest.approx(wanted)
        assert list(named.values()) == sorted(named.values(), reverse=True)


def test_decode_gives_readable_names(model):
    english, source = (
        model.pivot_tokenizer.convert_tokens_to_ids("password"),
        model.tokenizer.convert_tokens_to_ids("▁猫"),
    )
    data = np.array([0.5, 2.0], np.float32), np.array([english, 60 + source]), np.array([0, 0, 2])
    rows = csr_array(data, shape=(2, model.width))
    assert model.decode(rows) == [{}, {"m_▁猫": 2.0, "e_password": 0.5}]
    assert list(model.decode(rows)[1]) == ["m_▁猫", "e_password"]


@pytest.fixture
def moved(model_folder, tmp_path):
    """The saved model in a folder of another name: nothing may depend on where it was written."""
    return shutil.copytree(model_folder, tmp_path / "elsewhere")


def test_a_saved_model_gives_the_same_rows_and_names(model, moved):
    loaded = MilcoModel.from_pretrained(moved)
    rows, wanted = loaded.encode_document(TEXTS), model.encode_document(TEXTS)
    np.testing.assert_allclose(rows.toarray(), wanted.toarray(), rtol=1e-5, atol=1e-6)
    assert [set(named) for named in loaded.decode(rows)] == [set(named) for named in model.decode(wanted)]
    assert (loaded.config.query_max_length, loaded.config.passage_max_length) == (8, 16)
    assert loaded.config.special_token_ids == sorted(no_words(model.tokenizer))


def test_a_loaded_model_can_be_saved_again(model, moved, tmp_path):
    MilcoModel.from_pretrained(moved).save_pretrained(tmp_path / "again")
    shutil.rmtree(moved)
    again = MilcoModel.from_pretrained(tmp_path / "again")
    np.testing.assert_allclose(
        again.encode_query(TEXTS).toarray(), model.encode_query(TEXTS).toarray(), rtol=1e-5, atol=1e-6
    )
    assert again.decode(again.encode_query(["the cat"]))


def test_auto_model_loads_a_saved_model(model, moved):
    loaded = AutoModel.from_pretrained(moved)
    assert isinstance(loaded, MilcoModel)
    np.testing.assert_allclose(
        loaded.encode_query(TEXTS).toarray(), model.encode_query(TEXTS).toarray(), rtol=1e-5, atol=1e-6
    )


def test_a_saved_model_is_safetensors_with_the_head_as_all_that_is_the_teacher_s(model_folder, model):
    assert not [path for path in model_folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    with safe_open(model_folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    head = {f"pivot_head.{part}.{kind}" for part in ("dense", "norm", "decoder") for kind in ("weight", "bias")}
    new = {f"{part}.{kind}" for part in ("connector", "echo") for kind in ("weight", "bias")}
    assert names == head | new | {f"encoder.{name}" for name in model.encoder.state_dict()}
    assert not [name for name in names if "pooler" in name]
    assert json.loads((model_folder / "config.json").read_text())["model_type"] == "milco-lsr"


def test_a_lexecho_head_can_be_added_when_an_aligned_model_is_loaded(encoder_checkpoint, teacher_checkpoint, tmp_path):
    aligned = MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, echo=False)
    aligned.save_pretrained(tmp_path / "aligned")
    model = MilcoModel.from_pretrained(tmp_path / "aligned", echo=True, echo_scale=0.5)
    # Above zero, so that every token has a weight and with it a gradient.
    assert model.echo.bias.item() == pytest.approx(0.1)
    assert 0 < model.echo.weight.abs().max() < 0.2
    state = model.state_dict()
    for name, value in aligned.state_dict().items():
        assert torch.equal(state[name], value), name
    assert model.config.echo_scale == 0.5
    assert (model(*padded(model, ["the cat"])).source > 0).any()


def test_the_lexecho_head_can_be_left_out_when_a_model_is_loaded(model, model_folder):
    loaded = MilcoModel.from_pretrained(model_folder, echo=False)
    rows, wanted = loaded.encode_query(TEXTS).toarray(), model.encode_query(TEXTS).toarray()
    np.testing.assert_allclose(rows[:, :60], wanted[:, :60], rtol=1e-5, atol=1e-6)
    assert (rows[:, 60:] == 0).all() and (wanted[:, 60:] > 0).any()


def test_autocast_to_bfloat16_gives_nearly_the_same_rows_and_finite_float32_gradients(model):
    ids, mask = padded(model, TEXTS)
    with torch.no_grad():
        wanted = model(ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        views = model(ids, mask)
    assert views.pooled.dtype == torch.bfloat16 and views.pivot.dtype == views.source.dtype == torch.float32
    # bfloat16 keeps 8 bits; the logits of this model reach about 10 and sum over two layers of rounded states
    torch.testing.assert_close(views.pooled.float(), wanted.pooled, rtol=0.1, atol=0.3)
    (views.pivot.sum() + views.source.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.dtype == torch.float32, name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_new_layers_begin_small_and_pretrained_ones_as_in_their_checkpoints(encoder_checkpoint, teacher_checkpoint):
    model = MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint)
    assert model.connector.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert (model.connector.bias == 0).all()
    assert model.echo.bias.item() == pytest.approx(0.1)
    for name, value in AutoModel.from_pretrained(encoder_checkpoint).state_dict().items():
        assert name.startswith("pooler.") or torch.equal(model.encoder.state_dict()[name], value), name
    assert torch.equal(model.pivot_head.decoder.weight, Teacher(teacher_checkpoint).head.decoder.weight)


def test_the_lowest_layers_are_kept(model, encoder_checkpoint, teacher_checkpoint, tmp_path):
    cut = MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, encoder_layers=1, dropout=0.25)
    assert cut.encoder.config.hidden_dropout_prob == cut.encoder.config.attention_probs_dropout_prob == 0.25
    hidden = copy.deepcopy(model.encoder)(*padded(model, TEXTS[:1]), output_hidden_states=True).hidden_states
    cut.eval()
    torch.testing.assert_close(cut.encoder(*padded(cut, TEXTS[:1])).last_hidden_state, hidden[1])
    cut.save_pretrained(tmp_path / "cut")
    assert len(MilcoModel.from_pretrained(tmp_path / "cut").encoder.encoder.layer) == 1


def test_more_layers_than_there_are_is_an_error(encoder_checkpoint, teacher_checkpoint):
    with pytest.raises(MilcoError, match="encoder_layers: 3"):
        MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, encoder_layers=3)


def masked_lm(kind: str, encoder_checkpoint, folder):
    """A checkpoint like the encoder's, of a masked language model with a head of its own."""
    shared = {"vocab_size": 73, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    configs = {"bert": (BertConfig, BertForMaskedLM), "xlm-roberta": (XLMRobertaConfig, XLMRobertaForMaskedLM)}
    config, model = configs[kind]
    whole = model(config(**shared, intermediate_size=32, max_position_embeddings=70, pad_token_id=1))
    draw_weights(whole, seed=4)
    whole.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_checkpoint).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_without_a_connector_the_pivot_view_is_what_the_masked_language_model_says(kind, encoder_checkpoint, tmp_path):
    checkpoint = masked_lm(kind, encoder_checkpoint, tmp_path / "whole")
    model = MilcoModel.from_checkpoints(checkpoint, None, echo=False).eval()
    ids, mask = padded(model, [text for text in TEXTS if text])
    logits = AutoModelForMaskedLM.from_pretrained(checkpoint).eval()(ids, attention_mask=mask).logits
    wanted = logits.masked_fill(~mask.bool()[:, :, None], -torch.inf).max(dim=1).values
    assert (wanted > 0).any() and (wanted < 0).any()
    torch.testing.assert_close(model(ids, mask).pooled, wanted, rtol=1e-4, atol=1e-4)


def test_without_a_connector_a_new_head_begins_with_the_words_nearest_to_the_text(encoder_checkpoint, tmp_path):
    model = MilcoModel.from_checkpoints(encoder_checkpoint, None, echo=False).eval()
    table = AutoModel.from_pretrained(encoder_checkpoint).get_input_embeddings().weight
    ids, mask = padded(model, ["maison"])
    states = torch.nn.functional.gelu(model.encoder(ids, attention_mask=mask).last_hidden_state[0])
    states = (states - states.mean(dim=1, keepdim=True)) / states.std(dim=1, correction=0, keepdim=True)
    wanted = (states @ table.T).max(dim=0).values - NormalDist().inv_cdf(1 - 8 / 73) * table.norm(dim=1)
    torch.testing.assert_close(model(ids, mask).pooled[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_model_without_a_connector_is_saved_loaded_and_read_like_any_other(encoder_checkpoint, tmp_path):
    model = MilcoModel.from_checkpoints(masked_lm("bert", encoder_checkpoint, tmp_path / "whole"), None, echo=False)
    model.eval().save_pretrained(tmp_path / "model")
    loaded = MilcoModel.from_pretrained(tmp_path / "model")
    rows = loaded.encode_document(TEXTS)
    assert torch.equal(torch.tensor(rows.toarray()), torch.tensor(model.encode_document(TEXTS).toarray()))
    assert (loaded.connector, loaded.echo, rows.shape[1], rows.indices.max() < 73) == (None, None, 2 * 73, True)
    tokens = loaded.tokenizer.get_vocab()
    assert {name.removeprefix("e_") for named in loaded.decode(rows) for name in named} <= tokens.keys()
    assert not [name for name in loaded.state_dict() if name.startswith("connector")]


def test_a_teacher_without_a_bert_head_is_an_error(encoder_checkpoint, tmp_path):
    config = DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=16)
    DistilBertForMaskedLM(config).save_pretrained(tmp_path / "teacher")
    with pytest.raises(MilcoError, match="lsr_encoder_checkpoint"):
        MilcoModel.from_checkpoints(encoder_checkpoint, tmp_path / "teacher")


def in_passes(mask, count):
    """Texts sorted by length and cut into so many passes."""
    lengths = mask.sum(dim=1)
    rows = [rows for rows in lengths.argsort(stable=True).tensor_split(count) if len(rows)]
    return [(part, int(lengths[part].max())) for part in rows]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_encoding_in_passes_changes_no_view_and_no_gradient(model, count, recompute):
    model.double()
    ids, mask = padded(model, TEXTS)
    found = []
    for how in ({"passes": in_passes(mask, count), "recompute": recompute}, {}):
        views = model(ids, mask, **how)
        model.zero_grad()
        (torch.log1p(torch.relu(views.pooled)).sum() + views.source.square().sum()).backward()
        found.append((views.pooled, views.source, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (pooled, source, gradients), (wanted_pooled, wanted_source, wanted_gradients) = found
    torch.testing.assert_close(pooled, wanted_pooled, rtol=0, atol=1e-10)
    torch.testing.assert_close(source, wanted_source, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-4, atol=1e-4)  # the source view is float32


def test_encoding_in_passes_works_without_a_source_view(encoder_checkpoint, teacher_checkpoint):
    plain = MilcoModel.from_checkpoints(encoder_checkpoint, teacher_checkpoint, echo=False).eval()
    ids, mask = padded(plain, TEXTS)
    views = plain(ids, mask, in_passes(mask, 3))
    assert views.source is None
    torch.testing.assert_close(views.pooled, plain(ids, mask).pooled, rtol=0, atol=1e-5)


def test_a_pass_that_is_computed_again_has_the_same_dropout(model):
    model.train()
    model.encoder.set_attn_implementation("eager")
    ids, mask = padded(model, TEXTS)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model.zero_grad()
        model(ids, mask, in_passes(mask, 3), recompute).pooled.square().sum().backward()
        gradients.append(model.connector.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_passes_that_are_computed_again_keep_no_states(model):
    ids, mask = padded(model, TEXTS)
    kept = []
    for recompute in (False, True):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            model(ids, mask, in_passes(mask, 2), recompute)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 10


def test_gradient_checkpointing_changes_no_gradient(model):
    ids, mask = padded(model, TEXTS)
    model.train()
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(0)
        model.zero_grad()
        model(ids, mask, in_passes(mask, 3)).pooled.square().sum().backward()
        gradients.append(model.connector.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("budget", "recompute"), [(10_000, False), (11, False), (10, True)])
def test_only_texts_that_do_not_fit_together_are_computed_again(budget, recompute):
    texts = [np.arange(3), np.arange(8)]  # 11 tokens, and none of their pads counts
    batch = collate_texts(texts, 1, budget)
    assert batch["recompute"] == recompute
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 8]


def test_rows_come_as_tensors_or_words_when_asked(model):
    """As the authors' models give them."""
    wanted = model.encode_document(TEXTS)
    rows = model.encode_text(TEXTS)
    assert rows.layout == torch.sparse_coo and rows.is_coalesced() and rows.shape == (len(TEXTS), model.width)
    np.testing.assert_array_equal(rows.to_dense().numpy(), wanted.toarray())
    assert model.encode_text(TEXTS, return_dict=True, batch_size=2) == [
        pytest.approx(words, abs=1e-5) for words in model.decode(wanted)
    ]
    words = model.encode_text(TEXTS[1], return_dict=True)[0]  # one text, without a list
    assert list(words.values()) == sorted(words.values(), reverse=True) and f"m_{COLUMN}" in words
    for encode in (model.encode_query, model.encode_document):
        np.testing.assert_array_equal(encode(TEXTS, return_dict=False).to_dense(), encode(TEXTS).toarray())
        assert encode(TEXTS, return_dict=True) == model.decode(encode(TEXTS))
    pivot = model.encode_text(TEXTS, source_view=False).to_dense().numpy()
    np.testing.assert_array_equal(pivot[:, :60], wanted.toarray()[:, :60])
    assert (pivot[:, 60:] == 0).all() and (wanted.toarray()[:, 60:] > 0).any()


def test_a_length_that_is_asked_for_cuts(model):
    long = " ".join(["Hund"] * 8 + ["Katze"] * 3)
    for encode in (model.encode_text, model.encode_query, model.encode_document):
        assert f"m_{COLUMN}" not in encode([long], max_length=6, return_dict=True)[0]
        assert f"m_{COLUMN}" in encode([long], max_length=20, return_dict=True)[0]


@pytest.mark.parametrize(("kind", "most"), [("bert", 70), ("xlm-roberta", 68)])
def test_a_length_beyond_the_positions_is_an_error_once_a_text_is_as_long(kind, most, encoder_checkpoint, tmp_path):
    checkpoint = masked_lm(kind, encoder_checkpoint, tmp_path / "whole")
    model = MilcoModel.from_checkpoints(checkpoint, None, echo=False)
    long = "Hund " * 100
    for encode in (model.encode_text, model.encode_query, model.encode_document):
        assert encode([long], max_length=most).shape == encode(["Hund"], max_length=999).shape
        with pytest.raises(MilcoError, match=f"has {most + 1} tokens, but the encoder has positions for {most}"):
            encode(["Hund", long], max_length=most + 1)


def test_every_column_has_its_name_in_the_vocabulary(model):
    names = model.get_vocab()
    assert names == {column: model.column_name(column) for column in range(model.width)}
    assert names[60] == "m_<s>"

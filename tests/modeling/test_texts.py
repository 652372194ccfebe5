"""Texts on their way to the model: how much is read of them, and what of it is text."""

import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordPiece
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from milco.modeling.rows import in_text_order, padded_batches
from milco.modeling.teacher import Teacher
from milco.modeling.texts import LETTERS, as_text, composed, token_ids, wordless_pieces

LONG = {
    "words": "the cat in the old house " * 9999,
    "much white space": "the cat" + " " * 50_000 + "in the old house" + "\n" * 50_000 + " the river" * 99,
    "no blank": "猫" * 100_000,
    "one long word": "cat" * 50_000,
    "short": "the cat",
    "nothing": "",
}


@pytest.fixture(scope="module")
def tokenizers(encoder_checkpoint, teacher_checkpoint):
    return [AutoTokenizer.from_pretrained(folder) for folder in (encoder_checkpoint, teacher_checkpoint)]


def test_ids_of_long_texts_are_those_of_the_whole_texts(tokenizers):
    texts = list(LONG.values())
    for tokenizer in tokenizers:
        for length in (4, 16):
            assert (
                token_ids(tokenizer, texts, length) == tokenizer(texts, truncation=True, max_length=length)["input_ids"]
            )


def test_no_more_of_a_long_text_is_tokenised_than_is_kept_of_it(tokenizers, monkeypatch):
    read: list[str] = []
    for tokenizer in tokenizers:
        call = type(tokenizer).__call__

        def counting(self, texts, call=call, **how):
            read.extend(texts)
            return call(self, texts, **how)

        monkeypatch.setattr(type(tokenizer), "__call__", counting)
        token_ids(tokenizer, [LONG["words"]], 16)
        monkeypatch.undo()
    assert len(read) == 2 and max(map(len, read)) <= LETTERS * 16


def test_vectors_do_not_hang_on_the_side_on_which_a_tokenizer_pads(model, monkeypatch):
    texts = ["the cat in the old house", "river", "the red door"]
    alone = np.vstack([model.encode_document([text]).toarray() for text in texts])
    monkeypatch.setattr(model.tokenizer, "padding_side", "left")
    for side in ("left", "right"):
        monkeypatch.setattr(model.tokenizer, "padding_side", side)
        together = model.encode_document(texts).toarray()
        np.testing.assert_allclose(together, alone, atol=1e-5)
        _, batch = next(padded_batches(model.tokenizer, texts, 16, 8))
        assert batch["attention_mask"][:, 0].tolist() == [1, 1, 1]


def test_special_tokens_of_a_text_are_text(tokenizers):
    for tokenizer in tokenizers:
        specials = tokenizer.all_special_tokens
        texts = [f"the {name} cat{name}" for name in specials] + ["the ＜s＞ cat", "the <b> cat [x]"]
        for text, ids in zip(texts, token_ids(tokenizer, texts, 64), strict=True):
            inside = set(ids[1:-1]) & {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
            assert not inside, text
        plain = ["the <b> cat [x]", "ÄÖÜ ½", "家"]
        assert as_text(tokenizer, plain) == plain  # texts without any stay to the letter


def test_a_page_that_has_the_word_of_a_special_token_is_found_by_it(model):
    name = model.tokenizer.mask_token
    rows = model.encode_document([f"the {name} cat", "the cat"])
    asked = model.encode_query([name])
    assert asked.nnz and (rows @ asked.T).toarray()[0] > (rows @ asked.T).toarray()[1]


def test_a_text_without_a_word_finds_nothing(model, teacher_checkpoint):
    blank = ["", " ", "\t \u3000\n"]
    rows = model.encode_document([*blank, "the cat"])
    assert [rows[[row]].nnz > 0 for row in range(4)] == [False] * 3 + [True]
    assert model.encode_query(blank).nnz == 0
    teacher = Teacher(teacher_checkpoint)
    found = in_text_order(teacher.iter_rows([*blank, "the cat"], 16, 8), teacher.head.decoder.out_features)
    assert [found[[row]].nnz > 0 for row in range(4)] == [False] * 3 + [True]


SAME = {
    "composition": (
        unicodedata.normalize("NFD", "비밀번호 재설정 Mật khẩu パスワード Zürich"),
        "비밀번호 재설정 Mật khẩu パスワード Zürich",
    ),
    "half width": ("ﾊﾟｽﾜｰﾄﾞ", "パスワード"),
    "full width": ("Ｗｉ－Ｆｉ", "Wi-Fi"),
    "zero-width space": ("pass\u200bword", "password"),
    "soft hyphen": ("Pass\u00adwort", "Passwort"),
    "byte order mark": ("\ufeffTür", "Tür"),
    "how a sign is drawn": ("\u2744\ufe0f", "\u2744"),
    "how an ideograph is drawn": ("辻\U000e0100さん", "辻さん"),
    "embedded and isolated directions": ("\u202bדלת\u202c \u2067פתוח\u2069", "דלת פתוח"),
    "an invisible operator": ("f\u2061(x)", "f(x)"),
    "tatweel": ("كتـــاب", "كتاب"),
    "Arabic keyboard in Persian": ("كليد روشنايي اتاق پذيرايي", "کلید روشنایی اتاق پذیرایی"),
    "Arabic": ("كلمة المرور الخاصة بي", "كلمة المرور الخاصة بي"),
    "Uyghur": ("ئۇيغۇر تىلى ۋە پارول كىرگۈزۈش يېزىقى", "ئۇيغۇر تىلى ۋە پارول كىرگۈزۈش يېزىقى"),
    "nothing to do": ("می\u200cخواهم ½ \u00a0 …", "می\u200cخواهم ½ \u00a0 …"),
}


@pytest.mark.parametrize("case", SAME)
def test_a_word_is_the_same_however_it_is_written(case, tokenizers):
    text, plain = SAME[case]
    assert composed(text) == composed(plain) == plain
    for tokenizer in tokenizers:
        assert token_ids(tokenizer, [text], 16) == token_ids(tokenizer, [plain], 16)


SIGNS = [
    ".",
    "、",
    "(",
    "——",
    "؟",
    "…",
    "_",
    "##,",
    "C",
    "語",
    "ा",
    "7",
    "½",
    "+",
    "€",
    "→",
    "😀",
    "#",
    "%",
    "@",
    "a.",
    "##ing",
]


def test_punctuation_is_no_word_and_symbols_are():
    """Pieces of WordPiece with ## before those inside a word."""
    tokenizer = Tokenizer(WordPiece({sign: n for n, sign in enumerate(["[UNK]", *SIGNS])}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    found = wordless_pieces(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))
    assert [SIGNS[piece - 1] for piece in found] == SIGNS[:8]


def test_a_bare_word_boundary_is_no_word(model, tokenizers):
    assert "▁" in model.tokenizer.tokenize("夜 , 水")
    rows = model.encode_document(["夜 , 水"])
    assert "m_▁" not in model.decode(rows)[0]
    model.config.special_token_ids = sorted(model.tokenizer.all_special_ids)  # as it was, and as the option has it
    assert model.decode(model.encode_document(["夜 , 水"]))[0].keys() - model.decode(rows)[0].keys() == {"m_▁"}

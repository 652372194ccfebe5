"""The token cache: what goes into it as text comes out as the tokenizer's ids."""

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

import milco.tokens
from milco.tokens import TokenCache, build

ENGLISH = ["the cat", "dog", "the big red house and the water", "", "book river night"]
PAIRS = [  # in no order of language
    ("fr", "the cat", "chat"),
    ("de", "dog", "der Hund"),
    ("de", "the cat", "die Katze ist rot und groß"),
    ("zh", "the big red house and the water", "水 夜"),
    ("de", "", ""),
    ("de", "book river night", "Buch Fluss Nacht"),
    ("fr", "book river night", "livre eau nuit"),
    ("de", "the cat", "Katze"),  # the same English text twice in a language
]


@pytest.fixture
def corpora(tmp_path):
    folder = tmp_path / "corpora"
    folder.mkdir()
    pd.DataFrame({"english": ENGLISH}).to_parquet(folder / "english.parquet")
    pd.DataFrame(PAIRS, columns=["language", "english", "non_english"]).to_parquet(folder / "parallel.parquet")
    return folder


@pytest.fixture
def tokenizer(encoder_checkpoint):
    return AutoTokenizer.from_pretrained(encoder_checkpoint)


@pytest.fixture(params=[1, 2, 3, 20_000])
def cache(request, monkeypatch, corpora, encoder_checkpoint, tmp_path):
    """A cache whose files hold several record batches, or one."""
    monkeypatch.setattr(milco.tokens, "ROWS_AT_A_TIME", request.param)
    build(corpora, encoder_checkpoint, 6, tmp_path / "cache")
    return TokenCache(tmp_path / "cache")


def test_the_english_side_stands_once_and_in_order(cache, tokenizer):
    assert len(cache.english) == len(ENGLISH)
    for row, text in enumerate(ENGLISH):
        assert cache.english.ids(row) == tokenizer(text, truncation=True, max_length=6)["input_ids"]


def test_pairs_keep_their_two_texts_and_their_language(cache, tokenizer):
    assert len(cache) == len(PAIRS)
    assert cache.languages == ["de", "fr", "zh"]
    found = [
        (cache.languages[cache.pair_language[pair]], ENGLISH[cache.pair_english[pair]], cache.other(pair))
        for pair in range(len(cache))
    ]
    wanted = [
        (language, english, tokenizer(other, truncation=True, max_length=6)["input_ids"])
        for language in cache.languages
        for name, english, other in PAIRS
        if name == language
    ]
    assert found == wanted


def test_lengths_are_those_of_the_texts(cache):
    assert cache.english.lengths.tolist() == [len(cache.english.ids(row)) for row in range(len(ENGLISH))]
    assert cache.pair_lengths.tolist() == [len(cache.other(pair)) for pair in range(len(cache))]


def test_texts_are_cut_with_both_markers_in_place(cache, tokenizer):
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    texts = [cache.english.ids(row) for row in range(len(ENGLISH))] + [cache.other(pair) for pair in range(len(cache))]
    assert max(map(len, texts)) == 6
    assert all((text[0], text[-1]) == (start, end) for text in texts)
    assert cache.english.ids(ENGLISH.index("")) == [start, end]


def test_pairs_can_be_picked_with_numpy_integers(cache):
    for pair in np.array([7, 0, 3]):
        assert cache.other(pair) == cache.other(int(pair))
        assert all(isinstance(token, int) for token in cache.other(pair))


def test_a_finished_cache_is_replaced_as_a_whole(corpora, encoder_checkpoint, tmp_path):
    output = tmp_path / "cache"
    build(corpora, encoder_checkpoint, 6, output)
    (output / "xx.arrow").write_bytes((output / "fr.arrow").read_bytes())  # a language that is no longer wanted
    build(corpora, encoder_checkpoint, 6, output)
    assert TokenCache(output).languages == ["de", "fr", "zh"]

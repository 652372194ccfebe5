"""The token cache: what goes into it as text comes out as the tokenizer's ids."""

import json
import multiprocessing
import os
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

import milco.data.shards
from milco.data.shards import Shards, write_shards
from milco.data.tokens import TokenCache, build
from milco.errors import MilcoError

pytestmark = pytest.mark.slow

ENGLISH = ["the cat", "dog", "the big red house and the water", "", "book river night"]
PAIRS = [  # a text's translations together, texts with few of them first
    (1, "der Hund"),
    (2, "水 夜"),
    (3, ""),
    (4, "Buch Fluss Nacht"),
    (4, "livre eau nuit"),
    (0, "die Katze ist rot und groß"),
    (0, "Katze"),
    (0, "chat"),
]
FAMILIES = [(1, 3), (2, 1), (3, 1)]


@pytest.fixture
def corpora(tmp_path):
    folder = tmp_path / "corpora"
    folder.mkdir()
    pq.write_table(pa.table({"english": ENGLISH}), folder / "english.parquet", row_group_size=2)
    ids, texts = zip(*PAIRS, strict=True)
    table = pa.table({"english_id": pa.array(ids, pa.uint32()), "non_english": texts, "language": ["xx"] * len(PAIRS)})
    pq.write_table(table, folder / "parallel.parquet", row_group_size=3)
    (folder / "statistics.json").write_text(json.dumps({"families": FAMILIES}))
    return folder


@pytest.fixture
def tokenizer(encoder_checkpoint):
    return AutoTokenizer.from_pretrained(encoder_checkpoint)


@pytest.fixture(params=[(1, 1), (1, 3), (2, 2), (10_000, 20)])
def rows(request, monkeypatch):
    """Record batches and files of few rows, or one of many."""
    batch, batches = request.param
    monkeypatch.setattr(milco.data.shards, "ROWS", batch)
    monkeypatch.setattr(milco.data.shards, "FILE_ROWS", batch * batches)


@pytest.fixture
def cache(rows, corpora, encoder_checkpoint, tmp_path):
    build(corpora, encoder_checkpoint, 6, 1, tmp_path / "cache")
    return TokenCache(tmp_path / "cache")


def ids_of(cache, pair):
    return cache.pairs.lists("input_ids", np.array([pair]))[0].tolist()


def test_the_english_side_stands_once_and_in_order(cache, tokenizer):
    assert len(cache.english) == len(ENGLISH)
    found = cache.english.lists("input_ids", np.arange(len(ENGLISH)))
    assert [ids.tolist() for ids in found] == tokenizer(ENGLISH, truncation=True, max_length=6)["input_ids"]


def test_pairs_keep_their_two_texts(cache, tokenizer):
    assert len(cache) == len(PAIRS)
    assert cache.english_ids(np.arange(len(PAIRS))).tolist() == [english for english, _ in PAIRS]
    wanted = tokenizer([other for _, other in PAIRS], truncation=True, max_length=6)["input_ids"]
    assert [ids_of(cache, pair) for pair in range(len(PAIRS))] == wanted


def test_rows_come_in_the_order_in_which_they_are_asked_for(cache):
    order = np.array([5, 0, 7, 5, 2])
    assert cache.english_ids(order).tolist() == [PAIRS[pair][0] for pair in order]
    assert [ids.tolist() for ids in cache.pairs.lists("input_ids", order)] == [ids_of(cache, pair) for pair in order]
    assert cache.pairs.lengths("input_ids", order).tolist() == [len(ids_of(cache, pair)) for pair in order]
    assert len(cache.english_ids(np.array([], int))) == 0


def test_the_length_of_a_pair_is_that_of_its_longer_side(cache, tokenizer):
    english = tokenizer(ENGLISH, truncation=True, max_length=6)["input_ids"]
    wanted = [max(len(english[row]), len(ids_of(cache, pair))) for pair, (row, _) in enumerate(PAIRS)]
    assert cache.lengths(np.arange(len(PAIRS))).tolist() == wanted


def test_texts_are_cut_with_both_markers_in_place(cache, tokenizer):
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    english = [ids.tolist() for ids in cache.english.lists("input_ids", np.arange(len(ENGLISH)))]
    texts = english + [ids_of(cache, pair) for pair in range(len(cache))]
    assert max(map(len, texts)) == 6
    assert all((text[0], text[-1]) == (start, end) for text in texts)
    assert english[ENGLISH.index("")] == [start, end]


def test_several_workers_write_the_same_files(monkeypatch, corpora, encoder_checkpoint, tmp_path):
    monkeypatch.setattr(milco.data.shards, "ROWS", 1)
    monkeypatch.setattr(milco.data.shards, "FILE_ROWS", 2)
    for workers in (1, 2):
        build(corpora, encoder_checkpoint, 6, workers, tmp_path / str(workers))
    one, two = (sorted((tmp_path / name).iterdir()) for name in "12")
    assert [path.name for path in one] == [path.name for path in two] and len(one) > 3
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_workers_without_work_keep_no_threads_from_the_others(corpora, tmp_path):
    asked = []

    def make(worker, workers):
        asked.append(workers)
        return lambda batch: batch

    write_shards({"texts": corpora / "english.parquet"}, tmp_path, make, 8)
    assert asked == [1]


def test_a_finished_cache_is_replaced_as_a_whole(corpora, encoder_checkpoint, tmp_path):
    output = tmp_path / "cache"
    build(corpora, encoder_checkpoint, 6, 1, output)
    (output / "pairs-00001.arrow").write_bytes((output / "pairs-00000.arrow").read_bytes())  # of an earlier corpus
    with pytest.raises(MilcoError, match="do not belong together"):
        TokenCache(output)
    build(corpora, encoder_checkpoint, 6, 1, output)
    assert len(TokenCache(output)) == len(PAIRS)


def test_a_table_of_more_files_than_a_process_may_open_is_read(monkeypatch, tmp_path):
    for name in ("ROWS", "FILE_ROWS"):
        monkeypatch.setattr(milco.data.shards, name, 1)
    numbers = pa.table({"number": range(100)})
    pq.write_table(numbers, tmp_path / "numbers.parquet")
    write_shards({"numbers": tmp_path / "numbers.parquet"}, tmp_path, lambda *worker: lambda batch: batch, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 50, hard))
    try:
        assert Shards(tmp_path, "numbers").numbers("number", np.arange(100)).tolist() == list(range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_is_missing_in_the_middle_is_named(monkeypatch, tmp_path):
    for name in ("ROWS", "FILE_ROWS"):
        monkeypatch.setattr(milco.data.shards, name, 1)
    pq.write_table(pa.table({"number": range(4)}), tmp_path / "numbers.parquet")
    write_shards({"numbers": tmp_path / "numbers.parquet"}, tmp_path, lambda *worker: lambda batch: batch, 1)
    (tmp_path / "numbers-00002.arrow").unlink()
    with pytest.raises(MilcoError, match=r"numbers-00002\.arrow is missing; delete .* and start again$"):
        Shards(tmp_path, "numbers")


def test_what_goes_wrong_in_a_worker_is_told_and_ends_all(monkeypatch, corpora, tmp_path):
    monkeypatch.setattr(milco.data.shards, "ROWS", 1)
    with pytest.raises(KeyError, match="no_such_column"):
        write_shards({"texts": corpora / "english.parquet"}, tmp_path, _failing, 2)
    with pytest.raises(MilcoError, match="a worker died, probably for lack of memory"):
        write_shards({"texts": corpora / "english.parquet"}, tmp_path, _dying, 2)
    assert not multiprocessing.active_children()


def _failing(worker, workers):
    return lambda batch: batch.column("no_such_column")


def _dying(worker, workers):
    return lambda batch: os._exit(9)

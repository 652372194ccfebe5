"""Packed triples: what goes in as text comes out as the tokenizer's ids, each document once, in little memory."""

import random
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

import milco.data.shards
import milco.data.triples
from milco.config import parse
from milco.data.triples import SIDES, Triples, pack
from milco.training.batching import Steps
from milco.training.distill import Groups
from milco.training.mine import SCHEMA

ROWS = {
    "query": ["die Katze", "Haus", "Fluss", "Nacht und Feuer", "rot"],
    "pos": [["the cat"], ["the house", "a house"], ["the river"], ["the night and the fire"], ["red"]],
    "neg": [
        ["the dog", "the house"],
        ["the cat"],
        ["the cat", "the big red house and the water", "a tree"],
        ["the dog", "the dog"],
        ["the cat", "the river"],
    ],
    "pos_scores": [[9.0], [8.0, 7.5], [7.0], [6.0], [5.0]],
    "neg_scores": [[1.5, 0.1], [2.5], [5.0, 4.0, 3.0], [1.0, 1.0], [0.5, 0.25]],
}


@pytest.fixture
def triples(tmp_path):
    pq.write_table(pa.table(ROWS, SCHEMA), tmp_path / "triples.parquet", row_group_size=2)
    return tmp_path / "triples.parquet"


@pytest.fixture
def config(values):
    return parse({**values, "model": {**values["model"], "query_max_length": 4, "passage_max_length": 6}})


@pytest.fixture(params=[(1, 1), (2, 2), (10_000, 20)])
def batches(request, monkeypatch):
    """Record batches and files of few rows, or one of many."""
    batch, of_file = request.param
    for module in (milco.data.shards, milco.data.triples):
        monkeypatch.setattr(module, "ROWS", batch)
    monkeypatch.setattr(milco.data.shards, "FILE_ROWS", batch * of_file)


def test_packed_triples_are_the_texts_and_scores_of_each_query(batches, triples, config, encoder_checkpoint, tmp_path):
    pack(config, triples, encoder_checkpoint, 1, tmp_path / "packed")
    found, tokenizer = Triples(tmp_path / "packed"), AutoTokenizer.from_pretrained(encoder_checkpoint)
    everything = np.arange(len(ROWS["query"]))

    def ids(text: str, longest: int) -> list[int]:
        return tokenizer(text, truncation=True, max_length=longest)["input_ids"]

    assert len(found) == len(everything)
    queries = [row.tolist() for row in found.queries.lists("input_ids", everything)]
    assert queries == [ids(text, 4) for text in ROWS["query"]] and max(map(len, queries)) == 4
    for side in SIDES:
        numbers = found.queries.lists(side, everything)
        texts = [[row.tolist() for row in found.documents.lists("input_ids", some.astype(int))] for some in numbers]
        assert texts == [[ids(text, 6) for text in some] for some in ROWS[side]]
        scores = [row.tolist() for row in found.queries.lists(f"{side}_scores", everything)]
        assert scores == ROWS[f"{side}_scores"]
    longest = [max(len(ids(text, 6)) for text in some) for some in ROWS["neg"]]
    assert found.longest(everything).tolist() == longest and found.longest(np.array([2, 0])).tolist() == [6, longest[0]]
    assert found.negatives == [(1, 1), (2, 3), (3, 1)]


def test_a_document_stands_once_whoever_s_it_is(batches, triples, config, encoder_checkpoint, tmp_path):
    pack(config, triples, encoder_checkpoint, 1, tmp_path / "packed")
    found = Triples(tmp_path / "packed")
    number: dict[str, int] = {}
    for side in SIDES:
        for texts, numbers in zip(ROWS[side], found.queries.lists(side, np.arange(5)), strict=True):
            for text, row in zip(texts, numbers.tolist(), strict=True):
                assert number.setdefault(text, row) == row
    assert sorted(number.values()) == list(range(len(found.documents)))


def test_texts_are_cut_at_the_lengths_of_the_settings_whatever_the_model_that_stage_2_starts_from_has(
    triples, config, model_folder, model, tmp_path
):
    pack(config, triples, model_folder, 1, tmp_path / "packed")
    found = Triples(tmp_path / "packed")
    limit = config.model.query_max_length
    assert limit != model.config.query_max_length
    lengths = [len(row) for row in found.queries.lists("input_ids", np.arange(5))]
    assert lengths == [min(limit, len(model.tokenizer(text)["input_ids"])) for text in ROWS["query"]]
    assert max(lengths) == limit


def many(folder, queries: int, letters: int = 0):
    """Triples of so many queries, every text of them different."""
    texts = [[f"{n} {k} {'x' * letters}" for k in range(4)] for n in range(queries)]
    columns = {
        "query": [some[0] for some in texts],
        "pos": [some[1:2] for some in texts],
        "neg": [some[2:] for some in texts],
        "pos_scores": [[1.0]] * queries,
        "neg_scores": [[0.5, 0.25]] * queries,
    }
    path = folder / f"{queries}.parquet"
    pq.write_table(pa.table(columns, SCHEMA), path, row_group_size=100)
    return path


def test_several_workers_write_the_same_files_and_no_others(config, encoder_checkpoint, tmp_path):
    path = many(tmp_path, 12_000)
    for workers in (1, 2):
        pack(config, path, encoder_checkpoint, workers, tmp_path / str(workers))
    one, two = (sorted((tmp_path / name).iterdir()) for name in "12")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    names = [path.name for path in one]
    assert names == [path.name for path in two]
    assert names == ["documents-00000.arrow", "negatives.json", "queries-00000.arrow"]
    assert len(Triples(tmp_path / "2").documents) == 36_000


def peak(work) -> int:
    """Bytes that Python and numpy hold at the most."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_numbering_takes_the_same_memory_for_any_number_of_documents(monkeypatch, tmp_path):
    """3 documents a query of 1,000 letters each: 18 MB of text in the end."""
    monkeypatch.setattr(milco.data.triples, "ROWS", 100)
    monkeypatch.setattr(milco.data.sorting, "RUN", 1000)
    peaks = []
    for queries in (1500, 6000):
        path = many(tmp_path, queries, letters=1000)
        peaks.append(peak(lambda path=path: milco.data.triples._number(path, tmp_path / "a", tmp_path / "b")))
    assert peaks[1] < 1.2 * peaks[0] < 1e6, peaks


def test_documents_have_numbers_in_the_order_in_which_they_are_met(monkeypatch, tmp_path):
    monkeypatch.setattr(milco.data.triples, "ROWS", 7)
    draw, met = random.Random(0), {}
    pos, neg = ([[f"d{draw.randrange(30)}" for _ in range(draw.randint(1, 4))] for _ in range(50)] for _ in range(2))
    columns = {"query": [f"q{n}" for n in range(50)], "pos": pos, "neg": neg}
    scores = {f"{side}_scores": [[1.0] * len(texts) for texts in columns[side]] for side in ("pos", "neg")}
    pq.write_table(pa.table({**columns, **scores}, SCHEMA), tmp_path / "triples.parquet")
    milco.data.triples._number(tmp_path / "triples.parquet", tmp_path / "texts.parquet", tmp_path / "numbered.parquet")
    wanted: dict[str, list] = {"pos": [], "neg": []}
    for start in range(0, 50, 7):  # of a batch first all positives, then all negatives
        for side, lists in wanted.items():
            lists += [[met.setdefault(text, len(met)) for text in texts] for texts in columns[side][start : start + 7]]
    found = pq.read_table(tmp_path / "numbered.parquet")
    assert {side: found[side].to_pylist() for side in wanted} == wanted
    assert pq.read_table(tmp_path / "texts.parquet")["text"].to_pylist() == list(met)


def test_a_training_starts_in_as_little_memory_with_many_queries_as_with_few(values, encoder_checkpoint, tmp_path):
    config, peaks = parse(values), []
    for queries in (1000, 4000):
        packed = tmp_path / str(queries)
        pack(config, many(tmp_path, queries), encoder_checkpoint, 1, packed)

        def start(packed=packed) -> None:
            triples = Triples(packed)
            groups = Groups(triples, 0, config)
            steps = Steps(triples.longest, [(1, len(triples))], 8, 1, config.seed)
            groups(steps[7], 7)

        start()
        peaks.append(peak(start))
    assert peaks[1] < 1.2 * peaks[0]

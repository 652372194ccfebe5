"""Looks at the development collections: bounded, in the first process alone, and without a trace in the training."""

import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from milco.config import parse
from milco.data.beir import read_collection, write_layout
from milco.training import trainer
from milco.training.development import Development, part_of

DOCUMENTS, QUERIES = 60, 10


@pytest.fixture
def collection(tmp_path) -> Path:
    """60 documents; query n is answered by document 5n, and document 5n+1 is judged as wrong for it."""
    return write(tmp_path / "quiz", [f"d{n}" for n in range(DOCUMENTS)], {})


def write(folder: Path, names: list[str], about: dict) -> Path:
    documents = ({"_id": name, "text": f"text of {name}"} for name in names)
    queries = ({"_id": f"q{n}", "text": f"question {n}"} for n in range(QUERIES))
    qrels = {f"q{n}": {f"d{5 * n}": 1, f"d{5 * n + 1}": 0} for n in range(QUERIES)}
    write_layout(folder, "dev", documents, queries, qrels, about)
    return folder


def test_a_look_searches_what_is_judged_for_its_queries_and_a_sample_of_the_rest(collection):
    found = part_of(collection, 2, 12)
    assert list(found.queries) == ["q0", "q1"] and found.qrels == {"q0": {"d0": 1, "d1": 0}, "q1": {"d5": 1, "d6": 0}}
    assert len(found.documents) == 12 and {"d0", "d1", "d5", "d6"} <= found.documents.keys()
    whole = list(read_collection(collection, "dev").documents.items())
    assert [row for row in whole if row in found.documents.items()] == list(found.documents.items())
    assert part_of(collection, 2, 12) == found
    numbers = [int(name[1:]) for name in found.documents]
    assert max(numbers) > 30  # not the first that come
    assert part_of(collection, 2, 20).documents.items() > found.documents.items()


def test_all_judged_documents_are_there_even_if_they_are_more_than_a_look_may_search(collection):
    assert list(part_of(collection, 3, 1).documents) == ["d0", "d1", "d5", "d6", "d10", "d11"]


@pytest.mark.parametrize("most", [DOCUMENTS, 10_000])
def test_a_small_collection_is_searched_whole(collection, most):
    found, whole = part_of(collection, QUERIES, most), read_collection(collection, "dev")
    assert found == whole and list(found.documents) == list(whole.documents)


def test_the_chunks_of_a_judged_document_stay_together(tmp_path):
    names = [f"d{n}#{chunk}" for n in range(20) for chunk in range(3)]
    found = part_of(write(tmp_path / "long", names, {"chunked": True}), 1, 8)
    assert list(found.documents)[:6] == [f"d{n}#{chunk}" for n in (0, 1) for chunk in range(3)]
    assert len(found.documents) == 8


def test_a_look_encodes_no_more_than_it_may_and_draws_no_random_number(prepared, values, model, monkeypatch):
    evaluate = {**values["evaluate"], "development_queries": 3, "development_documents": 7}
    seen = []
    encode = type(model).encode_document
    monkeypatch.setattr(type(model), "encode_document", lambda *given: seen.append(given[1]) or encode(*given))

    def states() -> tuple:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    found = Development(parse({**values, "evaluate": evaluate}), prepared[0], model).look()
    assert states() == before
    assert [len(texts) for texts in seen] == [7, 1] and found["dev_nDCG@10"] > 0  # the documents, and an example


def test_other_processes_read_nothing(values, model, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert Development(parse(values), tmp_path / "nothing", model).collections == []


def test_other_processes_wait_for_a_long_look(values, monkeypatch, tmp_path):
    """PyTorch's own limit for an exchange between processes is 10 minutes, that of transformers 30."""

    class Seen(Exception):
        pass

    def arguments(**given):
        raise Seen(given["ddp_timeout"])

    monkeypatch.setattr(trainer, "TrainingArguments", arguments)
    config, output = parse(values), tmp_path / "run" / "model"
    with pytest.raises(Seen) as seen:
        trainer.train(config, config.align, "align", None, range(8), None, None, None, [tmp_path], output)
    assert timedelta(seconds=seen.value.args[0]) >= timedelta(hours=2)

"""Looks at the development collections: bounded, shared by all processes, and without a trace in the training."""

import os
import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes

from milco.config import parse
from milco.data.beir import read_collection, write_layout
from milco.evaluation.evaluate import mean_ndcg
from milco.training import development, trainer
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
    encode = type(model).encode_batches

    def encode_batches(model, batches):
        batches = list(batches)
        seen.append(sum(len(places) for places, _ in batches))
        return encode(model, batches)

    monkeypatch.setattr(type(model), "encode_batches", encode_batches)

    def states() -> tuple:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    found = Development(parse({**values, "evaluate": evaluate}), prepared[0], model).look()
    assert states() == before
    assert seen == [3, 7, 1] and found["dev_nDCG@10"] > 0  # queries, documents, and an example


def test_other_processes_read_nothing(values, model, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert Development(parse(values), tmp_path / "nothing", model).collections == []


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_a_look_is_the_same_for_any_number_of_processes(processes, prepared, values, model, monkeypatch):
    """To the last bit of every score; with five processes, one has no document."""
    evaluate = {**values["evaluate"], "development_documents": 30, "batch_size": 8}
    config, runs = parse({**values, "evaluate": evaluate}), []
    monkeypatch.setattr(development, "mean_ndcg", lambda qrels, run: runs.append(run) or mean_ndcg(qrels, run))

    def look() -> tuple[dict, list]:
        if int(os.environ["WORLD_SIZE"]) > 1:
            torch.distributed.init_process_group("gloo")
        looks = Development(config, prepared[0], model)
        return [looks.look(), looks.look()], runs

    ((wanted, _), searched), *_ = in_processes(1, look)
    assert wanted.keys() == {"dev_nDCG@10", "dev_active_query", "dev_active_document", "examples"}
    (found, searched_together), *others = in_processes(processes, look)
    assert found == [wanted, wanted] and others == [([{}, {}], [])] * (processes - 1)
    assert searched_together == searched and all(len(hits) == 10 for hits in searched[0].values())


def test_other_processes_wait_for_the_first(values, monkeypatch, tmp_path):
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

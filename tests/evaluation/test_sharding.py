"""Search by several jobs finds what one job finds, whatever documents each of them has."""

import json
from pathlib import Path

import pandas as pd
import pytest

from milco.config import parse
from milco.data.beir import read_collection, write_collection
from milco.evaluation import budgets, evaluate, index
from milco.evaluation.encode import encode
from milco.evaluation.lookup import StoredCollection, Vectors
from milco.evaluation.sharding import Shard

WHOLE = "whole"
TIMES = ("milliseconds", "seconds", "spread")  # words in columns that are never twice the same


@pytest.fixture(scope="module")
def settings(values):
    sweep = {"top_k": [2], "mass": [0.5], "query_top_k": [1], "query_mass": [0.9], "documents_at_a_time": 10}
    return parse({**values, "evaluate": {**values["evaluate"], **sweep, "source_weights": [0.5]}})


@pytest.fixture(scope="module")
def made(settings, model_folder, encoder_checkpoint, tmp_path_factory) -> Path:
    """Two collections over the same documents and one over half of them, and their vectors, sparse and dense."""
    folder = tmp_path_factory.mktemp("vectors")
    for name in ("mine-a", "mine-b", "mine-c"):
        collection = read_collection(Path(settings.sources["mine"].uri.removeprefix("file:")))
        collection.about = {"query_language": "xx", "document_language": "en", "source": "mine"}
        if name == "mine-b":
            collection.queries = {name: text.split()[0] for name, text in collection.queries.items()}
        if name == "mine-c":
            collection.documents = dict([*collection.documents.items()][::2])
        write_collection(collection, folder / "tests" / name, "test")
    for system, model in (("distill", model_folder), ("dense", encoder_checkpoint)):
        encode(settings, system, model, folder / "tests", folder / system)
    return folder


def without_times(table: pd.DataFrame) -> dict:
    return table.drop(columns=[name for name in table if any(word in name for word in TIMES)]).to_dict("list")


@pytest.mark.parametrize("shards", [2, 13])
@pytest.mark.parametrize("system", ["bm25", "distill", "distill-source-0.5", "dense"])
def test_runs_are_the_same_for_any_number_of_jobs(settings, made, encoder_checkpoint, tmp_path, system, shards):
    tests = made / "tests"
    vectors = None if system == "bm25" else made / system.partition("-")[0]
    evaluate.evaluate(settings, system, tests, vectors, encoder_checkpoint, tmp_path / WHOLE)
    parts = [tmp_path / str(number) for number in range(shards)]
    for number, part in enumerate(parts):
        evaluate.search_shard(settings, system, tests, vectors, encoder_checkpoint, Shard(number, shards), part)
    evaluate.evaluate(settings, system, tests, vectors, encoder_checkpoint, tmp_path / "parts", parts)
    for path in (tmp_path / WHOLE / "runs").iterdir():
        assert (tmp_path / "parts" / "runs" / path.name).read_bytes() == path.read_bytes()
    tables = [
        [
            without_times(pd.read_parquet(tmp_path / name / "measures.parquet")),
            without_times(pd.DataFrame(json.loads((tmp_path / name / "statistics.json").read_text()))),
        ]
        for name in (WHOLE, "parts")
    ]
    assert tables[0] == tables[1]
    assert system == "bm25" or {"bytes_document", "dimensions"} < set(tables[0][1])


def test_a_shard_that_was_cut_off_keeps_the_collections_it_has(
    settings, made, encoder_checkpoint, tmp_path, monkeypatch
):
    tests, vectors, searched = made / "tests", made / "distill", []

    def search(*arguments, **options):
        searched.append(1)
        if len(searched) == 2:
            raise KeyboardInterrupt
        return rank_blocks(*arguments, **options)

    rank_blocks = evaluate.rank_blocks
    monkeypatch.setattr(evaluate, "rank_blocks", search)
    arguments = [settings, "distill", tests, vectors, encoder_checkpoint, Shard(0, 2), tmp_path / "part"]
    with pytest.raises(KeyboardInterrupt):
        evaluate.search_shard(*arguments)
    assert not (tmp_path / "part").exists()
    evaluate.search_shard(*arguments)
    assert len(searched) == 1 + len([*tests.iterdir()]) == 1 + len([*(tmp_path / "part").glob("*.parquet")])


@pytest.mark.parametrize("cut", [2, 3])  # in the second collection, which shares the index of the first, and the third
def test_an_index_that_was_cut_off_keeps_the_collections_it_has(settings, made, tmp_path, monkeypatch, cut):
    tests, searched, built, steps = made / "tests", [], [], (index.rank_blocks, index.Index.build)

    def search(*arguments, **options):
        searched.append(1)
        if len(searched) == cut:
            raise KeyboardInterrupt
        return steps[0](*arguments, **options)

    monkeypatch.setattr(index, "rank_blocks", search)
    monkeypatch.setattr(index.Index, "build", lambda *arguments: built.append(1) or steps[1](*arguments))
    arguments = [settings, tests, made / "distill", Shard(0, 2)]
    with pytest.raises(KeyboardInterrupt):
        index.build_shard(*arguments, tmp_path / "part")
    index.build_shard(*arguments, tmp_path / "part")
    assert len(searched) == 3 + 1 and len(built) == 2 + (cut == 3)
    monkeypatch.undo()
    index.build_shard(*arguments, tmp_path / "whole")
    for name in ("part", "whole"):
        index.build_all(settings, tests, made / "distill", tmp_path / f"index of {name}", [tmp_path / name])
    found, whole = (pd.read_parquet(tmp_path / f"index of {name}" / "seismic.parquet") for name in ("part", "whole"))
    assert without_times(found) == without_times(whole)


def test_a_part_of_an_index_has_no_more_postings_than_one_machine_can_index(settings, made, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "POSTINGS", 100)
    index.build_all(settings, made / "tests", made / "distill", tmp_path / "index")
    table = pd.read_parquet(tmp_path / "index" / "seismic.parquet")
    vectors = Vectors(made / "distill")
    rows = vectors.of("documents", StoredCollection(made / "tests" / "mine-a").texts())
    assert vectors.mean_terms("documents") == pytest.approx(rows.nnz / rows.shape[0])
    assert (table.parts == -(-table.documents // int(100 / vectors.mean_terms("documents")))).all()
    assert table.parts.min() > 1 and (table.recall > 0.5).all()


@pytest.mark.parametrize("shards", [1, 3, 100])
def test_parts_of_several_jobs_are_one_index(settings, made, tmp_path, shards):
    tests = made / "tests"
    parts = [tmp_path / str(number) for number in range(shards)]
    for number, part in enumerate(parts):
        index.build_shard(settings, tests, made / "distill", Shard(number, shards), part)
    index.build_all(settings, tests, made / "distill", tmp_path / "index", parts)
    index.build_all(settings, tests, made / "distill", tmp_path / WHOLE)
    found, whole = (pd.read_parquet(tmp_path / name / "seismic.parquet") for name in ("index", WHOLE))
    same = ["collection", "index", "documents", "exact nDCG@10"]
    assert found[same].to_dict("list") == whole[same].to_dict("list")
    assert (found.parts == found.documents.clip(upper=shards)).all() and (found.recall > 0.5).all()
    for row in found.itertuples():
        files = [tmp_path / "index" / f"{row.index}-{part:03}" for part in range(row.parts)]
        assert sum(Path(f"{path}.index.seismic").stat().st_size for path in files) == row.bytes
        assert {len(index.Index.load(path).columns) > 0 for path in files} == {True}


def test_budgets_are_the_same_for_any_number_of_jobs(settings, made, tmp_path):
    tests = made / "tests"
    parts = [tmp_path / str(number) for number in range(3)]
    for number, part in enumerate(parts):
        budgets.sweep_shard(settings, tests, made / "distill", Shard(number, 3), part)
    budgets.sweep(settings, tests, made / "distill", tmp_path / "parts.parquet", found=parts)
    budgets.sweep(settings, tests, made / "distill", tmp_path / "whole.parquet")
    found, whole = (
        without_times(pd.read_parquet(tmp_path / f"{name}.parquet").drop(columns="bytes")) for name in ("parts", WHOLE)
    )
    assert found == whole and len(whole["value"]) >= 6 and sum(whole["value"]) > 0

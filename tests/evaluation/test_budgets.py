"""Budgets: what the sweep measures, which budget is chosen, and that every encoder applies it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SparseEncoder
from test_model import TEXTS

from milco.config import parse
from milco.data.beir import read_collection, write_collection
from milco.errors import MilcoError
from milco.evaluation import budgets
from milco.evaluation.encode import encode
from milco.evaluation.lookup import Vectors
from milco.modeling.model import MilcoModel
from milco.modeling.pruning import prune
from milco.tools.export import budgets as budgets_to_export
from milco.tools.export import export


@pytest.fixture(scope="module")
def settings(values):
    sweep = {"top_k": [2, 500], "mass": [0.5], "query_top_k": [1], "query_mass": [0.9]}
    return parse({**values, "evaluate": {**values["evaluate"], **sweep}})


@pytest.fixture(scope="module")
def collections(values, tmp_path_factory):
    """Two collections over the same documents, whose queries are in different languages."""
    folder = tmp_path_factory.mktemp("collections")
    for language in ("xx", "yy"):
        collection = read_collection(Path(values["sources"]["mine"]["uri"].removeprefix("file:")))
        collection.about = {"query_language": language, "document_language": "en", "source": "mine"}
        if language == "yy":
            collection.queries = {name: text.split()[0] for name, text in collection.queries.items()}
        write_collection(collection, folder / f"mine-{language}", "test")
    return folder


@pytest.fixture(scope="module")
def measured(settings, collections, model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    encode(settings, "distill", model_folder, collections, folder / "vectors")
    budgets.sweep(settings, collections, folder / "vectors", folder / "prune.parquet")
    return folder / "prune.parquet"


def test_both_sides_are_pruned_to_every_budget_on_every_collection(measured, collections):
    table, vectors = pd.read_parquet(measured), Vectors(measured.parent / "vectors")
    wanted = {"documents": ["none", "top-k 2", "top-k 500", "mass 0.5"], "queries": ["none", "top-k 1", "mass 0.9"]}
    for side, names in wanted.items():
        for language in ("xx", "yy"):
            rows = table[(table.side == side) & (table.collection == f"mine-{language}")].set_index("budget")
            assert list(rows.index) == names and set(rows.query_language) == {language}
            full = vectors.of(side, getattr(read_collection(collections / f"mine-{language}"), side).values())
            for name, row in rows.iterrows():
                assert row.active == pytest.approx(np.diff(prune(full, name).indptr).mean()), (side, name)
    documents = table[(table.side == "documents") & (table.collection == "mine-xx")].set_index("budget")
    assert documents.bytes["top-k 2"] < documents.bytes["mass 0.5"] < documents.bytes["none"]
    assert documents["value"]["top-k 500"] == documents["value"]["none"] > 0
    assert table[table.side == "queries"].bytes.nunique() == 1
    assert (table.milliseconds > 0).all() and (table.milliseconds_spread > 0).all()


def swept(
    values: dict, folder: Path, collections: Path, vectors: Path, measures: list[str], **evaluate
) -> pd.DataFrame:
    """What the sweep writes where the collections have some measures and the comparison some settings."""
    source = {**values["sources"]["mine"], "measures": measures}
    sources = {**values["sources"], "mine": source}
    budget = {"top_k": [2], "mass": [], "query_top_k": [], "query_mass": [], **evaluate}
    changed = {**values, "sources": sources, "evaluate": {**values["evaluate"], **budget}, "export": {}}
    budgets.sweep(parse(changed), collections, vectors, folder / "prune.parquet")
    return pd.read_parquet(folder / "prune.parquet")


def test_budgets_are_measured_on_what_is_compared(values, collections, measured, tmp_path):
    vectors = measured.parent / "vectors"
    shutil.copytree(collections, tmp_path / "collections")
    folder = tmp_path / "collections"
    about = {"query_language": "en", "document_language": "en", "source": "mine"}
    (folder / "mine-yy" / "collection.json").write_text(json.dumps(about))
    found = swept(values, tmp_path, folder, vectors, ["nDCG@10"])
    assert set(found.collection) == {"mine-xx"} and set(found.measure) == {"nDCG@10"}
    found = swept(values, tmp_path, folder, vectors, ["nDCG@10", "MRR@3"], compared_collections=["mine"])
    assert set(found.collection) == {"mine-xx", "mine-yy"}
    other = swept(values, tmp_path, folder, vectors, ["nDCG@10", "MRR@3"], compared_measure="MRR@3")
    assert set(other.measure) == {"RR@3"}
    pair = [rows[(rows.budget == "none") & (rows.collection == "mine-xx")].value.iloc[0] for rows in (found, other)]
    assert 0 < pair[1] < pair[0]  # no rank below 3 counts


def test_development_collections_are_encoded_and_measured_by_their_own_judgements(
    settings, model_folder, values, tmp_path
):
    collection = read_collection(Path(values["sources"]["mine"]["uri"].removeprefix("file:")), "dev")
    collection.about = {"query_language": "xx", "document_language": "en", "source": "mine"}
    queries = dict(list(collection.queries.items())[:3])  # there are no judgements of a split `test`
    collection.queries, collection.qrels = queries, {name: collection.qrels[name] for name in queries}
    write_collection(collection, tmp_path / "dev" / "mine", "dev")
    encode(settings, "development", model_folder, tmp_path / "dev", tmp_path / "vectors", split="dev")
    budgets.sweep(settings, tmp_path / "dev", tmp_path / "vectors", tmp_path / "tune.parquet", "dev")
    table = pd.read_parquet(tmp_path / "tune.parquet")
    assert set(table.collection) == {"mine"} and table["value"].between(0, 1).all()
    again = settings.model_copy(
        update={"evaluate": settings.evaluate.model_copy(update={"development_collections": []})}
    )
    budgets.sweep(again, tmp_path / "dev", tmp_path / "vectors", tmp_path / "none.parquet", "dev")
    assert pd.read_parquet(tmp_path / "none.parquet").empty  # these settings do not compare the collection


def test_where_nothing_is_compared_no_budget_is_measured_and_none_is_chosen(values, collections, measured, tmp_path):
    found = swept(values, tmp_path, collections, measured.parent / "vectors", ["R@2"])
    assert found.empty and budgets.means(found).empty
    assert budgets.choices(found, found).empty
    with pytest.raises(MilcoError, match=r"prune.parquet has no budget that was measured; name one instead"):
        budgets_to_export("auto", "documents", tmp_path / "prune.parquet")


def figures(side: str, language: str, **ndcg: float) -> list[dict]:
    """Rows of one collection; a budget has as many terms as its name says."""
    about = {"side": side, "collection": language, "query_language": language, "document_language": "en"}
    terms = {name: float(name.removeprefix("k") or 0) if name != "none" else 90.0 for name in ndcg}
    return [
        {**about, "budget": name.replace("k", "top-k "), "active": terms[name], "measure": "nDCG@10", "value": value,
         "bytes": 1.0, "milliseconds": 1.0}
        for name, value in ndcg.items()
    ]  # fmt: skip


def test_the_smallest_budget_loses_less_than_one_percent_of_the_mean():
    rows = figures("queries", "de", none=0.5, k10=0.4, k20=0.49501, k50=0.51)
    rows += figures("queries", "fr", none=0.5, k10=0.5, k20=0.495, k50=0.499)
    assert budgets.smallest(pd.DataFrame(rows)).budget == "top-k 20"


def test_a_budget_is_chosen_on_development_collections_and_told_with_its_figures_on_the_test_collections():
    tuned = figures("documents", "de", none=0.5, k10=0.4, k20=0.499, k50=0.5)
    measured = figures("documents", "de", none=0.6, k10=0.6, k20=0.4, k50=0.3)  # on which k10 would be the smallest
    measured += figures("documents", "fr", none=0.6, k10=0.6, k20=0.2, k50=0.3)
    found = budgets.choices(pd.DataFrame(tuned), pd.DataFrame(measured)).loc["documents"]
    assert found.budget == "top-k 20" and (found.active, found["full active"]) == (20.0, 90.0)
    assert (found["value"], found["full value"]) == (pytest.approx(0.3), 0.6)
    assert budgets.choices(pd.DataFrame(), pd.DataFrame(measured)).empty


@pytest.mark.parametrize("value", [0.5, 0.0])
def test_nothing_is_pruned_where_every_budget_loses_more_or_saves_nothing(value):
    rows = [*figures("queries", "de", none=value, k10=0.99 * value), {**figures("queries", "de", k90=value)[0]}]
    assert budgets.smallest(pd.DataFrame(rows)).budget == "none"


def test_the_exported_model_prunes_by_itself_in_both_classes_and_for_each_language(model, model_folder, tmp_path):
    chosen = {"documents": {"all": "top-k 5", "de": "mass 0.5"}, "queries": {"all": "top-k 2"}}
    export(model_folder, tmp_path / "model", pruned=chosen)
    pruned = MilcoModel.from_pretrained(tmp_path / "model")
    full = model.encode_document(TEXTS)
    for language, budget in ((None, "top-k 5"), ("de", "mass 0.5"), ("fr", "top-k 5")):
        found = pruned.encode_document(TEXTS, language=language)
        np.testing.assert_allclose(found.toarray(), prune(full, budget).toarray(), atol=1e-6)
    wanted = prune(model.encode_query(TEXTS), "top-k 2").toarray()
    np.testing.assert_allclose(pruned.encode_query(TEXTS).toarray(), wanted, atol=1e-6)
    encoder = SparseEncoder(str(tmp_path / "model"), trust_remote_code=True)
    np.testing.assert_allclose(encoder.encode_query(TEXTS).to_dense(), wanted, atol=1e-5)
    documents = prune(full, "top-k 5").toarray()
    np.testing.assert_allclose(encoder.encode_document(TEXTS).to_dense(), documents, atol=1e-5)
    # Training sees every term, and a new export keeps the budgets unless it is told otherwise.
    assert (encoder(encoder.preprocess(TEXTS))["sentence_embedding"] > 0).sum() > (documents > 0).sum()
    export(tmp_path / "model", tmp_path / "again", pruned={"queries": {}})
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["document_budgets"], config.get("query_budgets", {})) == (chosen["documents"], {})


def test_auto_is_what_the_report_names_and_needs_what_was_measured(measured):
    tuned = pd.read_parquet(measured)
    wanted = budgets.choices(tuned, tuned).budget["queries"]
    assert budgets_to_export("auto", "queries", measured) == {"all": wanted}  # whatever the languages
    assert budgets_to_export("mass 0.8", "queries", None) == {"all": "mass 0.8"}
    assert budgets_to_export("none", "queries", None) == {}
    with pytest.raises(MilcoError, match="--prune-queries auto: add --measured"):
        budgets_to_export("auto", "queries", None)
    for wrong in ("top-k", "top-k many", "mass", "best"):
        with pytest.raises(MilcoError, match=f"budget '{wrong}': expected none, top-k NUMBER or mass SHARE"):
            budgets_to_export(wrong, "documents", None)

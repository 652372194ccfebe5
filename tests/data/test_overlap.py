"""Queries of test collections that occur in the training text."""

import json

import pandas as pd
import pytest

from milco.config import parse
from milco.data import overlap
from milco.data.beir import Collection, write_collection

TEXTS = ["Das rote Haus?", "Der Fluss", "Ein KIND", "Das Buch", "niemand", "ein Satz"]
ASKED = {f"q{number}": text for number, text in enumerate(TEXTS)}


@pytest.fixture
def made(tmp_path):
    """Training text in each of its places, and two collections."""
    tables = {
        "english": {"english": ["ein kind", "a dog"]},
        "parallel": {"non_english": ["der  Fluss", "x"], "english_id": [0, 1]},
        "items": {"title": ["Das Buch", None], "description": [None, "das rote haus?"]},
        "triples": {"query": ["y", "z"], "pos": [["a", "ein Satz"], ["b"]]},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet")
    # "a dog" is there, too; in real text, earlier programs would have taken it out
    for name, asked in (("clean", {"q": "a dog"}), ("exam", ASKED)):
        about = {"query_language": "de", "document_language": "en", "source": name}
        exam = Collection(name, {"d": "text"}, asked, {query: {"d": 1} for query in asked}, about)
        write_collection(exam, tmp_path / "collections" / "test" / name, "test")
    return tmp_path


@pytest.mark.parametrize("workers", [1, 2])
def test_queries_in_pairs_items_and_triples_are_counted_but_not_of_what_is_taken_out(made, values, workers):
    source = {"uri": "file:x", "format": "beir", "language": "de", "document_language": "en"}
    config = parse(
        {
            **values,
            "sources": {**values["sources"], "clean": source, "exam": source},
            "corpora": {"decontaminate_for": ["clean"]},
            "evaluate": {**values["evaluate"], "test_collections": ["clean", "exam"]},
        }
    )
    overlap.write(config, made, made / "triples.parquet", made, made / "overlap.json", workers)
    found = json.loads((made / "overlap.json").read_text())
    assert found == {"clean": {"queries": 1, "met": 0}, "exam": {"queries": 6, "met": 5}}

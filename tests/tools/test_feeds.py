"""Every export read back as its engine reads it, and searched with the numbers that the engine would have."""

import json
import re
import weakref
from collections import Counter
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

import milco.tools.feeds
from milco.errors import MilcoError
from milco.evaluation.search import rank_exactly
from milco.tools.feeds import FORMS, SCALE, escape, export

COLUMNS = 300
ODD = [
    *"'\"\\.%{}[]:,^~#@\t\n\r ",
    "\u3000",
    "\x85",
    "\x00",
    "\x1f",
    "",
    "▁猫",
    "a b",
    "%2E",
    "x.y",
    "##ing",
    "ن",
    "🐈",
    "é",
]


def name(column):
    """Tokens of every kind that a vocabulary may have."""
    return f"e_{ODD[column]}" if column < len(ODD) else f"m_▁word{column}"


def draw(rows, seed, per_row=40):
    random = np.random.default_rng(seed)
    found = random_array((rows, COLUMNS), density=per_row / COLUMNS, rng=random, format="csr", dtype="float32")
    found.data = random.gamma(2.0, 0.4, len(found.data)).astype(np.float32)
    return found


DOCUMENTS, QUERIES = draw(300, 0), draw(25, 1, per_row=15)
IDS = [f"d/{row}'\"ü" for row in range(300)]
QUERY_IDS = [f"q{row}" for row in range(25)]


def parts(rows, ids, size=70):
    return ((ids[start : start + size], rows[start : start + size]) for start in range(0, len(ids), size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The exports to all engines."""
    found = tmp_path_factory.mktemp("exports")
    for form in FORMS:
        counts = export(form, parts(DOCUMENTS, IDS), parts(QUERIES, QUERY_IDS), name, found / form)
        assert counts == (300, 25)
    return found


def assert_ranked(documents, queries, tolerance):
    """Rankings by the exported numbers are those of exact search, but for scores closer than the tolerance."""
    assert list(documents) == IDS and list(queries) == QUERY_IDS
    exact = (QUERIES @ DOCUMENTS.T).toarray()
    for row, (query, wanted) in enumerate(zip(queries.values(), rank_exactly(QUERIES, DOCUMENTS, 10), strict=True)):
        scores = np.array([sum(query[t] * found[t] for t in query.keys() & found) for found in documents.values()])
        np.testing.assert_allclose(scores, exact[row], atol=tolerance)
        best = np.argsort(-scores, kind="stable")[:10]
        assert (exact[row, best] >= wanted[-1][1] - 2 * tolerance).all()


def lines(folder, pattern):
    """JSON of every line of the files, in order."""
    return [
        json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text("utf-8").split("\n")[:-1]
    ]


def names_of(rows):
    return {escape(name(column)) for column in rows.indices}


def test_tokens_can_be_read_back_and_hold_nothing_that_an_engine_would_read_otherwise():
    tokens = [name(column) for column in range(COLUMNS)]
    assert [unquote(escape(token)) for token in tokens] == tokens
    assert not [token for token in tokens if re.search(r"[\s.'\"\\\x00-\x1f]", escape(token))]


def test_anserini_gets_whole_weights_and_repeated_tokens(folder):
    found = lines(folder, "anserini/corpus/*.jsonl")
    assert all(set(row) == {"id", "contents", "vector"} and row["contents"] == "" for row in found)
    assert all(type(weight) is int and weight > 0 for row in found for weight in row["vector"].values())
    # JsonVectorCollection repeats a token as often as its weight says; the text is then cut at white space.
    texts = {row["id"]: " ".join(f"{token} " * weight for token, weight in row["vector"].items()) for row in found}
    documents = {one: {t: n / SCALE for t, n in Counter(text.split()).items()} for one, text in texts.items()}
    topics = (folder / "anserini" / "topics.tsv").read_text("utf-8").split("\n")[:-1]
    asked = [topic.split("\t") for topic in topics]
    assert all(len(topic) == 2 for topic in asked)
    queries = {one: {t: n / SCALE for t, n in Counter(text.split()).items()} for one, text in asked}
    assert {token for vector in documents.values() for token in vector} == names_of(DOCUMENTS)
    assert_ranked(documents, queries, 0.1)


def lucene(weight):
    """A weight as FeatureField stores it: the upper 17 bits of the float, sign and exponent among them."""
    return float((np.float32(weight).view(np.int32) >> 15 << 15).view(np.float32))


@pytest.mark.parametrize(("form", "kind"), [("opensearch", "rank_features"), ("elasticsearch", "sparse_vector")])
def test_bulk_bodies_are_pairs_of_an_action_and_a_document(folder, form, kind):
    mapping = json.loads((folder / form / "index.json").read_text("utf-8"))
    assert mapping == {"mappings": {"properties": {"vector": {"type": kind}}}}
    rows = lines(folder, f"{form}/documents-*.ndjson")
    documents = {}
    for action, document in zip(rows[::2], rows[1::2], strict=True):
        assert action.keys() == {"index"} and action["index"].keys() == {"_id"} and document.keys() == {"vector"}
        assert all("." not in token and weight > 1.2e-38 for token, weight in document["vector"].items())
        documents[action["index"]["_id"]] = {t: lucene(weight) for t, weight in document["vector"].items()}
    assert {token for vector in documents.values() for token in vector} == names_of(DOCUMENTS)
    rows = lines(folder, f"{form}/queries-*.ndjson")
    queries = []
    for header, body in zip(rows[::2], rows[1::2], strict=True):
        assert header == {} and body["size"] == 10
        if form == "opensearch":
            assert list(body["query"]) == ["neural_sparse"] and list(body["query"]["neural_sparse"]) == ["vector"]
            queries.append(body["query"]["neural_sparse"]["vector"]["query_tokens"])
        else:
            (query,) = body["query"].values()
            assert list(body["query"]) == ["sparse_vector"] and (query["field"], query["prune"]) == ("vector", False)
            queries.append(query["query_vector"])
    ids = (folder / form / "queries.ids.txt").read_text("utf-8").split("\n")[:-1]
    assert_ranked(documents, dict(zip(ids, queries, strict=True)), 0.1)


CELL = re.compile(r"'([^'\"\\]+)':([0-9.e-]+)(?:,|$)")
YQL = re.compile(r"select id from milco where \(\{targetHits:100\}wand\(terms,(\{.*\})\)\)")


def test_vespa_gets_puts_and_queries_with_a_tensor(folder):
    documents, whole = {}, {}
    for row in lines(folder, "vespa/documents-*.jsonl"):
        fields = row["fields"]
        assert row.keys() == {"put", "fields"} and row["put"] == f"id:milco:milco::{fields['id']}"
        assert fields.keys() == {"id", "terms", "vector"} and fields["vector"].keys() == {"cells"}
        assert all(type(weight) is int and weight > 0 for weight in fields["terms"].values())
        documents[fields["id"]], whole[fields["id"]] = fields["vector"]["cells"], fields["terms"]
    ids = (folder / "vespa" / "queries.ids.txt").read_text("utf-8").split("\n")[:-1]
    queries, asked = {}, {}
    for one, body in zip(ids, lines(folder, "vespa/queries-*.jsonl"), strict=True):
        assert body.keys() == {"yql", "input.query(q)", "hits"} and body["hits"] == 10
        literal = body["input.query(q)"]
        cells = CELL.findall(literal[1:-1])
        assert "{" + ",".join(f"'{token}':{weight}" for token, weight in cells) + "}" == literal
        queries[one] = {token: float(weight) for token, weight in cells}
        asked[one] = json.loads(YQL.fullmatch(body["yql"])[1])
    assert {token for vector in documents.values() for token in vector} == names_of(DOCUMENTS)
    assert_ranked(documents, queries, 1e-4)
    # What is found with whole weights, ten times as many as are wanted, holds the best by exact ones.
    for row, wanted in enumerate(rank_exactly(QUERIES, DOCUMENTS, 10)):
        query = asked[QUERY_IDS[row]]
        scores = [sum(query[t] * found[t] for t in query.keys() & found) for found in whole.values()]
        assert {place for place, _ in wanted} <= set(np.argsort(-np.array(scores), kind="stable")[:100].tolist())


def test_the_application_of_vespa_has_what_documents_and_queries_name(folder):
    schema = (folder / "vespa" / "application" / "schemas" / "milco.sd").read_text("utf-8")
    assert schema.count("{") - schema.count("}") == 0
    assert re.findall(r"field (\w+) type ([^ ]+) \{", schema) == [
        ("id", "string"),
        ("terms", "weightedset<int>"),
        ("vector", "tensor<float>(t{})"),
    ]
    assert "query(q) tensor<float>(t{})" in schema and "sum(query(q) * attribute(vector))" in schema
    services = ElementTree.parse(folder / "vespa" / "application" / "services.xml").getroot()
    assert services.find("content/documents/document").attrib == {"type": "milco", "mode": "index"}


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_to_nothing_is_left_out(tmp_path, form):
    rows = csr_array(np.array([[0, 0.001, 0], [1, 0, 1e-9], [0, 0, 0]], np.float32))
    counts = export(
        form, [(["a", "b", "c"], rows)], [(["x", "y", "z"], rows)], lambda column: f"t{column}", tmp_path / "e"
    )
    assert counts == ((1, 1) if form in ("anserini", "vespa") else (2, 2))
    written = "".join(path.read_text("utf-8") for path in (tmp_path / "e").rglob("*") if path.is_file())
    assert "t0" in written and "t2" not in written and '"c"' not in written


@pytest.mark.parametrize("form", FORMS)
def test_documents_are_spread_over_files_and_held_a_part_at_a_time(tmp_path, monkeypatch, form):
    monkeypatch.setattr(milco.tools.feeds, "FILE_BYTES", 20_000)
    alive = []

    def watched():
        for start in range(0, 300, 50):
            assert sum(one() is not None for one in alive) <= 1
            part = DOCUMENTS[start : start + 50]
            alive.append(weakref.ref(part))
            yield IDS[start : start + 50], part
            del part

    export(form, watched(), parts(QUERIES, QUERY_IDS), name, tmp_path / "e")
    sizes = [path.stat().st_size for path in (tmp_path / "e").rglob("documents-*")]
    assert len(sizes) > 3 and max(sizes) < 25_000 and len(alive) == 6
    if form in ("opensearch", "elasticsearch"):
        assert all(json.loads(path.read_text("utf-8").split("\n")[0])["index"] for path in (tmp_path / "e").glob("d*"))


@pytest.mark.parametrize(
    ("form", "ids", "said"),
    [
        ("anserini", ["a b"], "'a b': an id with white space"),
        ("opensearch", ["ü" * 257], "an id of more than 512 bytes"),
        ("elasticsearch", ["ü" * 257], "an id of more than 512 bytes"),
        ("anserini", ["a", "b"], "1 rows, but 2 ids"),
        ("solr", ["a"], "'solr': no form to export to; there are anserini, opensearch"),
    ],
)
def test_what_an_engine_would_refuse_is_an_error_and_leaves_nothing(tmp_path, form, ids, said):
    with pytest.raises(MilcoError, match=said):
        export(form, [(ids, DOCUMENTS[:1])], [], name, tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


def test_a_query_of_more_terms_than_opensearch_takes_is_an_error(tmp_path):
    queries = csr_array(np.ones((1, 1025), np.float32))
    with pytest.raises(MilcoError, match="query 'q': 1025 terms; OpenSearch takes 1024"):
        export("opensearch", [(["d"], queries)], [(["q"], queries)], str, tmp_path / "e")
    assert export("elasticsearch", [(["d"], queries)], [(["q"], queries)], str, tmp_path / "e") == (1, 1)


@pytest.mark.parametrize(("form", "most"), [("opensearch", 10_000), ("elasticsearch", 10_000), ("vespa", 400)])
def test_more_documents_than_an_engine_gives_are_an_error(tmp_path, form, most):
    with pytest.raises(MilcoError, match=f"{most + 1} documents for a query: {form} gives {most:,} at most"):
        export(form, parts(DOCUMENTS, IDS), [], name, tmp_path / "e", most + 1)
    assert list(tmp_path.iterdir()) == [] and export(form, parts(DOCUMENTS, IDS), [], name, tmp_path / "e", most)[0]


@pytest.mark.parametrize("form", FORMS)
def test_no_documents_and_a_folder_that_is_there_are_errors(tmp_path, form):
    with pytest.raises(MilcoError, match="no document with a weight"):
        export(form, [], parts(QUERIES, QUERY_IDS), name, tmp_path / "e")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MilcoError, match="is there already"):
        export(form, parts(DOCUMENTS, IDS), [], name, tmp_path)


def test_columns_have_the_names_that_the_model_gives_them(tmp_path, model):
    rows = model.encode_document(["the cat Katze", "a red house"])
    export("elasticsearch", [(["1", "2"], rows)], [(["q"], rows[:1])], model.column_name, tmp_path / "e")
    found = [row["vector"] for row in lines(tmp_path / "e", "documents-*") if "vector" in row]
    for vector, wanted in zip(found, model.decode(rows), strict=True):
        assert {unquote(token): weight for token, weight in vector.items()} == pytest.approx(wanted, abs=1e-6)

"""Distillation triples: which documents come into them, in which language, in which order, with which scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import yaml

from milco import config, mine
from milco.corpora import TRIPLE_COLUMNS
from milco.errors import MilcoError
from milco.teacher import to_batch

ROOT = Path(__file__).parents[1]
NUMBER = 12
HARD, RANDOM = 3, 2
GENERIC = [9, 10, 11]  # items that share one title
MESSAGES = 2  # documents without a title


def title(language: str, item: int) -> str:
    if language == "en" and item in GENERIC:
        return "Name"
    return f"title {item} in {language}"


def description(language: str, item: int) -> str:
    return f"description {item} in {language}"


def items() -> pd.DataFrame:
    """Items in English and German, every second one in Japanese too, and messages, which have no title."""
    rows = [
        (f"item-{item}", language, title(language, item), description(language, item))
        for item in range(NUMBER)
        for language in ("en", "de", "ja")
        if language != "ja" or item % 2 == 0
    ]
    rows += [(f"message-{item}", "en", None, description("en", item)) for item in range(NUMBER, NUMBER + MESSAGES)]
    return pd.DataFrame(rows, columns=["item", "language", "title", "description"])


def settings(**changes) -> config.Config:
    """config/demo.yaml with few negatives; `section__key=value` changes a key."""
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    values["distill"] |= {"hard_negatives": HARD, "random_negatives": RANDOM}
    values["corpora"]["max_relevant"] = len(GENERIC)
    values["sources"] |= {"triples": {"uri": "file:triples.parquet", "format": "triples"}}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        values[section] = {**values[section], key: value} if key else value
    return config.parse(values)


class Corpora:
    """The folder that `corpora` writes, and the teacher's vectors beside it."""

    def __init__(self, folder: Path, table: pd.DataFrame):
        self.folder, self.teacher, self.items = folder / "corpora", folder / "teacher", table
        self.folder.mkdir(parents=True)
        english = table[table.language == "en"]
        self.texts = sorted({*english.title.dropna(), *english.description, "a text of the pairs", "unrelated"})
        random = np.random.default_rng(0)
        dense = random.integers(1, 9, (len(self.texts), 30)) * (random.random((len(self.texts), 30)) < 0.4)
        self.vectors = dict(zip(self.texts, dense.astype(np.float32), strict=True))
        table.to_parquet(self.folder / "items.parquet", index=False)
        pd.DataFrame({"english": self.texts}).to_parquet(self.folder / "english.parquet", index=False)
        self.teacher.mkdir()
        batch = to_batch(scipy.sparse.csr_array(dense.astype(np.float32)))
        with pa.ipc.new_file(str(self.teacher / "targets-00000.arrow"), batch.schema) as file:
            file.write_batch(batch)
        (self.teacher / "columns.json").write_text("30")

    def mined(self, **changes) -> pd.DataFrame:
        return mine.mine_items(self.items, self.folder, self.teacher, settings(**changes))

    def score(self, query: str, document: str) -> float:
        return float(self.vectors[query] @ self.vectors[document])


@pytest.fixture
def corpora(tmp_path) -> Corpora:
    return Corpora(tmp_path, items())


@pytest.fixture
def mined(corpora) -> pd.DataFrame:
    return corpora.mined()


def language(text: str) -> str:
    return text.rpartition(" ")[2] if text != "Name" else "en"


def english(text: str) -> str:
    """The English side of a title or description of `items`."""
    return text if text == "Name" or not text.startswith("title") else title("en", int(text.split()[1]))


def original(document: str) -> str:
    return document.rpartition(" ")[0] + " en"


def test_every_title_is_asked_once_in_every_language_that_has_it(mined):
    titles = [title("en", item) for item in range(NUMBER) if item not in GENERIC] + ["Name"]
    german = [title("de", item) for item in range(NUMBER) if item not in GENERIC]
    japanese = [title("ja", item) for item in range(0, NUMBER, 2) if item not in GENERIC]
    of_the_generic_title = [title("de", 9), title("ja", 10)]
    assert sorted(mined["query"]) == sorted([*titles, *german, *japanese, *of_the_generic_title])


def test_positives_are_the_descriptions_of_all_items_of_the_title(mined):
    for query, positives in zip(mined["query"], mined.pos, strict=True):
        wanted = GENERIC if english(query) == "Name" else [int(query.split()[1])]
        assert {original(text) for text in positives} == {description("en", item) for item in wanted}
        assert len(positives) == len(wanted)


def test_positives_are_never_among_the_negatives(mined):
    for triple in mined.itertuples():
        assert {original(text) for text in triple.pos} & {original(text) for text in triple.neg} == set()


def test_negatives_are_as_many_as_asked_for_and_all_different(mined):
    assert {len({original(text) for text in negatives}) for negatives in mined.neg} == {HARD + RANDOM}
    assert {len(negatives) for negatives in mined.neg} == {HARD + RANDOM}


def test_scores_are_the_teacher_s_inner_products_of_the_english_side(corpora, mined):
    for triple in mined.itertuples():
        for texts, scores in ((triple.pos, triple.pos_scores), (triple.neg, triple.neg_scores)):
            wanted = [corpora.score(english(triple.query), original(text)) for text in texts]
            assert scores == pytest.approx(wanted, abs=0)


def test_hard_negatives_are_the_teacher_s_best_wrong_documents_in_order(corpora, mined):
    documents = {description("en", item) for item in range(NUMBER + MESSAGES)}
    for triple in mined.itertuples():
        wrong = documents - {original(text) for text in triple.pos}
        best = sorted((corpora.score(english(triple.query), text) for text in wrong), reverse=True)
        assert list(triple.neg_scores[:HARD]) == best[:HARD]


def test_messages_serve_as_negatives(mined):
    found = {original(text) for negatives in mined.neg for text in negatives}
    assert {description("en", NUMBER), description("en", NUMBER + 1)} <= found


def test_english_queries_see_english_documents(mined):
    part = mined[[language(query) == "en" for query in mined["query"]]]
    assert {language(text) for texts in (*part.pos, *part.neg) for text in texts} == {"en"}


def test_other_queries_see_documents_in_english_or_in_their_language_where_it_has_them(mined):
    known = set(items().description)
    seen = set()
    for triple in mined.itertuples():
        texts = [*triple.pos, *triple.neg]
        local = language(triple.query)
        if {language(text) for text in texts} == {"en"}:
            seen.add("english")
        else:
            translated = {text for text in texts if original(text).replace(" en", f" {local}") in known}
            assert {language(text) for text in translated} == {local}
            assert {language(text) for text in texts if text not in translated} <= {"en"}
            seen.add("local")
    assert seen == {"english", "local"}


def test_one_half_of_the_triples_has_local_documents(tmp_path):
    rows = [
        (f"i{item}", code, f"title {item} in {code}", f"description {item} in {code}")
        for item in range(300)
        for code in ("en", "de")
    ]
    corpora = Corpora(tmp_path, pd.DataFrame(rows, columns=["item", "language", "title", "description"]))
    found = corpora.mined()
    german = found[found["query"].str.endswith("de")]
    local = sum(language(texts[0]) == "de" for texts in german.pos)
    assert len(german) == 300
    assert local == pytest.approx(150, abs=35)


def test_mining_twice_gives_the_same(corpora, mined):
    pd.testing.assert_frame_equal(mined, corpora.mined())


def test_another_seed_draws_other_random_negatives_but_the_same_hard_ones(corpora, mined):
    other = corpora.mined(seed=7)
    assert [scores[:HARD] for scores in other.neg_scores] == [scores[:HARD] for scores in mined.neg_scores]
    assert [scores[HARD:] for scores in other.neg_scores] != [scores[HARD:] for scores in mined.neg_scores]


def test_title_with_too_many_descriptions_is_not_asked(corpora):
    queries = set(corpora.mined(corpora__max_relevant=len(GENERIC) - 1)["query"])
    assert "Name" not in queries and not {title("de", item) for item in GENERIC} & queries


def test_item_whose_english_side_was_held_out_is_neither_asked_nor_a_document(tmp_path):
    table = items()
    found = Corpora(tmp_path, table[(table.item != "item-3") | (table.language != "en")]).mined()
    assert title("de", 3) not in set(found["query"]) and len(found) > NUMBER
    assert not any(text.startswith("description 3 ") for texts in (*found.pos, *found.neg) for text in texts)


def test_negative_that_reads_like_the_positive_is_replaced_by_another(tmp_path):
    table = items()
    table.loc[(table.language == "de") & table["item"].isin(["item-0", "item-1"]), "description"] = "the same in de"
    assert {len(negatives) for negatives in Corpora(tmp_path, table).mined().neg} == {HARD + RANDOM}


def test_translation_that_two_documents_share_is_no_negative_of_itself(tmp_path):
    table = items()
    table.loc[table.language == "de", "description"] = "the same in de"
    found = Corpora(tmp_path, table).mined()
    for triple in found.itertuples():
        assert set(triple.pos) & set(triple.neg) == set()


TRIPLE = {
    "query": "Lampe",
    "pos": ["a lamp"],
    "neg": ["a door", "a cat", "a dog"],
    "pos_scores": [3.0],
    "neg_scores": [2.0, 1.0, 0.5],
}


def user_triples(folder: Path, *rows: dict) -> Path:
    path = folder / "triples.parquet"
    pd.DataFrame(list(rows), columns=TRIPLE_COLUMNS).to_parquet(path, index=False)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(MilcoError) as error:
        mine.read_triples(path, settings(distill__train_group_size=4), "triples")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_user_s_triples_with_just_enough_negatives_are_taken(tmp_path):
    path = user_triples(tmp_path, TRIPLE, TRIPLE)
    found = mine.read_triples(path, settings(distill__train_group_size=4), "triples")
    assert [list(documents) for documents in found.neg] == [TRIPLE["neg"]] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"neg": TRIPLE["neg"][:2], "neg_scores": [2.0, 1.0]},
        {"neg": [], "neg_scores": []},
        {"pos": [], "pos_scores": []},
    ],
    ids=["two negatives", "no negative", "no positive"],
)
def test_user_s_triple_with_too_few_documents_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, TRIPLE, {**TRIPLE, **change})
    message = refusal(path)
    assert message.startswith(f"{path}: row 3: ") and "distill.train_group_size" in message


@pytest.mark.parametrize(
    "change",
    [{"neg_scores": [2.0, 1.0]}, {"pos_scores": []}, {"pos_scores": [1.0, 2.0]}],
    ids=["negatives", "no score", "positives"],
)
def test_user_s_triple_with_unequal_lengths_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change})
    assert refusal(path).startswith(f"{path}: row 2: as many scores as documents")


@pytest.mark.parametrize("change", [{"query": None}, {"neg": None}, {"pos_scores": None}], ids=str)
def test_user_s_triple_without_a_value_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change})
    assert refusal(path) == f"{path}: row 2 has no value in column {next(iter(change))!r}"


@pytest.mark.parametrize(
    "change", [{"neg_scores": [2.0, None, 0.5]}, {"pos_scores": [float("nan")]}, {"pos": [None]}], ids=str
)
def test_user_s_triple_with_a_hole_in_a_list_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change})
    assert refusal(path).startswith(f"{path}: row 2")


def test_triples_of_all_datasets_come_into_one_file(corpora, mined, tmp_path):
    path = user_triples(tmp_path, TRIPLE)
    both = settings(distill__train_datasets=["home-assistant", "triples"], distill__train_group_size=4)
    sources = {"home-assistant": tmp_path / "unused", "triples": path}
    mine.mine(both, corpora.folder, corpora.teacher, sources, tmp_path / "out" / "triples.parquet")
    found = pd.read_parquet(tmp_path / "out" / "triples.parquet")
    assert list(found.columns) == TRIPLE_COLUMNS
    assert found["query"].tolist() == [*mined["query"], "Lampe"]
    assert [list(scores) for scores in found.neg_scores] == [*mined.neg_scores, TRIPLE["neg_scores"]]
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["triples.parquet"]


def test_wrong_triples_leave_no_file(corpora, tmp_path):
    path = user_triples(tmp_path, {**TRIPLE, "pos": []})
    both = settings(distill__train_datasets=["home-assistant", "triples"], distill__train_group_size=4)
    with pytest.raises(MilcoError):
        mine.mine(both, corpora.folder, corpora.teacher, {"triples": path}, tmp_path / "out" / "triples.parquet")
    assert not (tmp_path / "out").exists()

"""Distillation triples: which documents come into them, in which language, in which order, with which scores."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
import yaml
from conftest import ENGLISH_WORDS, SOURCE_WORDS
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from milco import config
from milco.data.held_out import HeldOut
from milco.data.tables import TRIPLE_COLUMNS
from milco.errors import MilcoError
from milco.modeling.model import MilcoModel
from milco.training import mine
from milco.training.score import CrossEncoder, scored
from milco.training.teacher import to_batch

ROOT = Path(__file__).parents[2]
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
        HeldOut().write(self.folder)

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


def read(path: Path, forbidden=(), uri="file:triples") -> tuple[pd.DataFrame, Counter]:
    counts: Counter = Counter()
    config = settings(distill__train_group_size=4)
    config.sources["triples"] = config.sources["triples"].model_copy(update={"uri": uri})
    return pd.concat(mine.read_triples(path, config, "triples", HeldOut(forbidden), counts)), counts


def statistics_of(triples: Path) -> dict:
    return json.loads(pq.read_metadata(triples).metadata[b"statistics"])


def refusal(path: Path) -> str:
    with pytest.raises(MilcoError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_user_s_triples_with_just_enough_negatives_are_taken(tmp_path):
    path = user_triples(tmp_path, TRIPLE, TRIPLE)
    found, counts = read(path)
    assert [list(documents) for documents in found.neg] == [TRIPLE["neg"]] * 2
    assert counts == {"kept": 2}


def test_user_s_triple_with_few_negatives_is_kept_and_counted(tmp_path):
    found, counts = read(user_triples(tmp_path, TRIPLE, {**TRIPLE, "neg": ["a door"], "neg_scores": [2.0]}))
    assert [len(documents) for documents in found.neg] == [3, 1]
    assert counts == {"kept": 2, mine.SHORT: 1}


@pytest.mark.parametrize("change", [{"neg": [], "neg_scores": []}, {"pos": [], "pos_scores": []}], ids=str)
def test_user_s_triple_without_a_document_of_either_kind_is_left_out_and_counted(tmp_path, change):
    found, counts = read(user_triples(tmp_path, TRIPLE, {**TRIPLE, **change}, {**TRIPLE, "query": "Tür"}))
    assert found["query"].tolist() == ["Lampe", "Tür"]
    assert counts == {"kept": 2, "without a positive or a negative": 1}


def test_user_s_triple_that_asks_or_holds_what_must_not_be_trained_on_is_left_out_and_counted(tmp_path):
    rows = [{**TRIPLE, "query": query} for query in ("Lampe", "LAMPE:", "Tür")]
    path = user_triples(tmp_path, *rows, {**TRIPLE, "pos": ["a lamp", "The `lamp`"], "pos_scores": [3.0, 2.0]})
    assert read(path, ["lampe"])[0]["query"].tolist() == ["Tür"]
    found, counts = read(path, ["the lamp", "A DOOR"])  # a negative may be anything
    assert found["query"].tolist() == ["Lampe", "LAMPE:", "Tür"] and counts == {"kept": 3, "held out": 1}


@pytest.mark.parametrize(
    "change",
    [{"neg_scores": [2.0, 1.0]}, {"pos_scores": []}, {"pos_scores": [1.0, 2.0]}],
    ids=["negatives", "no score", "positives"],
)
def test_user_s_triple_with_unequal_lengths_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change})
    assert refusal(path).startswith(f"{path}:2: as many scores as documents")


@pytest.mark.parametrize("change", [{"query": None}, {"neg": None}, {"pos_scores": None}], ids=str)
def test_user_s_triple_without_a_value_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change})
    assert refusal(path) == f"{path}:2: no value in column {next(iter(change))!r}"


@pytest.mark.parametrize("change", [{"query": None}, {"neg": None}, {"pos": [None]}, {"neg_scores": None}], ids=str)
def test_triple_of_the_hub_without_a_value_is_counted_and_dropped(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change}, {**TRIPLE, "query": "Tür"})
    found, counts = read(path, uri="hf:owner/triples")
    assert found["query"].tolist() == ["Lampe", "Tür"] and counts == {"kept": 2, "without a value": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"neg_scores": [2.0, None, 0.5]},
        {"pos_scores": [float("nan")]},
        {"pos_scores": [1e39]},
        {"pos": [None]},
    ],
    ids=str,
)
def test_user_s_triple_with_a_hole_in_a_list_is_named(tmp_path, change):
    path = user_triples(tmp_path, TRIPLE, {**TRIPLE, **change})
    assert refusal(path).startswith(f"{path}:2: ")


@pytest.mark.parametrize("score", ["true", "1e39", "1" + "0" * 400, '"3"'])
def test_user_s_triple_with_a_score_that_is_no_finite_float32_is_named(tmp_path, score):
    path = tmp_path / "triples.jsonl"
    path.write_text(json.dumps(TRIPLE).replace("3.0", score) + "\n")
    assert refusal(path).startswith(f"{path}:1: column 'pos_scores' is no whole list")


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
    assert statistics_of(tmp_path / "out" / "triples.parquet") == {
        "datasets": {"home-assistant": {"kept": len(mined)}, "triples": {"kept": 1}},
        "warnings": [],
    }


def test_what_is_lost_of_triples_is_said_and_stands_in_their_file(corpora, tmp_path, capsys):
    lacking = {**TRIPLE, "pos": [], "pos_scores": []}
    path = user_triples(
        tmp_path, TRIPLE, lacking, lacking, {**TRIPLE, "query": "Tür", "neg": ["b"], "neg_scores": [1.0]}
    )
    HeldOut(["Lampe"]).write(corpora.folder)
    own = settings(distill__train_datasets=["triples"], distill__train_group_size=4)
    mine.mine(own, corpora.folder, corpora.teacher, {"triples": path}, tmp_path / "triples.parquet")
    found = statistics_of(tmp_path / "triples.parquet")
    numbers = {"kept": 1, "held out": 1, "without a positive or a negative": 2, mine.SHORT: 1}
    assert found == {"datasets": {"triples": numbers}, "warnings": []}
    said = capsys.readouterr().out
    assert said.startswith("triples: kept 1, held out 1, ") and f"{mine.SHORT} 1\n" in said
    assert len(pd.read_parquet(tmp_path / "triples.parquet")) == 1


def test_a_reason_that_takes_most_of_the_triples_is_warned_of(corpora, tmp_path, capsys):
    path = user_triples(tmp_path, TRIPLE, TRIPLE, {**TRIPLE, "query": "Tür"})
    HeldOut(["Lampe"]).write(corpora.folder)
    own = settings(distill__train_datasets=["triples"], distill__train_group_size=4)
    mine.mine(own, corpora.folder, corpora.teacher, {"triples": path}, tmp_path / "triples.parquet")
    assert statistics_of(tmp_path / "triples.parquet")["warnings"] == ["triples: held out: 2 of 3 triples"]
    assert "warning: triples: held out: 2 of 3 triples\n" in capsys.readouterr().out


def test_triples_of_which_none_is_left_are_named_with_what_took_them(corpora, tmp_path):
    path = user_triples(tmp_path, TRIPLE)
    HeldOut(["Lampe"]).write(corpora.folder)
    own = settings(distill__train_datasets=["triples"])
    with pytest.raises(
        MilcoError, match=r"^distill\.train_datasets: no triple is left \(triples: kept 0, held out 1\)$"
    ):
        mine.mine(own, corpora.folder, corpora.teacher, {"triples": path}, tmp_path / "out" / "triples.parquet")
    assert not list((tmp_path / "out").glob("*"))


def test_wrong_triples_leave_no_file(corpora, tmp_path):
    path = user_triples(tmp_path, {**TRIPLE, "pos_scores": []})
    both = settings(distill__train_datasets=["home-assistant", "triples"], distill__train_group_size=4)
    with pytest.raises(MilcoError):
        mine.mine(both, corpora.folder, corpora.teacher, {"triples": path}, tmp_path / "out" / "triples.parquet")
    assert not list((tmp_path / "out").glob("*"))


COLLECTION = {"uri": "file:new", "format": "beir", "language": "de", "document_language": "en"}
CHECKPOINT = {"uri": "file:checkpoint", "format": "transformers"}


def model_settings(**changes) -> config.Config:
    """A MILCO model mines, a cross-encoder scores, all in float32."""
    values = settings().model_dump()
    values["sources"] |= {"new": COLLECTION, "kept": CHECKPOINT, "reranker": CHECKPOINT}
    values["evaluate"]["bf16"] = False
    values["distill"] |= {"miner": "kept", "scorer": "reranker", "train_datasets": ["new"], **changes}
    return config.parse(values)


def sentences(words: list[str], number: int, length: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, length, replace=False)) for _ in range(number)]


def word_items() -> pd.DataFrame:
    """Items whose texts are of words that the tiny models know; every third one is in English only."""
    columns = ["title", "description"]
    texts = {
        code: [sentences(words, 30, length, seed) for length, seed in ((3, 1), (6, 2))]
        for code, words in (("en", ENGLISH_WORDS), ("de", SOURCE_WORDS))
    }
    return pd.DataFrame(
        [
            {"item": f"i{item}", "language": code} | {c: part[item] for c, part in zip(columns, parts, strict=True)}
            for code, parts in texts.items()
            for item in range(30)
            if code == "en" or item % 3
        ]
    )


def assert_best(model: MilcoModel, query: str, hard: list[str], wrong: list[str]):
    """`hard` are the texts of `wrong` that exact search puts first. Seismic rounds weights to 16 bits."""
    scores = dict(zip(wrong, (model.encode_document(wrong) @ model.encode_query([query]).T).toarray(), strict=True))
    best = sorted(scores.values(), reverse=True)[: len(hard)]
    np.testing.assert_allclose([scores[text] for text in hard], best, rtol=2e-3)
    assert len(set(hard)) == len(hard)


@pytest.fixture
def exact(model_folder) -> MilcoModel:
    """The model that mines, with the lengths of the settings."""
    return MilcoModel.from_pretrained(model_folder, query_max_length=48, passage_max_length=96)


def test_a_model_mines_items_for_each_query_among_the_documents_that_it_is_shown_with(tmp_path, exact):
    table = word_items()
    corpora, chosen = Corpora(tmp_path, table), model_settings()
    miner = mine.Miner(chosen, exact.name_or_path)
    found = mine.mine_items(table, corpora.folder, corpora.teacher, chosen, miner)
    assert len(found) == len(table)
    texts = table.pivot(index="item", columns="language", values="description")
    pools = {"en": texts.en, "de": texts.de.fillna(texts.en)}
    titles = table.set_index("title")[["item", "language"]]
    seen = set()
    for triple in found.itertuples():
        item, code = titles.loc[triple.query]
        pool = pools["en" if triple.pos[0] == texts.en[item] else "de"]
        seen.add((code, pool.name))
        assert triple.pos == [pool[item]]
        assert len(triple.neg) == HARD + RANDOM
        assert_best(exact, triple.query, triple.neg[:HARD], pool.drop(item).tolist())
        english = table[(table["item"] == item) & (table.language == "en")].title.item()
        original = [texts.en[pool.index[pool == text].item()] for text in triple.neg]
        assert triple.neg_scores == [corpora.score(english, text) for text in original]
    assert seen == {("en", "en"), ("de", "en"), ("de", "de")}


@pytest.fixture
def new_corpus(tmp_path) -> Path:
    """A collection in which a document, d0, has many copies, with judgements for training: q0 to q3, and q4, which a
    test collection asks too."""
    texts = sentences(ENGLISH_WORDS, 40, 6, 5)
    documents = {f"d{n}": text for n, text in enumerate(texts)} | {f"copy{n}": texts[0] for n in range(60)}
    queries = {f"q{n}": text for n, text in enumerate([*sentences(SOURCE_WORDS, 4, 3, 6), "Die Katze ist rot"])}
    judged = {"q0": {"d0": 1}, "q1": {"d2": 1, "d3": 2}, "q2": {"d4": 1, "d5": 0}, "q3": {"copy9": 1}, "q4": {"d6": 1}}
    write_beir(tmp_path / "new", "train", documents, queries, judged)
    (tmp_path / "corpora").mkdir()
    HeldOut([queries["q4"].upper()]).write(tmp_path / "corpora")
    return tmp_path / "new"


def write_beir(folder: Path, split: str, documents: dict, queries: dict, judged: dict) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        rows = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    lines = [f"{q}\t{d}\t{grade}\n" for q, grades in judged.items() for d, grade in grades.items()]
    (folder / "qrels" / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")


def mined_from(folder: Path, output: str, model: Path, scorer: Path, **changes) -> pd.DataFrame:
    path = folder.parent / "out" / output
    mine.mine(model_settings(**changes), folder.parent / "corpora", folder, {"new": folder}, path, model, scorer)
    return pd.read_parquet(path)


def read_texts(folder: Path, name: str) -> dict[str, str]:
    rows = map(json.loads, (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["_id"]: row["text"] for row in rows}


def test_a_collection_becomes_triples_with_the_model_s_best_wrong_documents(
    new_corpus, exact, cross_encoder_checkpoint
):
    found = mined_from(new_corpus, "a.parquet", exact.name_or_path, cross_encoder_checkpoint)
    documents, queries = read_texts(new_corpus, "corpus"), read_texts(new_corpus, "queries")
    assert found["query"].tolist() == [queries[f"q{n}"] for n in range(4)]
    positives = [["d0"], ["d2", "d3"], ["d4"], ["copy9"]]
    assert [list(texts) for texts in found.pos] == [[documents[d] for d in judged] for judged in positives]
    for triple in found.itertuples():
        assert len({*triple.neg}) == HARD + RANDOM
        wrong = set(documents.values()) - {*triple.pos}
        assert {*triple.neg} <= wrong
        assert_best(exact, triple.query, list(triple.neg[:HARD]), sorted(wrong))


def test_without_judgements_the_scorer_s_favourite_of_what_the_model_finds_is_the_positive(
    new_corpus, exact, cross_encoder_checkpoint
):
    (new_corpus / "qrels" / "train.tsv").unlink()
    found = mined_from(new_corpus, "a.parquet", exact.name_or_path, cross_encoder_checkpoint, positives="scored")
    queries, documents = read_texts(new_corpus, "queries"), {*read_texts(new_corpus, "corpus").values()}
    assert found["query"].tolist() == [queries[f"q{n}"] for n in range(4)]  # all, but the one that a test asks
    for triple in found.itertuples():
        (best,), others = triple.pos, list(triple.neg)
        assert len({best, *others}) == 1 + HARD + RANDOM and {best, *others} <= documents
        assert triple.pos_scores[0] > max(triple.neg_scores)
        for text, score in zip([best, *others], [*triple.pos_scores, *triple.neg_scores], strict=True):
            assert score == pytest.approx(alone(cross_encoder_checkpoint, triple.query, text), abs=1e-5)
        scores = exact.encode_document(sorted(documents)) @ exact.encode_query([triple.query]).T
        deepest = np.sort(scores.toarray().ravel())[-1 - HARD]
        strong = [text for text in (best, *others) if (exact.encode_document([text]) @ exact.encode_query(
            [triple.query]).T).toarray().item() >= deepest * (1 - 2e-3)]  # fmt: skip
        assert len(strong) > HARD  # the model's best are all among them


def test_parallel_text_becomes_triples_with_the_scores_of_its_english_side(tmp_path, exact, monkeypatch):
    table = word_items()
    corpora = Corpora(tmp_path, table)
    english = pd.read_parquet(corpora.folder / "english.parquet").english
    chosen = english[english.isin(table[table.language == "en"].description)].index
    sides = sentences(SOURCE_WORDS, 30, 5, 11)
    pairs = pd.DataFrame({"english_id": chosen, "non_english": sides, "language": "de"})
    pairs.to_parquet(corpora.folder / "parallel.parquet")
    monkeypatch.setattr(mine, "WINDOW", 7)  # several tables
    settings = model_settings()
    found = pd.concat(
        mine.mine_pairs(corpora.folder, corpora.teacher, settings, mine.Miner(settings, exact.name_or_path))
    )
    assert found["query"].tolist() == sides and found.pos.str[0].tolist() == english[chosen].tolist()
    texts = english[chosen].tolist()
    for triple in found.itertuples():
        wrong = [text for text in texts if text != triple.pos[0]]
        assert len({*triple.neg}) == HARD + RANDOM and {*triple.neg} <= {*wrong}
        assert_best(exact, triple.query, triple.neg[:HARD], wrong)
        scores = [corpora.score(triple.pos[0], text) for text in (*triple.pos, *triple.neg)]
        assert [*triple.pos_scores, *triple.neg_scores] == pytest.approx(scores)


@pytest.mark.parametrize("lower", [set(), {"queries"}, {"documents"}])
def test_a_collection_is_mined_in_the_case_that_its_source_says(
    lower, new_corpus, exact, cross_encoder_checkpoint, monkeypatch
):
    for name in ("corpus", "queries"):
        path = new_corpus / f"{name}.jsonl"
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        path.write_text("".join(json.dumps({**row, "text": row["text"].title()}) + "\n" for row in rows), "utf-8")
    monkeypatch.setattr(f"{__name__}.COLLECTION", {**COLLECTION, **{f"lowercase_{side}": True for side in lower}})
    found = mined_from(new_corpus, "a.parquet", exact.name_or_path, cross_encoder_checkpoint)
    assert found["query"].str.islower().all() == ("queries" in lower)
    documents = [text for column in (found.pos, found.neg) for texts in column for text in texts]
    assert all(text.islower() for text in documents) == ("documents" in lower)


def test_mining_a_collection_twice_gives_the_same(new_corpus, model_folder, cross_encoder_checkpoint):
    models = model_folder, cross_encoder_checkpoint
    once, again = (mined_from(new_corpus, f"{n}.parquet", *models) for n in range(2))
    pd.testing.assert_frame_equal(once, again)


def alone(checkpoint: Path, query: str, document: str, tokens: int = 64) -> float:
    """What a cross-encoder says of one pair."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    inputs = tokenizer([query], [document], truncation=True, max_length=tokens, return_tensors="pt")
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()(**inputs).logits.item()


@pytest.mark.parametrize(("lengths", "tokens"), [((48, 96), 64), ((8, 16), 24)], ids=["its own limit", "ours"])
def test_scores_are_those_of_the_cross_encoder_that_reads_one_pair_at_a_time(cross_encoder_checkpoint, lengths, tokens):
    long = " ".join(ENGLISH_WORDS * 3)
    documents = ["a dog", long, "", *sentences(ENGLISH_WORDS, 5, 9, 7)]
    pairs = [(query, document) for query in ("cat", "the old house", "") for document in documents]
    values = model_settings().model_dump()
    values["model"] |= dict(zip(("query_max_length", "passage_max_length"), lengths, strict=True))
    values["evaluate"]["batch_size"] = 5
    found = CrossEncoder(config.parse(values), cross_encoder_checkpoint).score(pairs)
    wanted = [alone(cross_encoder_checkpoint, *pair, tokens) for pair in pairs]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.ptp(found) > 0.1


def test_a_pair_is_cut_at_the_positions_where_the_tokenizer_has_no_limit(cross_encoder_checkpoint, tmp_path):
    unlimited = shutil.copytree(cross_encoder_checkpoint, tmp_path / "unlimited")
    said = json.loads((unlimited / "tokenizer_config.json").read_text())
    said.pop("model_max_length")
    (unlimited / "tokenizer_config.json").write_text(json.dumps(said))
    pairs = [("cat", " ".join(ENGLISH_WORDS * 30))]
    values = model_settings().model_dump()
    values["model"] |= {"query_max_length": 48, "passage_max_length": 96}
    found, wanted = (CrossEncoder(config.parse(values), at) for at in (unlimited, cross_encoder_checkpoint))
    assert found.max_length == wanted.max_length == 64
    assert found.score(pairs) == pytest.approx(wanted.score(pairs))


def test_each_pair_is_scored_once_and_its_score_comes_to_every_place(cross_encoder_checkpoint, monkeypatch):
    encoder = CrossEncoder(model_settings(), cross_encoder_checkpoint)
    read, score = [], encoder.score
    monkeypatch.setattr(encoder, "score", lambda pairs: read.extend(pairs) or score(pairs))
    rows = [("cat", ["a dog"], ["fish", "bird"]), ("cat", ["fish"], ["a dog", "bird"]), ("dog", ["fish"], ["bird"])]
    triples = pd.DataFrame(rows, columns=["query", "pos", "neg"]).assign(pos_scores=None, neg_scores=None)
    found = scored(triples, encoder)
    assert sorted(read) == sorted({(query, text) for query, *sides in rows for side in sides for text in side})
    for triple in found.itertuples():
        for texts, scores in ((triple.pos, triple.pos_scores), (triple.neg, triple.neg_scores)):
            wanted = [alone(cross_encoder_checkpoint, triple.query, text) for text in texts]
            assert scores == pytest.approx(wanted, abs=1e-5)


def test_a_collection_with_too_few_documents_is_named(new_corpus, model_folder, cross_encoder_checkpoint):
    documents = {f"d{n}": text for n, text in enumerate(ENGLISH_WORDS[:4])}
    (new_corpus / "qrels" / "train.tsv").write_text("q0\td0\t1\n", encoding="utf-8")
    rows = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in documents.items()]
    (new_corpus / "corpus.jsonl").write_text("".join(rows), encoding="utf-8")
    models = model_folder, cross_encoder_checkpoint
    assert [len(texts) for texts in mined_from(new_corpus, "a.parquet", *models, train_group_size=4).neg] == [3]
    with pytest.raises(MilcoError, match=r"^distill\.train_group_size: 5, but new has only 4 documents[^\n]*$"):
        mined_from(new_corpus, "b.parquet", *models, train_group_size=5)
    assert [path.name for path in (new_corpus.parent / "out").iterdir()] == ["a.parquet"]


def test_a_collection_that_is_all_asked_in_evaluation_is_refused(new_corpus, model_folder, cross_encoder_checkpoint):
    (new_corpus / "qrels" / "train.tsv").write_text("q4\td0\t1\n", encoding="utf-8")
    with pytest.raises(MilcoError, match=r"qrels/train\.tsv: [^\n]*ask each of its queries$"):
        mined_from(new_corpus, "a.parquet", model_folder, cross_encoder_checkpoint)


def test_models_of_another_kind_are_refused(
    new_corpus, model_folder, teacher_checkpoint, cross_encoder_checkpoint, tmp_path
):
    BertForSequenceClassification(BertConfig.from_pretrained(cross_encoder_checkpoint, num_labels=3)).save_pretrained(
        tmp_path / "three"
    )
    AutoTokenizer.from_pretrained(cross_encoder_checkpoint).save_pretrained(tmp_path / "three")
    for models, message in (
        ((teacher_checkpoint, cross_encoder_checkpoint), r"^distill\.miner: [^\n]*a model of kind bert"),
        ((model_folder, tmp_path / "three"), r"^distill\.scorer: [^\n]*three tells 3 labels apart"),
        (
            (None, cross_encoder_checkpoint),
            r"^--miner: wanted unless distill\.miner is teacher, and refused then \(it is kept\)",
        ),
        ((model_folder, None), r"^--scorer: wanted unless distill\.scorer is teacher"),
    ):
        with pytest.raises(MilcoError, match=message):
            mined_from(new_corpus, "a.parquet", *models)

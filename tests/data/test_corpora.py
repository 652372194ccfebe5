"""Tables that users bring, and the way from them to training text and test collections."""

import json
import tracemalloc
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from miniature import build_corpora, read_pairs

from milco import config
from milco.data import corpora, held_out, reading, sorting, tables
from milco.data.beir import Collection, read_collection, write_collection
from milco.data.held_out import HeldOut
from milco.errors import MilcoError

ROOT = Path(__file__).parents[2]
PAIRS = tables.PAIR_COLUMNS
ROWS = [("Good morning", "Guten Morgen", "de"), ('Say "hello"', "「こんにちは」と言う", "ja"), ("Peace", "שלום", "he")]


def source(**changes) -> config.Source:
    return config.Source(**{"uri": "file:mine", "format": "pairs", **changes})


def read(path: Path, **changes) -> list[tuple]:
    table = pd.concat(tables.read_batches(path, source(**changes), "mine", PAIRS))
    assert list(table.columns) == PAIRS
    return list(table.itertuples(index=False, name=None))


def refusal(path: Path, **changes) -> str:
    with pytest.raises(MilcoError) as error:
        list(tables.read_batches(path, source(**changes), "mine", PAIRS))
    assert "\n" not in str(error.value)
    return str(error.value)


def tsv(path: Path, *rows: tuple) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def jsonl(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, *rows: dict) -> Path:
    pd.DataFrame(list(rows)).to_parquet(path, index=False)
    return path


def named(rows: list[tuple]) -> list[dict]:
    return [dict(zip(PAIRS, row, strict=True)) for row in rows]


def test_tsv_without_a_header_holds_english_other_language(tmp_path):
    assert read(tsv(tmp_path / "a.tsv", *ROWS)) == ROWS


def test_tsv_with_a_header_is_the_same(tmp_path):
    assert read(tsv(tmp_path / "a.tsv", tuple(PAIRS), *ROWS)) == ROWS


def test_jsonl_is_the_same(tmp_path):
    assert read(jsonl(tmp_path / "a.jsonl", *named(ROWS))) == ROWS


def test_parquet_is_the_same(tmp_path):
    assert read(parquet(tmp_path / "a.parquet", *named(ROWS))) == ROWS


def test_language_comes_from_the_source_where_no_column_has_it(tmp_path):
    two = [row[:2] for row in ROWS[:1]]
    files = [
        tsv(tmp_path / "a.tsv", *two),
        tsv(tmp_path / "b.tsv", ("english", "non_english"), *two),
        jsonl(tmp_path / "c.jsonl", {"english": "Good morning", "non_english": "Guten Morgen"}),
        parquet(tmp_path / "d.parquet", {"english": "Good morning", "non_english": "Guten Morgen"}),
    ]
    assert [read(path, language="de") for path in files] == [ROWS[:1]] * 4


def test_column_with_languages_wins_over_the_source(tmp_path):
    assert read(jsonl(tmp_path / "a.jsonl", *named(ROWS)), language="fr") == ROWS


OWN_NAMES = {"english": "src", "non_english": "tgt", "language": "lang"}


@pytest.mark.parametrize("write, end", [(jsonl, "jsonl"), (parquet, "parquet")])
def test_user_s_own_column_names_are_mapped(tmp_path, write, end):
    rows = [dict(zip(OWN_NAMES.values(), row, strict=True)) for row in ROWS]
    assert read(write(tmp_path / f"a.{end}", *rows), columns=OWN_NAMES) == ROWS


def test_user_s_own_column_names_are_mapped_in_tsv_too(tmp_path):
    assert read(tsv(tmp_path / "a.tsv", tuple(OWN_NAMES.values()), *ROWS), columns=OWN_NAMES) == ROWS


def test_mapped_column_that_a_tsv_has_not_is_named(tmp_path):
    path = tsv(tmp_path / "a.tsv", ("source", "tgt", "lang"), *ROWS)
    assert refusal(path, columns=OWN_NAMES).startswith(f"{path}: column 'english' is missing (there are: source, ")


def test_tsv_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"Good morning\tGuten Morgen\tde\n" + "Door\tTür\tde\n".encode("latin-1"))
    assert refusal(path).startswith(f"{path}:2: ")


def test_further_columns_are_left_aside(tmp_path):
    rows = [{**row, "score": 0.5, "note": None} for row in named(ROWS)]
    assert read(jsonl(tmp_path / "a.jsonl", *rows)) == ROWS


def test_tables_of_a_folder_are_put_together_in_order_of_their_names(tmp_path):
    (tmp_path / "deep").mkdir()
    jsonl(tmp_path / "deep" / "c.jsonl", *named(ROWS[2:]))
    tsv(tmp_path / "b.tsv", *ROWS[1:2])
    parquet(tmp_path / "a.parquet", *named(ROWS[:1]))
    (tmp_path / "README.md").write_text("not a table")
    assert read(tmp_path) == ROWS


def test_subfolders_have_languages_of_their_own(tmp_path):
    for folder, row in (("en_de", ROWS[0][:2]), ("en_ja", ROWS[1][:2]), ("en_fr", ("Good morning", "Bonjour"))):
        (tmp_path / folder).mkdir()
        tsv(tmp_path / folder / "a.tsv", row)
    assert read(tmp_path, subsets={"en_ja": "ja", "en_de": "de"}) == [(*ROWS[1][:2], "ja"), (*ROWS[0][:2], "de")]
    message = refusal(tmp_path, subsets={"en_de": "de", "en_es": "es"})
    assert message.startswith(f"sources.mine: no table in {tmp_path / 'en_es'}; readable: .tsv, .csv, ")


def test_quotation_marks_in_tsv_are_text(tmp_path):
    rows = [('"Hello', 'Hallo"', "de"), ("it's", '"', "de")]
    assert read(tsv(tmp_path / "a.tsv", *rows)) == rows


def test_tsv_line_with_too_few_fields_is_named(tmp_path):
    path = tsv(tmp_path / "a.tsv", *ROWS, ("Lonely",))
    assert refusal(path) == f"{path}:4: 1 tab-separated fields, expected 3"


def test_tsv_line_with_too_few_fields_is_named_below_a_header(tmp_path):
    path = tsv(tmp_path / "a.tsv", tuple(PAIRS), *ROWS, ("Lonely",))
    assert refusal(path).startswith(f"{path}:5: ")


def test_tsv_line_with_too_many_fields_is_named(tmp_path):
    path = tsv(tmp_path / "a.tsv", ROWS[0], (*ROWS[1], "more"))
    assert refusal(path).startswith(f"{path}:2: 4 ")


def test_empty_line_of_tsv_is_skipped(tmp_path):
    assert read(tsv(tmp_path / "a.tsv", (), ROWS[0], (" ",), ROWS[1])) == ROWS[:2]


def test_wrong_line_of_jsonl_is_named(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *named(ROWS))
    path.write_text(path.read_text(encoding="utf-8") + '{"english": "a', encoding="utf-8")
    assert refusal(path).startswith(f"{path}:4: ")


@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_parquet_that_was_cut_off_is_named(tmp_path, length):
    path = parquet(tmp_path / "a.parquet", *named(ROWS))
    path.write_bytes(path.read_bytes()[:length])
    assert refusal(path).startswith(f"{path}: not a complete Parquet file")


def test_table_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes("Door\tTür\tde\n".encode("latin-1"))
    assert refusal(path).startswith(f"{path}:")


def test_missing_column_is_named_with_those_that_exist_and_the_key_that_maps_it(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"english": "a", "german": "b", "language": "de"})
    message = refusal(path)
    assert message.startswith(f"{path}: column 'non_english' is missing (there are: english, german, language)")
    assert "sources.mine.columns" in message


def test_missing_language_is_named_with_the_key_that_sets_it(tmp_path):
    assert "sources.mine.language" in refusal(tsv(tmp_path / "a.tsv", ("Good morning", "Guten Morgen")))


@pytest.mark.parametrize("write, end", [(jsonl, "jsonl"), (parquet, "parquet")])
@pytest.mark.parametrize("column", PAIRS)
def test_missing_value_is_named_with_its_row_and_column(tmp_path, write, end, column):
    rows = named(ROWS)
    rows[1][column] = None
    path = write(tmp_path / f"a.{end}", *rows)
    assert refusal(path) == f"{path}:2: no value in column {column!r}"


@pytest.mark.parametrize("value", [7, ["a"]])
def test_value_that_is_no_text_is_named(tmp_path, value):
    path = jsonl(tmp_path / "a.jsonl", {"english": value, "non_english": "sieben", "language": "de"})
    assert refusal(path) == f"{path}:1: the value in column 'english' is no text ({value!r})"


def test_folder_without_a_table_is_named(tmp_path):
    (tmp_path / "a.xlsx").write_text("a,b")
    assert refusal(tmp_path).startswith(f"sources.mine: no table in {tmp_path}; readable: .tsv, .csv, ")


@pytest.mark.parametrize("write, end", [(jsonl, "jsonl"), (parquet, "parquet"), (tsv, "tsv")])
def test_rows_beyond_the_first_batch_are_read_and_counted_on(tmp_path, monkeypatch, write, end):
    monkeypatch.setattr(tables, "ROWS", 2)
    rows = [*ROWS, *ROWS]
    path = write(tmp_path / f"a.{end}", *(rows if write is tsv else named(rows)))
    assert read(path) == rows
    broken = [*named(rows[:4]), {"english": None, "non_english": "x", "language": "de"}]
    if write is not tsv:
        assert refusal(write(path, *broken)) == f"{path}:5: no value in column 'english'"


def test_key_that_ends_within_a_jsonl_is_a_hole(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 2)
    path = jsonl(tmp_path / "a.jsonl", *named(ROWS[:2]), {"english": "Peace", "non_english": "שלום"})
    assert refusal(path) == f"{path}:3: no value in column 'language'"


def test_a_row_of_the_hub_without_a_value_is_counted_and_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 2)
    rows = [*named(ROWS), *({**named(ROWS)[0], column: None} for column in PAIRS), *named(ROWS)]
    path = parquet(tmp_path / "a.parquet", *rows)
    hub = SimpleNamespace(sources={"mine": source(uri="hf:owner/pairs")})
    candidates = list(corpora._candidates(hub, "mine", path, reading.Broken()))
    assert len(candidates) == 9 and candidates[:3] == candidates[6:] == ROWS
    for cleaning in ("interface", "sentences", "none"):
        found, dropped = pairs(candidates[3:6], cleaning=cleaning)
        assert found == [] and sum(dropped.values()) == 3
    path = jsonl(tmp_path / "b.jsonl", *named(ROWS), {**named(ROWS)[0], "english": 5})
    with pytest.raises(MilcoError, match=":4: the value in column 'english' is no text"):
        list(corpora._candidates(hub, "mine", path, reading.Broken()))


def test_path_that_does_not_exist_is_named(tmp_path):
    assert str(tmp_path / "no.tsv") in refusal(tmp_path / "no.tsv")


def pairs(
    candidates: list[tuple], held_out=(), languages=("de", "ja"), cleaning="interface"
) -> tuple[list[tuple], dict[str, int]]:
    counts: Counter = Counter()
    found = list(corpora.parallel_pairs(candidates, set(languages), HeldOut(held_out), counts, cleaning))
    return found, dict(corpora.by_reason(counts))


def test_pairs_are_cleaned():
    assert pairs([("Open [{x}]({y}) <b>now</b>: ", "Öffne <b>jetzt</b> [{x}]({y})", "de")])[0] == [
        ("Open now", "Öffne jetzt", "de")
    ]


def test_every_dropped_pair_is_counted_by_its_reason():
    candidates = [
        ("Good morning", "Guten Morgen", "de"),
        ("Good morning", "おはよう", "ja"),
        ("Good morning", "ohayou", "ja"),
        ("Good morning", "Bonjour", "fr"),
        ("Bluetooth", "Bluetooth", "de"),
        ("Wait {n}", "Warte", "de"),
        ("ui::panel", "Tafel", "de"),
        ("{n}", "{n}", "de"),
        ("Secret", "Geheimnis", "de"),
        ("Riddle", "Secret", "de"),
    ]
    kept, counts = pairs(candidates, held_out={"secret"})
    assert kept == candidates[:2]
    reasons = {"script": 1, "untranslated": 1, "placeholders": 1, "reference": 1, "empty": 1}
    assert counts == {**reasons, "held out": 2, "other language: fr": 1}


PROSE = [  # code-like lines and punctuation that the rules of interface strings change or drop
    ("The set {a, b} has two elements.", "Die Menge {a, b} hat zwei Elemente.", "de"),
    ("2 + 2 = 4", "2 + 2 = 4", "de"),
    ("iPhone 15", "iPhone 15", "de"),
    ("std::vector", "std::vector", "de"),
    ("<b>bold</b>: use `reset`, *now* -", "<strong>fett</strong>: `reset`, *jetzt* –", "de"),
    ("Read [the page](https://example.org).", "Lies [die Seite](https://example.org).", "de"),
    ('"Promise?" "Yes."', "„Versprochen?“ „Ja.“", "de"),
    ("Are you angry?", "Είστε θυμωμένη;", "el"),
    ("Hi {smile}", "Hallo", "de"),
    ("She said: – no;", "Sie sagte: – nein;", "de"),
    ("The children", "می\u200cخواهم", "fa"),  # with a joiner that is part of the spelling
    ("100 %", "一", "zh"),
]


@pytest.mark.parametrize("cleaning", ["sentences", "none"])
def test_prose_keeps_its_characters(cleaning):
    assert pairs(PROSE, languages={"de", "el", "fa", "zh"}, cleaning=cleaning) == (PROSE, {})


def test_prose_loses_what_nobody_sees_and_what_is_certainly_in_another_language():
    candidates = [
        ("Good\u00a0 morning\n", "Gu\u00adten\tMor\u200bgen\ufeff", "de"),
        ("Cafe\u0301", "Caf\u0000e\u0301!", "de"),
        ("\u200b", "Guten Morgen", "de"),
        ("Good morning", " ", "de"),
        ("おはよう", "Good morning", "de"),
        ("Good morning", "ohayou", "ja"),
        ("1984", "1984", "ja"),
    ]
    kept, counts = pairs(candidates, cleaning="sentences")
    assert kept == [("Good morning", "Guten Morgen", "de"), ("Café", "Café!", "de"), ("1984", "1984", "ja")]
    assert counts == {"empty": 2, "not English": 1, "script": 1}


def test_text_that_is_not_cleaned_is_as_it_was():
    candidates = [("Good\u00a0 morning\n", "ohayou\u200b", "ja"), ("Good morning", " ", "ja")]
    assert pairs(candidates, cleaning="none") == (candidates[:1], {"empty": 1})


@pytest.mark.parametrize(
    "english, german", [("SECRET  word", "Losung"), ("Password", "secret WORD"), ("{a} Secret word:", "{a} x")]
)
def test_held_out_string_is_found_whatever_its_case_and_marks(english, german):
    assert pairs([(english, german, "de")], held_out={"secret word"}) == ([], {"held out": 1})


def test_rows_in_any_code_of_a_language_that_is_asked_for_are_kept_under_its_one_code():
    candidates = [("Good morning", "早上好", code) for code in ("zh", "ZH", "zho", "cmn")]
    kept, counts = pairs([*candidates, ("Good morning", "早上好", "zh-CN")], languages={"zh"})
    assert {pair[2] for pair in kept} == {"zh"} and len(kept) == 4
    assert counts == {"other language: zh-CN": 1}


def test_a_column_of_languages_that_holds_something_else_does_not_fill_the_statistics(monkeypatch):
    monkeypatch.setattr(corpora, "MANY_LANGUAGES", 3)
    _, counts = pairs([("a", "b", f"text {number}") for number in range(50)])
    assert len(counts) == 4 and counts["other language: others"] == 47


def test_a_reason_that_takes_most_of_a_language_or_of_a_dataset_is_warned_of():
    counts = Counter({("ru", "kept"): 2, ("ru", "script"): 3, ("de", "kept"): 50, ("de", "script"): 50})
    assert corpora.warnings_of("web", counts, Counter(kept=52)) == ["web, ru: script takes 3 of 5 pairs"]
    counts |= {("fr", "other language"): 1000, ("zh-CN", "other language"): 20}
    assert corpora.warnings_of("web", counts, Counter(kept=20, duplicate=32)) == [
        "web, ru: script takes 3 of 5 pairs",
        "web: other language takes 1,020 of 1,125 pairs (fr 1,000, zh-CN 20)",
        "web: duplicate takes 32 of 52 pairs",
    ]


def own_settings(folder: Path, **changes) -> config.Config:
    """config/demo.yaml over text that the user brings."""
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    languages = {"language": "de", "document_language": "en"}
    values["sources"] |= {
        "web": {"uri": f"file:{folder / 'web.tsv'}", "format": "pairs"},
        "books": {"uri": f"file:{folder / 'books.jsonl'}", "format": "pairs", "language": "de"},
        "triples": {"uri": f"file:{folder / 'triples.parquet'}", "format": "triples"},
        "quiz": {"uri": f"file:{folder / 'quiz'}", "format": "beir", **languages},
        "exam": {"uri": f"file:{folder / 'exam'}", "format": "beir", **languages},
    }
    values["align"]["train_datasets"] = ["web", "books"]
    values["distill"]["train_datasets"] = ["triples"]
    values["evaluate"] |= {"test_collections": ["exam"], "development_collections": ["quiz"]}
    return config.parse({**values, "languages": ["de", "ja"], "eval_languages": ["de"], **changes})


@pytest.fixture
def own(tmp_path) -> dict[str, Path]:
    folder = tmp_path / "own"
    folder.mkdir()
    tsv(folder / "web.tsv", *ROWS[:2], ("A red lamp", "Eine rote Lampe", "de"), ("Which door?", "Welche Tür?", "de"))
    rows = [("Good morning", "Guten Morgen"), ("Good night", "Gute Nacht"), ("My cat", "WELCHE TÜR?")]
    jsonl(folder / "books.jsonl", *({"english": english, "non_english": german} for english, german in rows))
    parquet(folder / "triples.parquet", {column: ["x"] for column in tables.TRIPLE_COLUMNS})
    exam = Collection("exam", {"d": "a RED lamp", "e": "another lamp"}, {"q": "rote Lampe"}, {"q": {"d": 1}})
    write_collection(exam, folder / "exam", "test")
    write_collection(
        Collection("quiz", {"d": "this one"}, {"q": "Welche Tür?"}, {"q": {"d": 1}}), folder / "quiz", "dev"
    )
    names = {"web": "web.tsv", "books": "books.jsonl", "triples": "triples.parquet", "quiz": "quiz", "exam": "exam"}
    return {name: folder / path for name, path in names.items()}


def test_user_s_own_text_becomes_training_pairs_without_that_of_the_collections(own, tmp_path):
    build_corpora(own_settings(tmp_path / "own"), own, tmp_path / "out")
    found = read_pairs(tmp_path / "out")
    assert set(found.itertuples(index=False, name=None)) == {*ROWS[:2], ("Good night", "Gute Nacht", "de")}
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text(encoding="utf-8"))
    assert statistics["datasets"] == {
        "web": {"kept": 2, "held out": 2},
        "books": {"kept": 1, "in an earlier corpus": 1, "held out": 1},
    }
    assert statistics["pairs"] == {"de": 2, "ja": 1}


def test_a_cap_leaves_so_many_pairs_and_counts_the_others(own, tmp_path):
    settings = own_settings(tmp_path / "own")
    settings.sources["books"] = settings.sources["books"].model_copy(update={"max_pairs": 1})
    build_corpora(settings, own, tmp_path / "out")
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text(encoding="utf-8"))
    assert statistics["datasets"]["web"] == {"kept": 2, "held out": 2}
    # The one that is drawn stands in web, too.
    assert statistics["datasets"]["books"] == {"kept": 0, "over the cap": 1, "in an earlier corpus": 1, "held out": 1}


def test_user_s_own_collections_are_copied_under_the_names_of_their_sources(own, tmp_path):
    build_corpora(own_settings(tmp_path / "own"), own, tmp_path / "out")
    for split, name in (("test", "exam"), ("dev", "quiz")):
        assert [path.name for path in (tmp_path / "out" / "collections" / split).iterdir()] == [name]
        found = read_collection(tmp_path / "out" / "collections" / split / name, split)
        assert found.about == {"query_language": "de", "document_language": "en", "source": name}
        assert replace(found, about={}) == read_collection(own[name], split)


def test_two_collections_of_one_name_are_refused(own, tmp_path):
    settings = own_settings(tmp_path / "own")
    twice = settings.evaluate.model_copy(update={"test_collections": ["exam", "exam"]})
    with pytest.raises(MilcoError, match="two collections have the name exam"):
        build_corpora(settings.model_copy(update={"evaluate": twice}), own, tmp_path / "out")


def test_english_texts_of_the_user_s_own_pairs_are_listed_once(own, tmp_path):
    build_corpora(own_settings(tmp_path / "own"), own, tmp_path / "out")
    found = pd.read_parquet(tmp_path / "out" / "english.parquet").english.tolist()
    assert found == sorted(["Good morning", 'Say "hello"', "Good night"])
    assert len(pd.read_parquet(tmp_path / "out" / "items.parquet")) == 0


def statistics_of(folder: Path) -> dict:
    return json.loads((folder / "statistics.json").read_text(encoding="utf-8"))


LEAKS = {  # string of the collection: the same as a corpus may have it
    "Warnung:": "Warnung",
    "`Passwort` zurücksetzen": "Passwort  zurücksetzen:",
    "Schritt 1 -": "schritt 1",
    "**wirklich** neu": "wirklich neu",
    "Hallo {name}": "Hallo",
    "Die <b>rote</b> Taste": "Die rote Taste",
    "Tür öffnen": unicodedata.normalize("NFD", "Tür öffnen"),
    unicodedata.normalize("NFD", "Zürich"): "ZÜRICH",
    "Pass\u200bwort": "Passwort",
    "Wort\u00adtrennung": "Worttrennung",
    "\ufeffLies [die Seite](https://example.org)": "Lies die Seite",
    "{1, 2, 3}": "{1,  2, 3}",
}


@pytest.mark.parametrize("cleaning", ["interface", "sentences", "none"])
@pytest.mark.parametrize("test, train", LEAKS.items())
def test_string_of_a_collection_is_found_however_it_is_written_and_cleaned(test, train, cleaning):
    for one, other in ((test, train), (train, test), (test, test)):
        kept, counts = pairs([("Some English", one, "de")], held_out={other}, cleaning=cleaning)
        assert kept == [] and set(counts) <= {"held out", "script", "placeholders"}
        if cleaning != "interface":
            assert counts == {"held out": 1}


@pytest.mark.parametrize("one, other", [("schon", "schön"), ("{name}", "{value}"), ("2", "3"), ("–", "→")])
def test_strings_that_read_differently_are_two(one, other):
    assert len(HeldOut([one, other]).digests) == 2


def test_blank_strings_hold_nothing_out():
    assert len(HeldOut(["", " ", "\n"]).digests) == 0


def test_held_out_strings_take_as_much_memory_however_many_they_are(monkeypatch):
    for module in (held_out, sorting):
        monkeypatch.setattr(module, "RUN", 10_000)
    most = []
    for count in (50_000, 200_000):
        held_out.digest.cache_clear()
        tracemalloc.start()
        found = HeldOut(f"word {n}" for n in range(count))
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.digests) == count
    assert most[1] < 1.1 * most[0]


def test_held_out_strings_survive_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "GROUP", 1000)
    found = HeldOut(f"word {n % 5000}" for n in range(10_000))
    found.write(tmp_path)
    again = HeldOut.read(tmp_path)
    assert np.array_equal(found.digests, again.digests) and len(again.digests) == 5000
    assert all(f"Word  {n}" in again for n in range(5000)) and "word 5000" not in again


def test_digests_that_end_with_zeros_are_told_apart(monkeypatch):
    """NumPy drops zeros at the end of bytes."""
    own = held_out.digest
    monkeypatch.setattr(held_out, "digest", lambda text: own(text)[:14] + (b"\0\0" if text > "m" else b"\1\0"))
    assert all(text in HeldOut(["a", "z"]) for text in "az") and "b" not in HeldOut(["a", "z"])


def answers(folder: Path, **row: str) -> Path:
    """A collection of one query, one document that answers it and two that nobody asked for."""
    collection = Collection("exam", {"e": "another lamp"}, {"q": "rote Lampe"}, {"q": {"d": 1, "e": 0}})
    write_collection(collection, folder, "test")
    jsonl(folder / "corpus.jsonl", {"_id": "d", **row}, {"_id": "e", "title": "Other", "text": "another lamp"})
    return folder


@pytest.mark.parametrize(
    ("which", "lost"),
    [
        ("queries", {"rote Lampe"}),
        ("relevant", {"rote Lampe", "Rivers", "It is blue.", "Rivers It is blue."}),
        (
            "all",
            {
                "rote Lampe",
                "Rivers",
                "It is blue.",
                "Rivers It is blue.",
                "Other",
                "another lamp",
                "Other another lamp",
            },
        ),
    ],
)
def test_queries_and_what_answers_them_leave_the_training_text(own, tmp_path, which, lost):
    own["exam"] = answers(tmp_path / "exam", title="Rivers", text="It is blue.")
    strings = [
        "rote Lampe",
        "Rivers",
        "It is blue.",
        "Rivers It is blue.",
        "Other",
        "another lamp",
        "Other another lamp",
    ]
    own["web"] = tsv(tmp_path / "own" / "web.tsv", *((f"{s}:", f"Übersetzung {s}", "de") for s in strings))
    build_corpora(
        own_settings(tmp_path / "own", languages=["de"], corpora={"decontaminate": which, "decontaminate_for": "all"}),
        own,
        tmp_path / "out",
    )
    kept = set(read_pairs(tmp_path / "out").english)
    assert {s for s in strings if f"{s}:" not in kept} == lost
    assert statistics_of(tmp_path / "out")["datasets"]["web"] == {"kept": 7 - len(lost), "held out": len(lost)}
    found = HeldOut.read(tmp_path / "out")
    assert lost and all(text in found for text in lost)


def test_a_thousand_passages_that_nobody_asked_for_are_trained_on(own, tmp_path):
    rows = [(f"Passage {n} is about river {n}.", f"Abschnitt {n} handelt vom Fluss {n}.", "de") for n in range(1000)]
    own["web"] = tsv(tmp_path / "own" / "web.tsv", *rows)
    exam = Collection("exam", {str(n): row[0] for n, row in enumerate(rows)}, {"q": "Fluss 7"}, {"q": {"7": 1}})
    write_collection(exam, tmp_path / "exam", "test")
    own["exam"] = tmp_path / "exam"
    build_corpora(own_settings(tmp_path / "own", languages=["de"]), own, tmp_path / "out")
    assert statistics_of(tmp_path / "out")["datasets"]["web"] == {"kept": 999, "held out": 1}


def test_a_document_in_chunks_is_held_out_as_a_whole(own, tmp_path, encoder_checkpoint):
    text = "Katze Hund Haus Fluss Wasser Buch rot groß Nacht Passwort"
    own["exam"] = answers(tmp_path / "exam", text=text)
    settings = own_settings(tmp_path / "own", languages=["de"])
    settings.sources["exam"] = settings.sources["exam"].model_copy(update={"chunk_tokens": 8})
    rows = [("The whole", text, "de"), ("A part", " ".join(text.split()[:6]), "de"), ("Cat", "Katze Hund", "de")]
    own["web"] = tsv(tmp_path / "own" / "web.tsv", *rows)
    build_corpora(settings, own, tmp_path / "out", encoder_checkpoint)
    assert statistics_of(tmp_path / "out")["datasets"]["web"] == {"kept": 2, "held out": 1}


def test_pairs_of_several_languages_are_kept_whatever_languages_says(own, tmp_path):
    settings = own_settings(tmp_path / "own", languages=["de", "fr"])
    (tmp_path / "own" / "books" / "all").mkdir(parents=True)
    own["books"] = tmp_path / "own" / "books"
    rows = [("Good evening", "Guten Abend"), ("Good day", "buenos días")]
    jsonl(own["books"] / "all" / "a.jsonl", *({"english": english, "non_english": other} for english, other in rows))
    settings.sources["books"] = source(subsets={"all": "mul"})
    build_corpora(settings, own, tmp_path / "out")
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text(encoding="utf-8"))
    assert statistics["pairs"] == {"mul": 2, "de": 1}


def test_pairs_of_several_languages_are_kept_whatever_their_script(own, tmp_path, capsys):
    settings = own_settings(tmp_path / "own")
    others = [
        "Доброе утро",
        "今天天气很好",
        "किताब मेज़ पर है",
        "Καλημέρα",
        "おはよう",
        "صباح الخير",
        "안녕하세요",
        "ಬಾಗಿಲು",
    ]
    tsv(tmp_path / "own" / "books.tsv", *((f"Text {n}", other) for n, other in enumerate(others)))
    own["books"] = tmp_path / "own" / "books.tsv"
    settings.sources["books"] = source(language="mul")
    build_corpora(settings, own, tmp_path / "out")
    assert statistics_of(tmp_path / "out")["datasets"]["books"] == {"kept": len(others)}
    assert f"books: kept {len(others)}\n" in capsys.readouterr().out


def test_tables_are_prose_unless_their_source_says_otherwise(own, tmp_path):
    rows = [("Press <b>start</b>:", "<b>Start</b> drücken:", "de"), ("Bluetooth", "Bluetooth", "de")]
    own["web"] = tsv(tmp_path / "own" / "web.tsv", *rows)
    for name, changes in (("prose", {}), ("interface", {"cleaning": "interface"})):
        settings = own_settings(tmp_path / "own", languages=["de"])
        settings.sources["web"] = source(**changes)
        build_corpora(settings, own, tmp_path / name)
    prose, interface = (set(read_pairs(tmp_path / name).non_english) for name in ("prose", "interface"))
    assert prose - interface == {"<b>Start</b> drücken:", "Bluetooth"}
    assert interface - prose == {"Start drücken"}


def test_pairs_in_a_language_that_is_not_asked_for_are_counted_and_warned_of(own, tmp_path, capsys):
    rows = [{"english": f"Good day {n}", "non_english": f"你好 {n}", "language": "zh-CN"} for n in range(9)]
    own["books"] = jsonl(tmp_path / "own" / "books.jsonl", *rows, {**rows[0], "language": "ja"})
    settings = own_settings(tmp_path / "own")
    settings.sources["books"] = source()
    build_corpora(settings, own, tmp_path / "out")
    found = statistics_of(tmp_path / "out")
    assert found["datasets"]["books"] == {"kept": 1, "other language: zh-CN": 9}
    assert found["warnings"][-1] == "books: other language takes 9 of 10 pairs (zh-CN 9)"
    assert "warning: books: other language takes 9 of 10 pairs (zh-CN 9)\n" in capsys.readouterr().out


def test_language_without_a_pair_is_named_with_what_was_lost_of_it(own, tmp_path):
    rows = [("Good morning", "Dobroje utro", "ru"), ("Good day", "你好", "zh-CN"), ("Peace", "Frieden", "de")]
    tsv(tmp_path / "own" / "web.tsv", *rows)
    settings = own_settings(tmp_path / "own", languages=["de", "fi", "ru", "zh"])
    with pytest.raises(MilcoError) as error:
        build_corpora(settings, own, tmp_path / "out")
    assert str(error.value) == (
        "languages: no training pair in fi, ru (web: script 1), zh (web: other language: zh-CN 1); "
        f"drop them or add a dataset. What became of all pairs is in {tmp_path}/out.statistics.json "
        "(web: kept 1, script 1, other language: zh-CN 1; books: kept 2, held out 1)"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"out.statistics.json", "own", ".out.part", ".out.lock"}
    found = json.loads((tmp_path / "out.statistics.json").read_text())
    assert found["datasets"]["web"] == {"kept": 1, "script": 1, "other language: zh-CN": 1} and "families" in found
    corpora.build(own_settings(tmp_path / "own", languages=["de"]), own, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own"]


def test_failed_build_leaves_no_result_and_a_rerun_succeeds(own, tmp_path):
    settings, judgements = own_settings(tmp_path / "own"), own["exam"] / "qrels" / "test.tsv"
    good = judgements.read_text(encoding="utf-8")
    judgements.write_text(good + "q\tnowhere\thigh\n", encoding="utf-8")
    with pytest.raises(MilcoError, match=r"^sources\.exam\.uri: /.*test\.tsv:3: "):
        build_corpora(settings, own, tmp_path / "out")
    assert not (tmp_path / "out/collections").exists()
    judgements.write_text(good, encoding="utf-8")
    build_corpora(settings, own, tmp_path / "out")
    assert (tmp_path / "out" / "parallel.parquet").is_file()


def test_what_is_wrong_with_pairs_is_said_with_the_key_of_their_source(own, tmp_path):
    with own["web"].open("a", encoding="utf-8") as table:
        table.write("only one field\n")
    with pytest.raises(MilcoError, match=r"^sources\.web\.uri: /.*web\.tsv:\d+: "):
        corpora.build(own_settings(tmp_path / "own"), own, tmp_path / "out")

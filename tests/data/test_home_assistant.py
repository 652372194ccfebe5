"""Test collections and training pairs out of a wheel in the layout of Home Assistant's: nothing leaks between them."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from miniature import build_corpora, read_pairs

from milco import config
from milco.data import held_out, home_assistant
from milco.data.beir import Collection, read_collection
from milco.errors import MilcoError

ROOT = Path(__file__).parents[2]
LANGUAGES = ["de", "ja", "zh"]
ASKED = ["de", "ja"]
SETTINGS = config.Corpora(held_out=0.6, development=0.4)
SPLITS = {
    "train": ["hazel", "iris", "juniper", "maple", "nectar"],
    "dev": ["amber", "birch", "dahlia"],
    "test": ["cobalt", "kelp", "sable", "tulip"],
}
SIDE = {name: split for split, names in SPLITS.items() for name in names}
# English, German, Japanese, Chinese; {} is the name of the integration; it marks the strings that no other one has.
WORDS = {
    "title": ("Connect {}", "{} verbinden", "{}に接続する", "连接{}"),
    "description": (
        "Enter where {} can be found.",
        "Gib an, wo {} zu finden ist.",
        "{}の場所を入力します。",
        "请输入{}的位置。",
    ),
    "generic": ("Host name", "Rechnername", "ホスト名", "主机名"),
    "generic description": ("The computer of {}.", "Der Rechner von {}.", "{}のコンピューター。", "{}的计算机。"),
    "pair": ("Pairing code", "Kopplungscode", "ペアリングコード", "配对码"),
    "pair description": ("The number on {}.", "Die Nummer auf {}.", "{}の番号。", "{}上的号码。"),
    "token": ("Access token", "Zugangsschlüssel", "アクセストークン", "访问令牌"),
    "token again": ("ACCESS  token", "Schlüssel zum Zugang", "アクセス用トークン", "访问密钥"),
    "token description": ("Ask {} for it.", "Erfrage ihn bei {}.", "{}に問い合わせる。", "向{}询问。"),
    "search": ("Leave it empty to search.", "Leer lassen, um zu suchen.", "検索するには空にします。", "留空以搜索。"),
    "search title": ("Address of {}", "Adresse von {}", "{}のアドレス", "{}的地址"),
    "mode": ("Start mode of {}", "Startart von {}", "{}の開始モード", "{}的启动模式"),
    "kind": ("Start kind of {}", "Startart von {}", "{}の開始種類", "{}的启动类型"),
    "mode description": ("How {} begins.", "Wie {} beginnt.", "{}の始まり方。", "{}如何开始。"),
    "kind description": ("What {} begins.", "Was {} beginnt.", "{}が始めるもの。", "{}开始什么。"),
    "plain": ("Bluetooth", "Bluetooth", "Bluetooth", "Bluetooth"),
    "plain description": ("The radio of {}.", "Der Funk von {}.", "{}の無線。", "{}的无线电。"),
    "message": ("No answer came from {}.", "Von {} kam keine Antwort.", "{}から応答がありません。", "{}没有响应。"),
    "short message": ("Lost {}", "{} verloren", "{}を失う", "丢失{}"),
    "menu": ("Rooms", "Räume", "部屋", "房间"),
    "menu hint": ("Choose where the lamp is", "Wähle, wo die Lampe ist", "ランプの場所を選ぶ", "选择灯的位置"),
    "verb": ("Bind it", "Binden", "結ぶ", "连接Tulip"),  # in Chinese the title of a held-out integration
    "reference": ("Save", "Sichern", "[%key:common::action::save%]", "ui::panel::config::save"),
}


def word(kind: str, language: str, integration: str = "") -> str:
    return WORDS[kind][("en", *LANGUAGES).index(language)].format(integration.title())


def integration_texts(name: str, language: str) -> dict:
    """The file of an integration, with every kind of trap on the side of the split where it matters."""

    def say(kind):
        return word(kind, language, name)

    fields, hints = {"host": say("generic")}, {"host": say("generic description")}
    fields["radio"], hints["radio"] = say("plain"), say("plain description")
    if name in ("cobalt", "kelp"):
        fields["pair"], hints["pair"] = say("pair"), say("pair description")
    if name in ("tulip", "hazel"):
        fields["token"], hints["token"] = say("token"), say("token description")
    if name == "iris":
        fields["token"], hints["token"] = say("token again"), say("token description")
    if name in ("sable", "juniper"):
        fields["search"], hints["search"] = say("search title"), say("search")
    if name == "tulip":
        fields |= {"mode": say("mode"), "kind": say("kind")}
        hints |= {"mode": say("mode description"), "kind": say("kind description")}
    if name == "kelp" and language == "ja":
        return {"title": name.title()}
    user = {"title": say("title"), "description": say("description"), "data": fields, "data_description": hints}
    return {
        "title": name.title(),
        "config": {"step": {"user": user}, "error": {"lost": say("message"), "gone": say("short message")}},
    }


def core_files() -> dict[str, dict]:
    codes = {"en": "en", "de": "de", "ja": "ja", "zh-Hans": "zh", "zh-Hant": "zh", "fr": "de"}
    files = {
        f"homeassistant/components/{name}/translations/{code}.json": integration_texts(name, language)
        for name in SIDE
        for code, language in codes.items()
    }
    return {**files, "homeassistant/components/hazel/strings.json": {"title": "Source of the translations"}}


def frontend_files() -> dict[str, dict]:
    files = {}
    for number, (code, language) in enumerate({"en": "en", "de": "de", "ja": "ja", "zh-Hans": "zh"}.items()):
        digest = f"{number:032x}"
        kinds = {"menu": "menu", "save": "reference", "key": "token", "bind": "verb"}
        menu = {key: word(kind, language) for key, kind in kinds.items()}
        hint = {"hint": word("menu hint", language), "connect": word("title", language, "tulip").upper()}
        files[f"hass_frontend/static/translations/{code}-{digest}.json"] = {"ui": menu}
        files[f"hass_frontend/static/translations/config/{code}-{digest}.json"] = {"ui": {"panel": hint}}
        files[f"hass_frontend/static/translations/{code}-short.json"] = {"ui": {"menu": "Not this file"}}
    return files


def write_wheel(path: Path, files: dict[str, dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, tree in files.items():
            archive.writestr(name, json.dumps(tree, ensure_ascii=False))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    write_wheel(folder / "core" / "homeassistant-1-py3-none-any.whl", core_files())
    frontend = write_wheel(folder / "home_assistant_frontend-1-py3-none-any.whl", frontend_files())
    return {"home-assistant": folder / "core", "home-assistant-frontend": frontend}


def settings(sources: dict[str, Path], **changes) -> config.Config:
    """config/demo.yaml over the tiny wheels."""
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    for name, path in sources.items():
        values["sources"][name] = {"uri": f"file:{path}", "format": name}
    values["align"]["train_datasets"] = list(sources)
    return config.parse(
        {**values, "languages": LANGUAGES, "eval_languages": ASKED, "corpora": SETTINGS.model_dump(), **changes}
    )


@pytest.fixture(scope="module")
def built(sources, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("built") / "corpora"
    build_corpora(settings(sources), sources, output)
    return output


@pytest.fixture(scope="module")
def table(sources) -> pd.DataFrame:
    return home_assistant.items(sources["home-assistant"], LANGUAGES, SETTINGS, 42)


def read_all(built: Path, split: str) -> dict[str, Collection]:
    return {folder.name: read_collection(folder, split) for folder in (built / "collections" / split).iterdir()}


def comparable(texts) -> set[str]:
    return {" ".join(value.casefold().split()) for value in texts}


def collection_texts(built: Path, split: str) -> set[str]:
    """Every text in the files of a split, documents and queries, judged or not."""
    rows = [
        json.loads(line)
        for path in (built / "collections" / split).rglob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return comparable(row["text"] for row in rows)


def integrations_in(texts) -> set[str]:
    return {name for name in SIDE if any(name in value.casefold() for value in texts)}


def training_texts(built: Path, name: str) -> list[str]:
    frame = read_pairs(built) if name == "parallel.parquet" else pd.read_parquet(built / name)
    return [value for column in frame.columns if column not in ("language", "item") for value in frame[column].dropna()]


@pytest.mark.parametrize("split", SPLITS)
def test_integration_stays_on_its_side_in_every_release(split):
    found = {name for name in SIDE if home_assistant.split_of(name, 0.6, 0.4, 42) == split}
    assert found == set(SPLITS[split])


def test_shares_of_the_split_are_those_of_the_settings():
    found = Counter(home_assistant.split_of(f"integration-{number}", 0.5, 0.2, 1) for number in range(4000))
    assert found["train"] == pytest.approx(2000, abs=150) and found["dev"] == pytest.approx(400, abs=80)


@pytest.mark.parametrize("held_out, development, split", [(0, 0.5, "train"), (1, 1, "dev"), (1, 0, "test")])
def test_whole_share_puts_everything_on_one_side(held_out, development, split):
    assert {home_assistant.split_of(name, held_out, development, 42) for name in SIDE} == {split}


def test_another_seed_splits_otherwise():
    assert any(home_assistant.split_of(name, 0.6, 0.4, 43) != split for name, split in SIDE.items())


def test_whole_integrations_are_on_one_side(table):
    sides = table.groupby(table.item.str.split("/").str[0]).split.agg(set).to_dict()
    assert sides == {name: {split} for name, split in SIDE.items()}


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("part", ["english", "non_english"])
def test_no_training_pair_holds_a_text_of_a_collection(built, split, part):
    texts = comparable(read_pairs(built)[part])
    assert len(texts) > 20
    assert texts & collection_texts(built, split) == set()


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("name", ["items.parquet", "english.parquet"])
def test_no_text_of_stage_2_and_no_teacher_text_is_in_a_collection(built, split, name):
    texts = comparable(training_texts(built, name))
    assert len(texts) > 20
    assert texts & collection_texts(built, split) == set()


@pytest.mark.parametrize("name", ["parallel.parquet", "items.parquet", "english.parquet"])
def test_only_training_integrations_are_trained_on(built, name):
    assert integrations_in(training_texts(built, name)) == set(SPLITS["train"])


@pytest.mark.parametrize("split", ["dev", "test"])
def test_collections_are_about_the_integrations_of_their_split(built, split):
    assert integrations_in(collection_texts(built, split)) == set(SPLITS[split])


@pytest.mark.parametrize("kind", ["token", "token again", "search"])
def test_held_out_string_is_dropped_wherever_it_comes_again(built, kind):
    string = comparable([word(kind, "en")])
    assert string <= collection_texts(built, "test")
    assert string & comparable(training_texts(built, "english.parquet")) == set()


def test_held_out_title_is_found_whatever_its_digest_ends_with(sources, tmp_path, monkeypatch):
    own = held_out.digest
    monkeypatch.setattr(held_out, "digest", lambda text: own(text)[:15] + b"\0")
    build_corpora(settings(sources), sources, tmp_path / "out")
    assert comparable([word("token", "en")]) & comparable(training_texts(tmp_path / "out", "items.parquet")) == set()
    assert word("token", "en") not in training_texts(tmp_path / "out", "items.parquet")


def test_pairs_that_were_held_out_are_counted(built):
    counts = json.loads((built / "statistics.json").read_text(encoding="utf-8"))["datasets"]
    assert counts["home-assistant-frontend"] == {"kept": 9, "reference": 2, "held out": 7}
    assert counts["home-assistant"]["held out"] == 3 * 3 + 5 * 3


def test_held_out_string_counts_in_languages_that_no_query_is_in(built):
    pairs = read_pairs(built)
    assert set(pairs[pairs.english == word("verb", "en")].language) == {"de", "ja"}


def fine_tuning(sources: dict[str, Path], **changes) -> config.Config:
    """German is trained on, from a finished model; German and Japanese are asked."""
    values = settings(sources).model_dump()
    values["sources"]["start"] = {"uri": "file:start", "format": "transformers"}
    values["distill"] |= {"pretrained_alignment_checkpoint": "start"}
    return config.parse({**values, "languages": ["de"], **changes})


def test_a_language_that_is_only_asked_has_collections_and_is_not_trained_on(sources, built, tmp_path):
    build_corpora(fine_tuning(sources), sources, tmp_path / "out")
    assert read_all(tmp_path / "out", "test") == read_all(built, "test")
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    assert set(items.language) == {"en", "de"}
    whole = pd.read_parquet(built / "items.parquet")
    assert len(items) == whole.language.isin(["en", "de"]).sum()
    asked = {query for found in read_all(built, "test").values() for query in found.queries.values()}
    found = held_out.HeldOut.read(tmp_path / "out")
    assert all(query in found for query in asked)  # those in Japanese, too


def test_the_parallel_text_of_a_stage_1_that_nothing_needs_is_left(sources, tmp_path):
    build_corpora(fine_tuning(sources), sources, tmp_path / "out")
    assert read_pairs(tmp_path / "out").empty
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    english = items[items.language == "en"]
    texts = pd.read_parquet(tmp_path / "out" / "english.parquet").english
    assert sorted(texts) == sorted({*english.title.dropna(), *english.description})


def test_a_language_without_an_item_to_train_on_is_named(sources, tmp_path):
    with pytest.raises(MilcoError, match=r"^languages: no training item in sw; drop them or add a dataset$"):
        build_corpora(fine_tuning(sources, languages=["de", "sw"]), sources, tmp_path / "out")


def test_frontend_gives_its_own_pairs(built):
    pairs = read_pairs(built)
    found = pairs[pairs.english == word("menu", "en")]
    assert dict(zip(found.language, found.non_english, strict=True)) == {
        language: word("menu", language) for language in LANGUAGES
    }


def test_pairs_are_the_translations_of_each_other(built):
    pairs = set(read_pairs(built).itertuples(index=False, name=None))
    for kind in ("description", "message", "short message"):
        for name in SPLITS["train"]:
            assert {(word(kind, "en", name).rstrip(), word(kind, x, name), x) for x in LANGUAGES} <= pairs


def test_no_pair_comes_twice(built):
    assert not read_pairs(built).duplicated().any()


def test_english_texts_are_those_of_pairs_and_items_each_once(built):
    pairs, items = read_pairs(built), pd.read_parquet(built / "items.parquet")
    english = items[items.language == "en"]
    texts = pd.read_parquet(built / "english.parquet").english
    assert texts.is_unique
    assert set(texts) == {*pairs.english, *english.title.dropna(), *english.description}


def test_statistics_count_what_was_written(built):
    counts = json.loads((built / "statistics.json").read_text(encoding="utf-8"))
    pairs = read_pairs(built)
    assert counts["pairs"] == pairs.language.value_counts().to_dict()
    assert counts["items"] == len(pd.read_parquet(built / "items.parquet"))


def test_collections_are_named_by_query_and_document_language(built):
    assert set(read_all(built, "test")) == {"en-en", "de-en", "de-de", "ja-en", "ja-ja"}
    assert set(read_all(built, "dev")) == {"en-en", "de-en", "ja-en"}


@pytest.mark.parametrize("split", ["dev", "test"])
def test_title_of_an_integration_finds_its_description_alone(built, split):
    for name, collection in read_all(built, split).items():
        asked, answered = name.split("-")
        for integration in SPLITS[split]:
            if integration == "kelp" and "ja" in (asked, answered):
                continue
            title, description = word("title", asked, integration), word("description", answered, integration)
            (query,) = [identifier for identifier, text in collection.queries.items() if text == title]
            found = {collection.documents[document]: grade for document, grade in collection.qrels[query].items()}
            assert found == {description: 1}


def test_two_items_of_one_title_are_both_relevant(built):
    collection = read_all(built, "test")["de-en"]
    (query,) = [identifier for identifier, text in collection.queries.items() if text == word("pair", "de")]
    found = {collection.documents[document] for document in collection.qrels[query]}
    assert found == {word("pair description", "en", name) for name in ("cobalt", "kelp")}


def test_item_that_is_not_translated_is_neither_asked_for_nor_a_document(built):
    collections = read_all(built, "test")
    assert not any("Kelp" in text for text in collections["ja-ja"].documents.values())
    assert not any("Kelp" in text for text in collections["ja-en"].queries.values())
    assert any("Kelp" in text for text in collections["ja-en"].documents.values())


@pytest.mark.parametrize("split, names", [("test", SPLITS["test"]), ("dev", SPLITS["dev"])])
def test_title_is_asked_for_up_to_the_limit_of_relevant_documents(built, split, names):
    asked = word("generic", "de") in read_all(built, split)["de-en"].queries.values()
    assert asked is (len(names) <= SETTINGS.max_relevant)


def test_descriptions_of_generic_titles_are_documents_all_the_same(built):
    documents = read_all(built, "test")["de-en"].documents.values()
    assert {word("generic description", "en", name) for name in SPLITS["test"]} <= set(documents)


def test_titles_that_share_a_translation_are_left_out_in_that_language_only(built):
    collections = read_all(built, "test")
    assert word("mode", "de", "tulip") not in collections["de-en"].queries.values()
    assert {word("mode", "ja", "tulip"), word("kind", "ja", "tulip")} <= set(collections["ja-en"].queries.values())


def test_commonest_translation_of_a_title_is_asked():
    rows = [(f"a/{number}/title", "test", "en", "Room", f"Room number {number}") for number in range(3)]
    rows += [(f"a/{at}/title", "test", "de", say, f"Raum {at}") for at, say in enumerate(("Kammer", "Raum", "Raum"))]
    table = pd.DataFrame(rows, columns=home_assistant.ITEM_COLUMNS)
    made = {collection.name: collection for collection in home_assistant.collections(table, "test", ["de"], SETTINGS)}
    assert list(made["de-en"].queries.values()) == ["Raum"]
    assert [len(grades) for grades in made["de-en"].qrels.values()] == [3]


def test_title_that_was_left_in_english_is_not_asked_for(built):
    collections = read_all(built, "dev")
    assert all(word("plain", "en") not in collection.queries.values() for collection in collections.values())


def test_messages_are_documents_that_no_query_wants(built):
    for split, names in (("dev", SPLITS["dev"]), ("test", SPLITS["test"])):
        collection = read_all(built, split)["en-en"]
        judged = {collection.documents[document] for grades in collection.qrels.values() for document in grades}
        messages = {word("message", "en", name).strip() for name in names}
        assert messages <= set(collection.documents.values())
        assert messages & judged == set()


def test_short_messages_are_no_documents(built):
    documents = read_all(built, "test")["en-en"].documents.values()
    assert {word("short message", "en", name) for name in SPLITS["test"]} & set(documents) == set()


def test_ceiling_asks_in_english_what_any_language_asks(built):
    for split in ("dev", "test"):
        collections = read_all(built, split)
        ceiling = set(collections.pop("en-en").queries)
        assert {query for name in collections if name.endswith("-en") for query in collections[name].queries} == ceiling
        assert len(ceiling) >= len(SPLITS[split])


def test_title_that_is_generic_in_english_is_generic_in_every_language(built):
    for collection in read_all(built, "test").values():
        assert not {word("generic", language) for language in ("en", *ASKED)} & set(collection.queries.values())


def test_title_with_many_local_descriptions_is_asked_where_it_is_not_generic_in_english():
    texts = [(f"a/{number}/title", f"Raum {number}") for number in range(SETTINGS.max_relevant + 1)]
    rows = [(item, "test", "en", "Room", "Name of the room") for item, _ in texts]
    rows += [(item, "test", "de", "Raum", description) for item, description in texts]
    table = pd.DataFrame(rows, columns=home_assistant.ITEM_COLUMNS)
    made = {collection.name: collection for collection in home_assistant.collections(table, "test", ["de"], SETTINGS)}
    assert {name: list(found.queries.values()) for name, found in made.items()} == {
        "en-en": ["Room"],
        "de-en": ["Raum"],
        "de-de": ["Raum"],
    }


def test_query_has_one_id_in_all_languages(built):
    collections = read_all(built, "test")
    ids = {
        identifier
        for name, collection in collections.items()
        for identifier, text in collection.queries.items()
        if text == word("title", name.split("-")[0], "cobalt")
    }
    assert len(collections) == 5 and len(ids) == 1


def test_number_of_queries_has_a_limit(table):
    few = SETTINGS.model_copy(update={"max_queries": 2})
    made = {collection.name: collection for collection in home_assistant.collections(table, "test", ["de"], few)}
    assert len(made["de-en"].queries) == 2


def test_language_without_a_query_is_named(table):
    with pytest.raises(MilcoError, match=r"^eval_languages: fr has no test query"):
        list(home_assistant.collections(table, "test", ["de", "fr"], SETTINGS))


def test_chinese_is_the_one_in_simplified_characters(table):
    assert word("title", "zh", "hazel") in set(table[table.language == "zh"].title)


def test_second_call_on_a_copy_writes_the_same_files(sources, built, tmp_path):
    core = write_wheel(tmp_path / "copy" / "homeassistant-1-py3-none-any.whl", core_files())
    copies = {**sources, "home-assistant": core}
    build_corpora(settings(copies), copies, tmp_path / "again")
    first, second = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (built, tmp_path / "again")
    )
    assert len(first) > 20
    assert first == second


def test_language_without_a_training_pair_is_named_and_no_corpus_is_written(sources, tmp_path):
    with pytest.raises(MilcoError, match=r"^languages: no training pair in fi; [^\n]+$"):
        build_corpora(settings(sources, languages=[*LANGUAGES, "fi"]), sources, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out.statistics.json", ".out.part", ".out.lock"}


def test_folder_without_a_wheel_is_named(tmp_path):
    with pytest.raises(MilcoError, match=rf"^{tmp_path}: no wheel in it"):
        home_assistant.items(tmp_path, LANGUAGES, SETTINGS, 42)


def test_wheel_of_another_layout_is_named(tmp_path):
    wheel = write_wheel(tmp_path / "other.whl", {"other/en.json": {"title": "Other"}})
    with pytest.raises(MilcoError, match=r"other\.whl: no English strings in it"):
        list(home_assistant.frontend_pairs(wheel, LANGUAGES))


def test_wheel_that_was_cut_off_is_named(tmp_path):
    wheel = write_wheel(tmp_path / "cut.whl", core_files())
    wheel.write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(MilcoError, match=r"cut\.whl"):
        home_assistant.items(wheel, LANGUAGES, SETTINGS, 42)


@pytest.mark.parametrize(
    "key, other",
    [
        (("config", "title"), ("config", "description")),
        (("services", "start", "name"), ("services", "start", "description")),
        (("step", "data", "host"), ("step", "data_description", "host")),
        (("data", "data", "a", "data"), ("data", "data", "a", "data_description")),
        (("config", "data", "a", "data", "b"), ("config", "data", "a", "data_description", "b")),
    ],
)
def test_description_of_a_title_lies_beside_it(key, other):
    assert home_assistant.description_of(key, {other: "text"}) == other
    assert home_assistant.description_of(key, {}) is None


def test_message_has_no_description():
    assert home_assistant.description_of(("config", "error", "gone"), {("config", "error", "description"): "x"}) is None

"""Tiny stand-ins for every repository that the paper's experiment names, in the layout of the real ones.

    with hub.running() as there:
        fill(there)  # then clients with HF_ENDPOINT=there.address and, for the gated teacher, HF_TOKEN=TOKEN

Layouts are those of the real repositories as far as they can be read without the Hub: from the authors' code (names,
subsets, columns), from mteb (revisions, subsets, splits), from the cards of datasets (LIMIT), and from publications
(forms of ids, languages of a corpus). Where none says it, the commonest layout is taken.

Some of the text is awkward on purpose, as the real text is; see LEAKS, PROSE, and the collections' traits below.
"""

import io
import json
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha1
from itertools import cycle, islice
from random import Random
from typing import Any

import mteb
import pyarrow as pa
import pyarrow.parquet as pq
import tiny_models
import yaml
from hub import Hub
from phrases import (
    ENGLISH_GREETINGS,
    FOURS,
    GREETINGS,
    PAIRS,
    TEXTS,
    TRIPLES,
    answers,
    joined,
    passage,
    questions,
)

TOKEN = "hf_tokenoftherehearsal"  # of somebody who has accepted the teacher's terms

Files = dict[str, bytes]
Rows = list[dict[str, Any]]
Pair = tuple[str, str]  # English, other language
Side = Callable[[str], list[str]]  # language → its questions, or its answers

MMARCO = ["ar", "zh", "nl", "fr", "de", "hi", "id", "it", "ja", "pt", "ru", "es", "vi"]
# Languages of the mixed tables: two of the real tables have only these.
EUROPARL = ["bg", "cs", "da", "de", "el", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "ro", "sv"]
NEWS = ["ar", "cs", "de", "es", "fr", "it", "ja", "nl", "pt", "ru"]
ALL = [language for language in TEXTS if language != "en"]
MIXED = {
    "opensubtitles": ALL,
    "jw300": ALL,
    "europarl": EUROPARL,
    "wikimatrix": ALL,
    "talks": ALL,
    "tatoeba": ALL,
    "news-commentary": NEWS,
}
CCMATRIX = sorted({*GREETINGS, *ALL} - {"am", "gu", "hy", "ka", "kk", "km", "my", "te", "th", "yo", "zh-Hant"})

# Test strings in training text, by dataset: questions that test collections ask, and answers that MKQA wants found.
LEAKS: dict[str, list[Pair]] = {
    "mmarco-queries": [(questions("en")[0], questions(language)[0]) for language in ("de", "hi", "ru", "zh")],
    "opensubtitles": [(questions("en")[1], questions(language)[1]) for language in ("ar", "bn", "ja", "sw", "th")],
    "jw300": [(answers("en")[2], answers(language)[2]) for language in ("fi", "he", "km", "ko", "tr")],
    # The English is a free translation, the question is written otherwise: decomposed, with a zero-width space, …
    "tatoeba": [
        ("I wonder why the river is so high.", unicodedata.normalize("NFD", questions("vi")[3])),
        ("I wonder why the river is so high.", unicodedata.normalize("NFD", questions("ko")[3])),
        ("I wonder why the river is so high.", f"\u200b{questions('fr')[3]}"),
        ("Tell me what the bread costs.", f"{questions('es')[4]}:"),
        ("Tell me what the bread costs.", f"`{questions('de')[4]}`"),
        ("Tell me what the bread costs.", questions("ru")[4].upper()),
    ],
}
# Questions of CQADupstack as people write them, which cleaning changes; they stand in training text to the letter.
AWKWARD = {
    "CQADupstackTexRetrieval": ("How do I write the `river` label:", "Wie schreibe ich die `river`-Beschriftung:"),
    "CQADupstackUnixRetrieval": ("Where does *less* keep its history?", "Где *less* хранит историю?"),
    "CQADupstackWordpressRetrieval": (
        unicodedata.normalize("NFD", "Which plugin shows a café?"),
        "カフェを表示するのは？",
    ),
}
LEAKS["talks"] = list(AWKWARD.values())
# Good pairs of prose that are no strings of an interface.
PROSE: list[Pair] = [
    ("2 + 2 = 4", "2+2=4"),
    ("iPhone 15", "آيفون 15"),
    ("*sighs* We {all} need bread.", "*ах* Нам {всем} нужен хлеб."),
    ("- <i>Where is it?</i> - Here!", "- <i>どこ？</i> - ここ！"),
    ("She said:", "Elle a dit :"),
    ("100 %", "১০০ %"),
]


def parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, compression="none")
    return stream.getvalue()


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def card(configs: dict[str, dict[str, str]]) -> bytes:
    """README.md of a dataset: which files are which split of which configuration."""
    said = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
        for name, splits in configs.items()
    ]
    return f"---\n{yaml.safe_dump({'license': 'other', 'configs': said})}---\n".encode()


def commit(hub: Hub, name: str, files: Files, revision: str | None = None) -> None:
    """Put files into a repository, under the commit that mteb has pinned if one is given."""
    made = hub.commit(name, files)
    if revision:
        repository = hub.repositories[name]
        repository.commits[revision], repository.branches["main"] = repository.commits.pop(made), revision


# Parallel text


def translated(
    dataset: str, language: str, count: int, side: Side = answers, orders: list[tuple[int, ...]] = PAIRS
) -> list[Pair]:
    """Pairs of some sentences each; in a dataset, all languages translate nearly the same English texts."""
    topics = Random(dataset).sample(orders, min(len(orders), count + 3))
    kept = sorted(Random(f"{dataset} {language}").sample(topics, count))
    made = ([joined(code, [side(code)[topic] for topic in order]) for code in ("en", language)] for order in kept)
    return [(english, other) for english, other in made]


def pair_rows(pairs: Iterable[Pair], **more: Any) -> Rows:
    return [{"english": english, "non_english": other, **more} for english, other in pairs]


def mmarco_passages(language: str) -> list[Pair]:
    return translated("mmarco-passages", language, 12, orders=FOURS)


def mixed_rows(name: str) -> Rows:
    """A table of many languages, without a column that names them."""
    pairs = [pair for language in MIXED[name] for pair in translated(name, language, 3)]
    pairs += LEAKS.get(name, [])
    pairs += PROSE if name == "opensubtitles" else []
    Random(name).shuffle(pairs)
    return pair_rows(pairs)


def in_subsets(subsets: dict[str, Rows]) -> Files:
    """Tables of a repository with named configurations, in which `train` has its rows and `dev` its last one."""
    files = {
        f"{name}/{split}-00000-of-00001.parquet": parquet(part)
        for name, rows in subsets.items()
        for split, part in (("train", rows), ("dev", rows[-1:]))
    }
    splits = {name: {split: f"{name}/{split}-*" for split in ("train", "dev")} for name in subsets}
    return {"README.md": card(splits), **files}


def one_table(rows: Rows) -> Files:
    """A repository with one configuration, `default`."""
    return {"README.md": b"---\nlicense: other\n---\n", "data/train-00000-of-00001.parquet": parquet(rows)}


def parallel_tables() -> dict[str, Files]:
    passages = {f"en_{language}": mmarco_passages(language) for language in MMARCO}
    queries = {language: translated("mmarco-queries", language, 8, questions) for language in MMARCO}
    for leak in LEAKS["mmarco-queries"]:
        (language,) = (code for code in MMARCO if leak[1] in questions(code))
        queries[language].append(leak)
    chosen = [(code, topic) for code in ALL for topic in Random(code).sample(range(6), 2)]
    titles = [(name("en", topic), name(code, topic)) for code, topic in chosen for name in (title, ending)]
    found = {
        "omai-research/parallel_mmarco_passage": in_subsets({
            name: [{"id": number, **row} for number, row in enumerate(pair_rows(pairs))]
            for name, pairs in passages.items()
        }),
        "omai-research/parallel_mmarco_query": in_subsets({
            name: [{"id": str(number), **row} for number, row in enumerate(pair_rows(pairs))]
            for name, pairs in queries.items()
        }),
        "sentence-transformers/parallel-sentences-wikititles": one_table(pair_rows(titles)),
        "sentence-transformers/parallel-sentences-ccmatrix": in_subsets({
            f"en-{language}": pair_rows(
                zip(ENGLISH_GREETINGS, GREETINGS[language], strict=True)
                if language in GREETINGS
                else translated("ccmatrix", language, 2)
            )
            for language in CCMATRIX
        }),
        "omai-research/finetranslation-edu": one_table(pair_rows(
            (passage("en", topics), passage(language, topics))
            for language in ALL
            for topics in [tuple(Random(f"edu {language}").sample(range(6), 5))]
        )),
    }  # fmt: skip
    for name in MIXED:
        alone = {f"en-{language}": pair_rows(translated(name, language, 3)) for language in ("de", "es")}
        found[f"sentence-transformers/parallel-sentences-{name}"] = in_subsets({"all": mixed_rows(name), **alone})
    return found


# Triples


def triple_rows(dataset: str, languages: Iterable[str], count: int) -> Rows:
    """Queries with a document or two that answer them, and others that don't: every fourth has only three of those."""
    rows = []
    for language in languages:
        chance = Random(f"{dataset} {language}")
        for number in range(count):
            topic = chance.randrange(6)
            right = [pair for pair in PAIRS if pair[0] == topic]
            wrong = [pair for pair in PAIRS if topic not in pair]
            positives = chance.sample(right, 1 + number % 2)
            negatives = chance.sample(wrong, 3 if number % 4 == 0 else 12)
            rows.append({
                "query": joined(language, [questions(language)[topic], questions(language)[(topic + 1) % 6]]),
                "pos": [passage(language, pair) for pair in positives],
                "neg": [passage(language, pair) for pair in negatives],
                "pos_scores": [round(chance.uniform(5, 11), 4) for _ in positives],
                "neg_scores": [round(chance.uniform(-10, 5), 4) for _ in negatives],
            })  # fmt: skip
    Random(dataset).shuffle(rows)
    return rows


def triple_tables() -> dict[str, Files]:
    asked = [language for language in TEXTS if questions(language)]
    return {
        "omai-research/bge-multilingual-distillation-dataset": one_table(triple_rows("bge", asked, 4)),
        "omai-research/bge-retrieval-distillation-qwen3-4b": one_table(triple_rows("qwen", asked, 4)),
    }


# Test collections


@dataclass
class Part:
    """One subset and split of a task, as rows of its three tables."""

    corpus: Rows
    queries: Rows
    qrels: Rows


def ids(task: str, count: int) -> tuple[list[str], list[str]]:
    """Ids of queries and of documents, in the form that a task has."""
    digest = sha1(task.encode()).hexdigest()
    numbers = range(count)
    match task:
        case "MIRACLRetrieval" | "MIRACLRetrievalHardNegatives":
            return [str(29 * n) for n in numbers], [f"{151236 + n // 2}#{n % 2}" for n in numbers]
        case "MKQARetrieval":
            return [f"-{563682898843 + n}" for n in numbers], [f"{-9166 - n}" for n in numbers]
        case "MultiLongDocRetrieval":
            return [f"q-{n}" for n in numbers], [f"doc-{9633 + n}" for n in numbers]
        case "NeuCLIR2022Retrieval" | "NeuCLIR2023Retrieval":
            return [str(n) for n in numbers], [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{task} {n}")) for n in numbers]
        case "ClimateFEVER" | "FEVER" | "FEVERHardNegatives":
            return [str(137334 + n) for n in numbers], [f"Soul_Food_-LRB-film,_{n}-RRB-" for n in numbers]
        case "DBPedia":
            return [f"INEX_LD-{2012300 + n}" for n in numbers], [f"<dbpedia:Animalia_(book)_{n}>" for n in numbers]
        case "HotpotQA":
            return [digest[n : n + 24] for n in numbers], [str(12 + n) for n in numbers]
        case "NFCorpus":
            return [f"PLAIN-{n}" for n in numbers], [f"MED-{10 + n}" for n in numbers]
        case "NQ":
            return [f"test{n}" for n in numbers], [f"doc{n}" for n in numbers]
        case "SCIDOCS":
            return [digest[n:20] for n in numbers], [digest[n:30] for n in numbers]
        case "TRECCOVID":
            return [str(1 + n) for n in numbers], [f"ug7v8{n:02}j" for n in numbers]
        case "Touche2020Retrieval.v3":
            return [str(1 + n) for n in numbers], [f"c67482ba-2019-04-18T13:32:05Z-{n:05}-000" for n in numbers]
        case _:
            return [str(100 + n) for n in numbers], [str(5000 + n) for n in numbers]


def title(language: str, topic: int) -> str:
    """The first words of an answer."""
    words = answers(language)[topic].split()
    return " ".join(words[:2]) if len(words) > 2 else words[0][:4]


def ending(language: str, topic: int) -> str:
    """The last words of an answer, which no document has for its title."""
    words = answers(language)[topic].split()
    return " ".join(words[-2:]) if len(words) > 2 else words[-1][-5:]


def collection(task: str, asked: str, read: str, documents: int = 8, queries: int = 4) -> Part:
    """Questions in one language and documents in another; those that begin with the answer are relevant."""
    chance = Random(f"{task} {read}")
    first = [TRIPLES[20 * topic + chance.randrange(20)] for topic in range(6)]
    topics = [*first, *chance.sample(sorted({*TRIPLES} - {*first}), documents - 6)]
    query_ids, document_ids = ids(task, documents)
    corpus = [
        {"id": name, "title": title(read, triple[0]), "text": passage(read, triple)}
        for name, triple in zip(document_ids, topics, strict=True)
    ]
    wanted = chance.sample(range(6), queries)
    texts = [{"id": query_ids[n], "text": questions(asked)[topic]} for n, topic in enumerate(wanted)]
    qrels = [
        {"query-id": query_ids[n], "corpus-id": name, "score": 1 if triple[0] == topic else 0}
        for n, topic in enumerate(wanted)
        for name, triple in zip(document_ids, topics, strict=True)
        if topic in triple
    ]
    return Part(corpus, texts, qrels)


SUBSETS = {"zh_cn": "zh", "zh_hk": "zh-Hant", "zh_tw": "zh-Hant", "fas": "fa", "rus": "ru", "zho": "zh"}


def in_language(task: str, language: str) -> Part:
    """A task of several languages in one of them."""
    if task.startswith("NeuCLIR"):  # English questions, graded judgements
        part = collection(task, "en", language)
        for row in part.qrels:
            row["score"] *= 3
        return part
    if task == "MKQARetrieval":  # documents are answers, without a title; each is asked for
        part = collection(task, language, language, queries=6)
        for number, row in enumerate(part.corpus):
            del row["title"]
            row["text"] = answers(language)[number] if number < 6 else row["text"]
        relevant = {answers(language)[topic]: topic for topic in range(6)}
        names = {relevant[row["text"]]: row["id"] for row in part.corpus if row["text"] in relevant}
        topics = {row["id"]: questions(language).index(row["text"]) for row in part.queries}
        part.qrels = [{"query-id": q, "corpus-id": names[topic], "score": 1} for q, topic in topics.items()]
        return part
    part = collection("MIRACLRetrieval" if "MIRACL" in task else task, language, language)
    if task == "MultiLongDocRetrieval":  # two documents of several chunks of 512 tokens
        for row in part.corpus:
            del row["title"]
        for row in part.corpus[:2]:
            order = Random(row["text"]).sample(answers(language), 6)
            longer = islice(cycle(order), 3600 // min(map(len, order)))
            row["text"] = joined(language, [row["text"], *longer])[:3600]
    return part


LIKES = ["Quokkas", "Apples", "Slide Rules", "Fountain Pens", "Rye Bread", "Night Trains", "River Walks"]
PEOPLE = [
    "Geneva Durben",
    "Alida Marlin",
    "Ovid Rahm",
    "Brandy Wade",
    "Jean-Luc D'Arcy",
    "Mary  Ann Lee",
    "Óscar Núñez",
]


def limit() -> Part:
    """LIMIT: people's names are the ids of documents, white space included; a query has two of them."""
    corpus = [
        {"_id": name, "title": "", "text": f"{name} likes {LIKES[n]}, {LIKES[n - 1]} and {LIKES[n - 3]}."}
        for n, name in enumerate(PEOPLE)
    ]
    queries = [{"_id": f"query_{n}", "text": f"Who likes {LIKES[n]}?"} for n in range(4)]
    qrels = [
        {"query-id": f"query_{n}", "corpus-id": PEOPLE[(n + step) % len(PEOPLE)], "score": 1}
        for n in range(4)
        for step in (0, 1)
    ]
    return Part(corpus, queries, qrels)


def arguana() -> Part:
    """ArguAna: a query is a document of the corpus and has its id; what is wanted is its counterpart."""
    part = collection("ArguAna", "en", "en")
    names = [f"test-environment-aeghhgwpe-pro{n // 2:02}{'ab'[n % 2]}" for n in range(len(part.corpus))]
    for row, name in zip(part.corpus, names, strict=True):
        row["id"] = name
    part.queries = [{"id": row["id"], "text": row["text"]} for row in part.corpus[::2]]
    part.qrels = [
        {"query-id": one, "corpus-id": two, "score": 1} for one, two in zip(names[::2], names[1::2], strict=True)
    ]
    return part


def msmarco() -> Part:
    """MSMARCO: its documents are the English side of mMARCO's passages; a few of them are judged relevant."""
    part = collection("MSMARCO", "en", "en")
    passages = sorted({english for language in MMARCO for english, _ in mmarco_passages(language)})
    names = {text: str(7067032 + n) for n, text in enumerate(passages)}
    part.corpus += [{"id": name, "title": "", "text": text} for text, name in names.items()]
    for row, text in zip(part.queries, passages[:2], strict=False):
        part.qrels.append({"query-id": row["id"], "corpus-id": names[text], "score": 1})
    return part


def english(task: str) -> Part:
    match task:
        case "LIMITRetrieval":
            return limit()
        case "ArguAna":
            return arguana()
        case "MSMARCO":
            return msmarco()
    part = collection(task, "en", "en")
    query = part.queries[0]["id"]
    if task == "ClimateFEVER":  # a relevant document that is nowhere
        part.qrels.append({"query-id": query, "corpus-id": "Mild_Winter_-LRB-gone-RRB-", "score": 1})
    if task == "NFCorpus":  # a judged query that is nowhere
        part.qrels.append({"query-id": "PLAIN-9999", "corpus-id": part.corpus[0]["id"], "score": 2})
    if task in AWKWARD:
        part.queries[0]["text"] = AWKWARD[task][0]
    return part


def scifact_leak() -> Pair:
    """The text of a relevant document of SciFact, without its title."""
    part = english("SciFact")
    (name,) = {row["corpus-id"] for row in part.qrels if row["query-id"] == part.queries[0]["id"] and row["score"]}
    (text,) = (row["text"] for row in part.corpus if row["id"] == name)
    (order,) = (triple for triple in TRIPLES if passage("en", triple) == text)
    return text, passage("de", order)


LEAKS["wikimatrix"] = [scifact_leak()]


def as_parquet(parts: dict[tuple[str, str], Part]) -> Files:
    """Tables as mteb uploads them. Keys are subset and split; the subset `default` has no name."""
    files, configs = {}, {}
    for (subset, split), part in parts.items():
        prefix, qrels = (f"{subset}-", f"{subset}-qrels") if subset != "default" else ("", "default")
        tables = {f"{prefix}corpus": part.corpus, f"{prefix}queries": part.queries, qrels: part.qrels}
        for config, rows in tables.items():
            folder = "data" if config == "default" else config
            files[f"{folder}/{split}-00000-of-00001.parquet"] = parquet(rows)
            configs.setdefault(config, {})[split] = f"{folder}/{split}-*"
    return {"README.md": card(configs), **files}


def as_jsonl(part: Part, split: str, folder: str = "qrels/") -> Files:
    """Files as BEIR's were uploaded: the columns are `_id`, and scores are fractions."""
    for row in [*part.corpus, *part.queries]:
        row["_id"] = row.pop("id") if "id" in row else row["_id"]
    qrels = f"{folder}{split}.jsonl"
    configs = {
        "default": {split: qrels},
        "corpus": {"corpus": "corpus.jsonl"},
        "queries": {"queries": "queries.jsonl"},
    }
    scores = [{**row, "score": float(row["score"])} for row in part.qrels]
    tables = {qrels: scores, "corpus.jsonl": part.corpus, "queries.jsonl": part.queries}
    return {"README.md": card(configs), **{path: jsonl(rows) for path, rows in tables.items()}}


def task_files(task: Any) -> Files:
    """The repository of a task of mteb, with all subsets and splits that mteb evaluates."""
    name, splits = task.metadata.name, task.metadata.eval_splits
    if task.metadata.is_multilingual:
        return as_parquet({
            (subset, split): in_language(name, SUBSETS.get(subset, subset))
            for subset in task.metadata.hf_subsets
            for split in splits
        })  # fmt: skip
    if name == "LIMITRetrieval":
        files = as_jsonl(limit(), "test", folder="")
        return {path.replace("test.jsonl", "qrels.jsonl"): content for path, content in files.items()} | {
            "README.md": files["README.md"].replace(b"test.jsonl", b"qrels.jsonl")
        }
    if task.metadata.dataset["path"] in ("mteb/CQADupstackAndroidRetrieval", "mteb/webis-touche2020-v3"):
        return as_parquet({("default", split): english(name) for split in splits})
    (split,) = splits
    return as_jsonl(english(name), split)


TASKS = [
    "MIRACLRetrieval", "MIRACLRetrievalHardNegatives", "MKQARetrieval", "MultiLongDocRetrieval",
    "NeuCLIR2022Retrieval", "NeuCLIR2023Retrieval", "LIMITRetrieval", "XQuADRetrieval",
    "ArguAna", "ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ",
    "QuoraRetrieval", "SCIDOCS", "SciFact", "TRECCOVID", "Touche2020Retrieval.v3",
    *(f"CQADupstack{part}Retrieval" for part in (
        "Android", "English", "Gaming", "Gis", "Mathematica", "Physics", "Programmers", "Stats", "Tex", "Unix",
        "Webmasters", "Wordpress",
    )),
]  # fmt: skip


def fill(hub: Hub) -> None:
    """Put every stand-in onto a hub."""
    for name, files in {**parallel_tables(), **triple_tables()}.items():
        commit(hub, f"datasets/{name}", files)
    for name in TASKS:
        task = mteb.get_task(name)
        commit(hub, f"datasets/{task.metadata.dataset['path']}", task_files(task), task.metadata.dataset["revision"])
    models = {
        "BAAI/bge-m3-unsupervised": tiny_models.unsupervised_encoder(),
        "FacebookAI/xlm-roberta-large": tiny_models.language_model(),
        "intfloat/multilingual-e5-large": tiny_models.sentence_encoder(),
        "naver/splade-v3": tiny_models.teacher(),
    }
    for name, files in models.items():
        commit(hub, f"models/{name}", files)
    hub.repositories["models/naver/splade-v3"].readers = {TOKEN}

"""Build all text from the sources: parallel text, training items, test collections.

What it writes into its output folder:

    english.parquet       english: every English training text once; its row number is its english_id
    parallel.parquet      english_id, non_english, language: the pairs of Stage 1, the translations of a text together,
                          texts with few of them first
    items.parquet         item, language, title, description: known items to distil on
    held_out.parquet      digest: of every string that must not be trained on, see milco/data/held_out.py
    statistics.json       for each dataset the kept pairs, the dropped pairs by reason, and warnings if one reason
                          dropped most of a language; also (size, count) of the families: pairs that share an English
                          text. If a language has no pair, only this file is kept: OUTPUT.statistics.json, beside the
                          folder

Collections are written to another folder, so a new collection does not change the training text:

    collections/{dev,test}/{name}/   corpus.jsonl, queries.jsonl, qrels/{dev,test}.tsv (BEIR layout), collection.json
    warnings.json                    warnings about collections

Run by the rules `corpora`, `collections` (test) and `development`:
    python -m milco.stages corpora --config FILE --source NAME=PATH … --output FOLDER
    python -m milco.stages collections --config FILE --source NAME=PATH … [--encoder FOLDER] --output FOLDER
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from milco.config import Config, Source
from milco.content import sample_of
from milco.data import gettext, home_assistant, mteb_tasks, text
from milco.data.beir import Collection, Documents, read_about, stream_collection, write_collection
from milco.data.held_out import HeldOut, strings_of
from milco.data.pairs import Pair, write_pairs
from milco.data.reading import Broken
from milco.data.tables import PAIR_COLUMNS, read_batches
from milco.environment import made_with
from milco.errors import MilcoError, about_source
from milco.experiments import Experiment
from milco.files import finished_folder, write_json
from milco.languages import SEVERAL, normal
from milco.modeling.checkpoints import load

STAGED = ".staged"  # clean pairs that are not yet in order
KEPT, OTHER, HELD_OUT, BROKEN = "kept", "other language", "held out", "broken"
MANY_LANGUAGES = 1000  # unwanted ones that are counted by name; a column with more holds something else


def parallel_pairs(
    candidates: Iterable[Pair], languages: set[str], forbidden: HeldOut, counts: Counter, cleaning: str
) -> Iterator[Pair]:
    """Turn (English, other, language) candidates into clean training pairs, and count kept and dropped ones.

    Args:
        languages: languages to keep.
        forbidden: strings that must not be trained on, on either side.
        counts: is filled: (language, why a candidate was dropped, or `kept`) → how many.
        cleaning: what is done to both sides, as `text.prepared` has it.
    """
    for english, other, tag in candidates:
        language = normal(tag)
        if language not in languages:
            listed = (language, OTHER) in counts or len(counts) < MANY_LANGUAGES
            counts[language if listed else "others", OTHER] += 1
            continue
        english, other, reason = text.prepared(english, other, language, cleaning)
        if reason is None and (english in forbidden or other in forbidden):
            reason = HELD_OUT
        counts[language, reason or KEPT] += 1
        if reason is None:
            yield english, other, language


def by_reason(counts: Counter) -> Counter:
    """Reason → how many pairs `parallel_pairs` dropped for it."""
    found: Counter = Counter()
    for (language, reason), count in counts.items():
        if reason != KEPT:
            found[f"{reason}: {language}" if reason == OTHER else reason] += count
    return found


def counted(numbers: Mapping[str, int]) -> str:
    """Numbers by reason as a line of text."""
    return ", ".join(f"{reason} {number:,}" for reason, number in numbers.items()) or "nothing in it"


def warnings_of(name: str, counts: Counter, read: Counter) -> list[str]:
    """One warning for each reason that drops more than half of a dataset, or of one of its languages.

    Args:
        counts: what `parallel_pairs` counted.
        read: what `write_pairs` counted of the pairs that were left.
    """
    found: list[str] = []
    totals: Counter = Counter()
    others: Counter = Counter()
    for (language, reason), count in counts.items():
        totals[language] += count
        if reason == OTHER:
            others[language] = count
    for (language, reason), count in counts.items():
        if reason not in (KEPT, OTHER, BROKEN) and 2 * count > totals[language]:
            found.append(f"{name}, {language}: {reason} takes {count:,} of {totals[language]:,} pairs")
    if 2 * others.total() > totals.total():
        which = ", ".join(f"{language} {count:,}" for language, count in others.most_common(10))
        found.append(f"{name}: {OTHER} takes {others.total():,} of {totals.total():,} pairs ({which})")
    if 2 * read["duplicate"] > read.total():
        found.append(f"{name}: duplicate takes {read['duplicate']:,} of {read.total():,} pairs")
    return found


def _without_a_pair(language: str, counts: dict[str, Counter]) -> str:
    """Text of an error: a language without a pair in any dataset, and the reasons for its dropped candidates."""
    lost = []
    for name, found in counts.items():
        mine = {  # zh-CN is not zh, but whoever wants one will want to know of the other
            tag: number for tag, number in found.items() if tag[0].partition("-")[0] == language.partition("-")[0]
        }
        lost += [f"{name}: {reason} {number:,}" for reason, number in by_reason(Counter(mine)).most_common()]
    return f"{language} ({', '.join(lost)})" if lost else language


def build(config: Config, sources: dict[str, Path], output: Path) -> None:
    """Write the training text of a configuration (see the module's docstring) into the folder `output`. Clean pairs of
    an earlier run with the same settings and sources are reused."""
    inputs = {name: sample_of(path) for name, path in sources.items()}
    aside = output.with_name(f"{output.name}.statistics.json")
    with finished_folder(output, [Experiment(config).corpora.key, inputs, made_with()]) as folder:
        if not (folder / "statistics.json").exists():  # written last
            _build(config, sources, folder, aside)
    aside.unlink(missing_ok=True)
    shutil.rmtree(output / STAGED, ignore_errors=True)


def build_collections(
    config: Config, sources: dict[str, Path], split: str, output: Path, encoder: Path | None = None
) -> None:
    """Write the collections of a split (`dev` or `test`) into the folder `output`.

    Args:
        encoder: checkpoint of the multilingual encoder, whose tokens are counted where documents are cut into chunks.
    """
    with finished_folder(output) as made:
        folder = made / "collections" / split
        folder.mkdir(parents=True)
        warnings: list[str] = []
        before: Collection | None = None
        for collection in _collections(config, sources, _items(config, sources), split, encoder):
            if folder.joinpath(collection.name).exists():
                raise MilcoError(f"two collections have the name {collection.name}; rename one of their sources")
            shared = before is not None and before.documents is collection.documents
            same = folder / before.name if before and shared else None
            source = collection.about["source"]
            with about_source(source, sources[source]):  # a user's documents are read only now
                write_collection(collection, folder / collection.name, split, same)
            warnings += collection.warnings  # complete when its documents have been read
            before = collection
        for line in warnings:
            print(f"warning: {line}")
        write_json(made / "warnings.json", warnings)


def _items(config: Config, sources: dict[str, Path]) -> pd.DataFrame:
    """Known items of the given sources, both training and held-out ones."""
    return pd.concat(
        [
            home_assistant.items(path, config.languages_of_items(), config.corpora, config.seed)
            for name, path in sources.items()
            if config.sources[name].format == "home-assistant"
        ]
        or [pd.DataFrame(columns=home_assistant.ITEM_COLUMNS)]
    )


def _build(config: Config, sources: dict[str, Path], output: Path, aside: Path) -> None:
    items = _items(config, sources)
    held = items[items.split != "train"]
    forbidden = HeldOut(chain(_strings_of_files(config, sources), held.title.dropna(), held.description.dropna()))
    forbidden.write(output)
    train = known = items[(items.split == "train") & items.language.isin(["en", *config.languages])]
    for column in ("title", "description"):
        free = [pd.isna(value) or value not in forbidden for value in train[column]]
        train = train[np.array(free, bool)]
    train = train[["item", "language", "title", "description"]]
    train.to_parquet(output / "items.parquet", index=False)
    english = train[train.language == "en"]
    languages = {*config.languages, SEVERAL}
    broken = {name: Broken(config.sources[name].broken_share()) for name in config.parallel_datasets()}

    def prepare(name: str, candidates: Iterable[Pair], counts: Counter) -> Iterator[Pair]:
        yield from parallel_pairs(candidates, languages, forbidden, counts, config.sources[name].cleans())
        if broken[name].count:
            counts["", BROKEN] = broken[name].count

    candidates = {name: _candidates(config, name, sources[name], found) for name, found in broken.items()}
    caps = {name: config.sources[name].max_pairs for name in candidates}
    texts = pd.concat([english.title, english.description]).dropna()
    statistics = write_pairs(candidates, caps, texts, config.seed, output, prepare, output / STAGED)
    counts: dict[str, Counter] = statistics.pop("counts")
    read: dict[str, Counter] = statistics["datasets"]
    datasets = {name: {KEPT: read[name][KEPT], **(read[name] + by_reason(found))} for name, found in counts.items()}
    for name, numbers in datasets.items():
        print(f"{name}: {counted(numbers)}")
    warnings = [f"{name}: {found}" for name, found in broken.items() if found.count]
    warnings += [line for name, found in counts.items() for line in warnings_of(name, found, read[name])]
    for line in warnings:
        print(f"warning: {line}")
    said = {"datasets": datasets, "warnings": warnings, "items": len(train), "items held out": len(known) - len(train)}
    there = set(statistics["pairs"]) if datasets else {*train.language}
    empty = sorted(set(config.languages) - {"en"} - there) if config.reads_targets() else []
    if empty and SEVERAL not in there:
        write_json(aside, {**statistics, **said})
        without = ", ".join(_without_a_pair(language, counts) for language in empty)
        whole = "; ".join(f"{name}: {counted(numbers)}" for name, numbers in datasets.items())
        became = f". What became of all pairs is in {aside} ({whole})" if datasets else ""
        raise MilcoError(
            f"languages: no training {'pair' if datasets else 'item'} in {without}; drop them or add a dataset{became}"
        )
    write_json(output / "statistics.json", {**statistics, **said})


def _strings_of_files(config: Config, sources: dict[str, Path]) -> Iterator[str]:
    """Strings to take out of the training text: those of collections that come as files."""
    for split in ("dev", "test"):
        for name in config.taken_out(split):
            source = config.sources[name]
            match source.format:
                case "beir":
                    which = config.corpora.decontaminate
                    with about_source(name, sources[name]):
                        yield from strings_of(sources[name], split, which, source.broken_share())
                case "mteb":
                    for folder in mteb_tasks.folders(sources[name]):
                        yield from strings_of(folder, "test", config.corpora.decontaminate)


def _candidates(config: Config, name: str, source: Path, broken: Broken) -> Iterator[Pair]:
    dataset = config.sources[name]
    found: Iterable[Pair]
    match dataset.format:
        case "home-assistant":
            found = home_assistant.pairs(source, config.languages, config.corpora, config.seed)
        case "home-assistant-frontend":
            found = home_assistant.frontend_pairs(source, config.languages)
        case "gettext":
            found = gettext.pairs(source, config.languages, dataset.language)
        case _:
            tables = read_batches(source, dataset, name, PAIR_COLUMNS, broken)
            # a missing value is dropped like an empty text
            found = chain.from_iterable(table.fillna("").itertuples(index=False, name=None) for table in tables)
    with about_source(name, source):
        yield from tqdm(found, desc=name, unit="pair", mininterval=2)


def _collections(
    config: Config, sources: dict[str, Path], items: pd.DataFrame, split: str, encoder: Path | None
) -> Iterator[Collection]:
    """The collections of a split: those made of known items, those of mteb and the user's own."""
    for name in config.evaluate.test_collections if split == "test" else config.evaluate.development_collections:
        source = config.sources[name]
        match source.format:
            case "beir":
                with about_source(name, sources[name]):
                    found = iter([_own_collection(name, source, sources[name], split)])
            case "mteb":
                found = mteb_tasks.read_task(name, source, sources[name])
            case _:
                found = home_assistant.collections(items, split, config.eval_languages, config.corpora)
        if source.lowercase_queries or source.lowercase_documents:
            found = in_lower_case(found, source.lowercase_queries, source.lowercase_documents)
        if source.chunk_tokens:
            found = in_chunks(found, encoder, source.chunk_tokens, config.trusts("dense"))
        for collection in found:
            collection.about["source"] = name
            yield collection


def _own_collection(name: str, source: Source, folder: Path, split: str) -> Collection:
    about: dict[str, Any] = {"query_language": source.language, "document_language": source.document_language}
    if source.ignore_identical_ids or read_about(folder).get("ignore_identical_ids"):
        about["ignore_identical_ids"] = True
    ignore = "ignore_identical_ids" in about
    found = stream_collection(folder, split, source.broken_share(), source.missing_judged, ignore)
    return replace(found, name=name, about=about)


def in_lower_case(collections: Iterable[Collection], queries: bool, documents: bool) -> Iterator[Collection]:
    """Convert the queries, documents or both of collections to lower case. Collections with shared documents still
    share them."""
    before, lower = None, Documents(lambda: iter(()))
    for collection in collections:
        if queries:
            asked = {name: text.lower() for name, text in collection.queries.items()}
            collection = replace(collection, queries=asked)
        if documents:
            if collection.documents is not before:
                before = collection.documents
                lower = _each(before, lambda name, text: [(name, text.lower())])
            collection = replace(collection, documents=lower)
        yield collection


def _each(documents: Mapping[str, str], make: Callable[[str, str], Iterable[tuple[str, str]]]) -> Documents:
    """Apply `make` to each document; every iteration computes it again."""
    return Documents(lambda: (made for name, text in documents.items() for made in make(name, text)))


def in_chunks(
    collections: Iterable[Collection], encoder: Path | None, size: int, trust: bool = False
) -> Iterator[Collection]:
    """Collections whose documents are chunks of `size` tokens, special tokens included; no text is lost. `trust`: the
    code of the encoder's tokenizer may be run.

    A chunk may begin inside a word. Its first token can then change, so a chunk may have one token more than `size`.
    """
    from transformers import AutoTokenizer

    tokenizer = load(AutoTokenizer, str(encoder), trust)
    own = size - tokenizer.num_special_tokens_to_add()

    def cut(name: str, text: str) -> Iterator[tuple[str, str]]:
        return ((f"{name}#{number}", chunk) for number, chunk in enumerate(_cut(tokenizer, text, own)))

    before, chunks = None, Documents(lambda: iter(()))
    for collection in collections:
        if collection.documents is not before:
            before = collection.documents
            chunks = _each(before, cut)
        yield replace(collection, documents=chunks, about={**collection.about, "chunked": True})


def _cut(tokenizer, document: str, size: int) -> list[str]:
    """A text in pieces of so many tokens; a text without any token is one piece."""
    spans = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    starts = [0, *(start for start, _ in spans[size::size]), len(document)]
    return [document[start:end].strip() for start, end in pairwise(starts)]

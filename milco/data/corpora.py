"""Text of all three kinds, from sources to files: parallel text, training items, test collections.

What it writes into its output folder:

    english.parquet       english: every English training text once; its row number is its english_id
    parallel.parquet      english_id, non_english, language: the pairs of Stage 1, the translations of a text together,
                          texts with few of them first
    items.parquet         item, language, title, description: known items to distil on
    collections/{dev,test}/{name}/   corpus.jsonl, queries.jsonl, qrels/{dev,test}.tsv (BEIR layout), collection.json
    statistics.json       how many pairs each dataset gave, why others were dropped, and (size, how many) of the
                          families: pairs that share an English text

Run by rule `corpora`:
    python -m milco.stages corpora --config FILE --source NAME=PATH … [--encoder FOLDER] --output FOLDER
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice, pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from milco.config import Config, Source
from milco.data import home_assistant, mteb_tasks, text
from milco.data.beir import Collection, numbered_lines, read_collection, read_jsonl, write_collection
from milco.data.pairs import Pair, write_pairs
from milco.data.shards import ROWS
from milco.errors import MilcoError
from milco.files import finished_folder, write_json
from milco.modeling.checkpoints import load

PAIR_COLUMNS = ["english", "non_english", "language"]
TEXT_COLUMNS = [*PAIR_COLUMNS, "query"]
TRIPLE_COLUMNS = ["query", "pos", "neg", "pos_scores", "neg_scores"]


def read_batches(folder: Path, dataset: Source, name: str, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Read a user's table (Parquet, JSONL, TSV; a file or a folder of files) with the given columns, some rows at a
    time.

    `dataset.columns` renames the file's own columns; a TSV without a header holds English, tab, other language.
    A column `language` may be missing if the dataset has one language, named by `dataset.language`, or if each of its
    subfolders has one, named by `dataset.subsets`.

    Raises:
        MilcoError: there is no table, or one is not what it should be (the message has its line or row).
    """
    if not folder.exists():
        raise MilcoError(f"sources.{name}: {folder} does not exist")
    readers = {
        ".parquet": _read_parquet,
        ".jsonl": _read_jsonl,
        ".tsv": lambda path: _read_tsv(path, has_header=bool(dataset.columns)),
    }
    files: dict[Path, str | None] = {}
    parts: dict[str, str | None] = {**dataset.subsets} or {"": dataset.language}
    for subset, language in parts.items():
        part = folder / subset
        found = sorted(path for path in (part.rglob("*") if part.is_dir() else [part]) if path.suffix in readers)
        if not found:
            raise MilcoError(f"sources.{name}: no .parquet, .jsonl or .tsv file in {part}")
        files |= dict.fromkeys(found, language)
    for path, language in files.items():
        before = 0
        for table in readers[path.suffix](path):
            table = table.rename(columns={old: new for new, old in dataset.columns.items()})
            if language and "language" not in table:
                table["language"] = language
            missing = [column for column in columns if column not in table]
            if missing:
                hint = (
                    f"set sources.{name}.language" if missing == ["language"] else f"map it in sources.{name}.columns"
                )
                raise MilcoError(f"{path}: column {missing[0]!r} is missing (there are: {', '.join(table)}); {hint}")
            _check_values(path, before, table[columns])
            yield table[columns]
            before += len(table)


def _check_values(path: Path, before: int, table: pd.DataFrame) -> None:
    """Whether no cell is empty, and texts are texts.

    Args:
        before: rows of the file before those of the table.
    """
    holes = table.isna().any(axis=1)
    if holes.any():
        row = int(holes.to_numpy().argmax())
        empty = next(column for column in table if pd.isna(table[column].iloc[row]) is True)
        raise MilcoError(f"{path}: row {before + row + 1} has no value in column {empty!r}")
    for column in table.columns.intersection(TEXT_COLUMNS):
        for row, value in enumerate(table[column], before + 1):
            if not isinstance(value, str):
                raise MilcoError(f"{path}: row {row}: the value in column {column!r} is no text ({value!r:.80})")


def _read_parquet(path: Path) -> Iterator[pd.DataFrame]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # else all of it stays in memory until its end
            yield file.schema_arrow.empty_table().to_pandas()  # its columns are looked at even if it has no row
            for batch in file.iter_batches(ROWS):
                yield batch.to_pandas()
    except Exception as error:  # pyarrow raises several kinds for a broken file
        raise MilcoError(f"{path}: not a complete Parquet file ({error})") from error


def _read_jsonl(path: Path) -> Iterator[pd.DataFrame]:
    rows = read_jsonl(path, [])
    table = pd.DataFrame(list(islice(rows, ROWS)))
    yield table
    while part := list(islice(rows, ROWS)):  # a key that none of them has is a hole in the column, as before
        yield pd.DataFrame(part, columns=list(dict.fromkeys(chain(table, *part))))


def _read_tsv(path: Path, has_header: bool) -> Iterator[pd.DataFrame]:
    """Fields of a TSV, in which quotation marks are text. It has a header if the user maps columns or if it names
    ours."""
    lines = ((number, line.split("\t")) for number, line in numbered_lines(path))
    _, first = next(lines, (0, PAIR_COLUMNS[:2]))
    has_header = has_header or set(PAIR_COLUMNS[:2]) <= set(first)
    header = first if has_header else PAIR_COLUMNS[: len(first)]
    rows = _of_width(path, len(header), lines if has_header else chain([(1, first)], lines))
    yield pd.DataFrame(columns=header)
    while part := list(islice(rows, ROWS)):
        yield pd.DataFrame(part, columns=header)


def _of_width(path: Path, width: int, lines: Iterable[tuple[int, list[str]]]) -> Iterator[list[str]]:
    for number, row in lines:
        if len(row) != width:
            raise MilcoError(f"{path}:{number}: {len(row)} tab-separated fields, expected {width}")
        yield row


def parallel_pairs(
    candidates: Iterable[Pair], languages: set[str], held_out: set[str], dropped: Counter
) -> Iterator[Pair]:
    """Clean (English, other, language) candidates into training pairs, and count what was dropped and why.

    Args:
        languages: languages to keep.
        held_out: comparable forms of strings that must not be trained on, on either side.
    """
    for english, other, language in candidates:
        if language not in languages:
            continue
        reason = text.rejection(english, other, language)
        pair = (text.clean(english), text.clean(other), language)
        if reason is None and (text.comparable(pair[0]) in held_out or text.comparable(pair[1]) in held_out):
            reason = "held out"
        if reason:
            dropped[reason] += 1
        else:
            yield pair


def build(config: Config, sources: dict[str, Path], output: Path, encoder: Path | None = None) -> None:
    """Write every text artifact of a configuration (see the module's docstring) into the folder `output`.

    Args:
        encoder: checkpoint of the multilingual encoder, whose tokens are counted where documents are cut into chunks.
    """
    with finished_folder(output) as folder:
        _build(config, sources, folder, encoder)


def _build(config: Config, sources: dict[str, Path], output: Path, encoder: Path | None) -> None:
    items = pd.concat(
        [
            home_assistant.items(sources[name], config.languages, config.corpora, config.seed)
            for name in config.used_datasets()
            if config.sources[name].format == "home-assistant"
        ]
        or [pd.DataFrame(columns=home_assistant.ITEM_COLUMNS)]
    )
    held_out: set[str] = set()
    for split in ("dev", "test"):
        before: Collection | None = None
        for collection in _collections(config, sources, items, split, encoder):
            held_out |= collection.texts()
            folder = output / "collections" / split
            if folder.joinpath(collection.name).exists():
                raise MilcoError(f"two collections have the name {collection.name}; rename one of their sources")
            shared = before is not None and before.documents is collection.documents
            same = folder / before.name if before and shared else None
            write_collection(collection, folder / collection.name, split, same)
            before = collection
    held_out |= {
        text.comparable(value)
        for column in ("title", "description")
        for value in items.loc[items.split != "train", column].dropna()
    }
    train = items[items.split == "train"]
    for column in ("title", "description"):
        train = train[~train[column].map(text.comparable, na_action="ignore").isin(held_out)]
    train = train[["item", "language", "title", "description"]]
    train.to_parquet(output / "items.parquet", index=False)
    english = train[train.language == "en"]
    dropped: dict[str, Counter] = {name: Counter() for name in config.align.train_datasets}
    languages = {*config.languages, "mul"}
    pairs = {
        name: parallel_pairs(_candidates(config, name, sources[name]), languages, held_out, reasons)
        for name, reasons in dropped.items()
    }
    caps = {name: config.sources[name].max_pairs for name in pairs}
    statistics = write_pairs(pairs, caps, pd.concat([english.title, english.description]).dropna(), config.seed, output)
    empty = sorted(set(config.languages) - {"en"} - set(statistics["pairs"]))
    if empty and "mul" not in statistics["pairs"]:
        raise MilcoError(f"languages: no training pair in {', '.join(empty)}; drop them or add a dataset")
    datasets = {name: dict(statistics["datasets"][name] + reasons) for name, reasons in dropped.items()}
    write_json(output / "statistics.json", {**statistics, "datasets": datasets, "items": len(train)})


def _candidates(config: Config, name: str, source: Path) -> Iterator[Pair]:
    dataset = config.sources[name]
    found: Iterable[Pair]
    match dataset.format:
        case "home-assistant":
            found = home_assistant.pairs(source, config.languages, config.corpora, config.seed)
        case "home-assistant-frontend":
            found = home_assistant.frontend_pairs(source, config.languages)
        case _:
            tables = read_batches(source, dataset, name, PAIR_COLUMNS)
            found = chain.from_iterable(table.itertuples(index=False, name=None) for table in tables)
    yield from tqdm(found, desc=name, unit="pair", mininterval=2)


def _collections(
    config: Config, sources: dict[str, Path], items: pd.DataFrame, split: str, encoder: Path | None
) -> Iterator[Collection]:
    """The collections of a split: those made of known items, those of mteb and the user's own."""
    for name in config.evaluate.test_collections if split == "test" else config.evaluate.development_collections:
        source = config.sources[name]
        match source.format:
            case "beir":
                about = {"query_language": source.language, "document_language": source.document_language}
                found = iter([replace(read_collection(sources[name], split), name=name, about=about)])
            case "mteb":
                found = mteb_tasks.read_task(name, source, sources[name])
            case _:
                found = home_assistant.collections(items, split, config.eval_languages, config.corpora)
        if source.chunk_tokens:
            found = in_chunks(found, encoder, source.chunk_tokens, config.trusts("dense"))
        for collection in found:
            collection.about["source"] = name
            if source.lowercase_queries:
                collection.queries = {query: asked.lower() for query, asked in collection.queries.items()}
            yield collection


def in_chunks(
    collections: Iterable[Collection], encoder: Path | None, size: int, trust: bool = False
) -> Iterator[Collection]:
    """Collections with chunks of `size` tokens, special tokens included, for documents; nothing of a text is lost.
    `trust`: the code of the encoder's tokenizer may be run.

    A chunk may begin within a word, which then has another first token: now and then a chunk has one token more.
    """
    from transformers import AutoTokenizer

    tokenizer = load(AutoTokenizer, str(encoder), trust)
    own = size - tokenizer.num_special_tokens_to_add()
    before, chunks = None, {}
    for collection in collections:
        if collection.documents is not before:
            before = collection.documents
            chunks = {
                f"{name}#{number}": chunk
                for name, document in tqdm(before.items(), desc=f"chunks of {collection.name}", mininterval=2)
                for number, chunk in enumerate(_cut(tokenizer, document, own))
            }
        yield replace(collection, documents=chunks, about={**collection.about, "chunked": True})


def _cut(tokenizer, document: str, size: int) -> list[str]:
    """A text in pieces of so many tokens; a text without any token is one piece."""
    spans = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    starts = [0, *(start for start, _ in spans[size::size]), len(document)]
    return [document[start:end].strip() for start, end in pairwise(starts)]

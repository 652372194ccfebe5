"""Text of all three kinds, from sources to files: parallel text, training items, test collections.

What it writes into its output folder:

    english.parquet       english: every English training text once; its row number is its english_id
    parallel.parquet      english_id, non_english, language: the pairs of Stage 1, the translations of a text together,
                          texts with few of them first
    items.parquet         item, language, title, description: known items to distil on
    collections/{dev,test}/{name}/   corpus.jsonl, queries.jsonl, qrels/{dev,test}.tsv (BEIR layout), collection.json
    statistics.json       how many pairs each dataset gave, why others were dropped, and (size, how many) of the
                          families: pairs that share an English text

Run by rule `corpora`:  python -m milco corpora --config FILE --source NAME=PATH … [--encoder FOLDER] --output FOLDER
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from milco import home_assistant, mteb_tasks, text
from milco.beir import Collection, numbered_lines, read_collection, read_jsonl, write_collection
from milco.checkpoints import load
from milco.config import Config, Source
from milco.errors import MilcoError
from milco.files import finished_folder, write_json
from milco.shards import write_parquet

PAIR_COLUMNS = ["english", "non_english", "language"]
TEXT_COLUMNS = [*PAIR_COLUMNS, "query"]
TRIPLE_COLUMNS = ["query", "pos", "neg", "pos_scores", "neg_scores"]


def read_table(folder: Path, dataset: Source, name: str, columns: list[str]) -> pd.DataFrame:
    """Read a user's table (Parquet, JSONL, TSV; a file or a folder of files) with the given columns.

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
    tables = []
    for path, language in files.items():
        table = readers[path.suffix](path).rename(columns={old: new for new, old in dataset.columns.items()})
        if language and "language" not in table:
            table["language"] = language
        missing = [column for column in columns if column not in table]
        if missing:
            hint = f"set sources.{name}.language" if missing == ["language"] else f"map it in sources.{name}.columns"
            raise MilcoError(f"{path}: column {missing[0]!r} is missing (there are: {', '.join(table)}); {hint}")
        holes = table[columns].isna().any(axis=1)
        if holes.any():
            row = int(holes.to_numpy().argmax())
            empty = next(column for column in columns if pd.isna(table[column].iloc[row]) is True)
            raise MilcoError(f"{path}: row {row + 1} has no value in column {empty!r}")
        _check_texts(path, table[[column for column in columns if column in TEXT_COLUMNS]])
        tables.append(table[columns])
    return pd.concat(tables, ignore_index=True)


def _check_texts(path: Path, table: pd.DataFrame) -> None:
    for column in table:
        for row, value in enumerate(table[column], 1):
            if not isinstance(value, str):
                raise MilcoError(f"{path}: row {row}: the value in column {column!r} is no text ({value!r:.80})")


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pq.read_table(path).to_pandas()
    except Exception as error:  # pyarrow raises several kinds for a broken file
        raise MilcoError(f"{path}: not a complete Parquet file ({error})") from error


def _read_jsonl(path: Path) -> pd.DataFrame:
    return pd.DataFrame(list(read_jsonl(path, [])))


def _read_tsv(path: Path, has_header: bool) -> pd.DataFrame:
    """Fields of a TSV, in which quotation marks are text. It has a header if the user maps columns or if it names
    ours."""
    rows = [line.split("\t") for _, line in numbered_lines(path)]
    first = rows[0] if rows else PAIR_COLUMNS[:2]
    has_header = has_header or set(PAIR_COLUMNS[:2]) <= set(first)
    header = first if has_header else PAIR_COLUMNS[: len(first)]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise MilcoError(f"{path}:{number}: {len(row)} tab-separated fields, expected {len(header)}")
    return pd.DataFrame(rows[1:] if has_header else rows, columns=header)


def parallel_pairs(
    candidates: Iterable[tuple[str, str, str]], languages: set[str], held_out: set[str], counts: Counter
) -> Iterator[tuple[str, str, str]]:
    """Clean (English, other, language) candidates into training pairs, and count what was dropped and why.

    Args:
        languages: languages to keep.
        held_out: comparable forms of strings that must not be trained on, on either side.
    """
    seen = set()
    for english, other, language in candidates:
        if language not in languages:
            continue
        reason = text.rejection(english, other, language)
        pair = (text.clean(english), text.clean(other), language)
        forms = (text.comparable(pair[0]), text.comparable(pair[1]), language)
        if reason is None and (forms[0] in held_out or forms[1] in held_out):
            reason = "held out"
        if reason is None and forms in seen:
            reason = "duplicate"
        counts[reason or "kept"] += 1
        if reason is None:
            seen.add(forms)
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
    statistics: dict[str, dict] = {}
    pairs: list[tuple[str, str, str]] = []
    for name in config.align.train_datasets:
        counts: Counter = Counter()
        pairs += parallel_pairs(
            tqdm(_candidates(config, name, sources[name]), desc=name, unit="pair", mininterval=2),
            {*config.languages, "mul"},
            held_out,
            counts,
        )
        statistics[name] = dict(counts)
    table = pd.DataFrame(pairs, columns=PAIR_COLUMNS).drop_duplicates(ignore_index=True)
    empty = sorted(set(config.languages) - {"en"} - set(table.language))
    if empty and "mul" not in set(table.language):
        raise MilcoError(f"languages: no training pair in {', '.join(empty)}; drop them or add a dataset")
    train = items[items.split == "train"]
    for column in ("title", "description"):
        train = train[~train[column].map(text.comparable, na_action="ignore").isin(held_out)]
    train = train[["item", "language", "title", "description"]]
    train.to_parquet(output / "items.parquet", index=False)
    english = train[train.language == "en"]
    texts = pd.concat([table.english, english.title, english.description]).dropna().drop_duplicates().sort_values()
    families = write_pairs(table, texts, output)
    write_json(
        output / "statistics.json",
        {
            "pairs": table.language.value_counts().to_dict(),
            "datasets": statistics,
            "items": len(train),
            "families": families,
        },
    )


def write_pairs(table: pd.DataFrame, texts: pd.Series, output: Path) -> list[tuple[int, int]]:
    """Write english.parquet and parallel.parquet into the folder `output`.

    Args:
        table: english, non_english, language.
        texts: every English text once, those of the table among them.

    Returns:
        (size, how many) of the families.
    """
    write_parquet(pa.table({"english": texts}), output / "english.parquet")
    table["english_id"] = table.english.map(pd.Series(np.arange(len(texts), dtype=np.uint32), index=texts))
    table["family"] = table.groupby("english_id").english_id.transform("size")
    table = table.sort_values(["family", "english_id", "language"], kind="stable")
    pairs = table[["english_id", "non_english", "language"]]
    write_parquet(pa.Table.from_pandas(pairs, preserve_index=False), output / "parallel.parquet")
    return [(int(size), len(rows) // int(size)) for size, rows in table.groupby("family")]


def _candidates(config: Config, name: str, source: Path) -> Iterable[tuple[str, str, str]]:
    dataset = config.sources[name]
    match dataset.format:
        case "home-assistant":
            return home_assistant.pairs(source, config.languages, config.corpora, config.seed)
        case "home-assistant-frontend":
            return home_assistant.frontend_pairs(source, config.languages)
        case _:
            return read_table(source, dataset, name, PAIR_COLUMNS).itertuples(index=False, name=None)


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
            found = in_chunks(found, encoder, source.chunk_tokens, config.trusts("encoder"))
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

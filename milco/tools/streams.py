"""Texts of any number to vectors and vectors to vectors: read as they come, a window at a time, written at once.

Texts come from the standard input (`-`) or a TXT, TSV, JSONL or Parquet file. Vectors are

    NAME.jsonl   a line {"id": …, "vector": {token: weight}} for each text, heaviest token first, as Anserini reads it
    a folder     part-000000.safetensors, … (vectors.py), and vocabulary.json: the token of each column

A run that was killed goes on where it was. What it had made lies in `.NAME.part`, with a digest of the model and the
texts of each window; a window of another digest is encoded anew, so nothing of an earlier input or model stays.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
import torch
from transformers import PreTrainedTokenizerBase

from milco.data.beir import json_lines, numbered_lines
from milco.data.vectors import load_vectors, pivot_columns, save_vectors
from milco.errors import MilcoError
from milco.evaluation.encode import refuse_broken
from milco.files import write_json
from milco.modeling.model import MilcoModel
from milco.modeling.pruning import budget_of, prune_mass, prune_top_k
from milco.modeling.pruning import prune as prune_to
from milco.modeling.rows import in_text_order

WINDOW = 4096  # texts that are in memory at a time; the encoder takes them in the order of their length
STDIN = Path("/dev/stdin")
IDS, TEXT = ("_id", "id", "docid"), "text"
FORMATS = {".txt": "txt", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

VOCABULARY = "vocabulary.json"

Texts = Iterator[tuple[str, str]]


def read_texts(path: Path, form: str | None = None, id_key: str | None = None, text_key: str = TEXT) -> Texts:
    """(id, text) of a file, one at a time.

    Args:
        path: `-` is the standard input.
        form: txt (a text a line, its number is its id), tsv (id, tab, text), jsonl or parquet; by default what the
            file's name says, and txt for the standard input.
        id_key: key or column of the ids; by default the first of `IDS` that is there.
        text_key: key or column of the texts; a `title` beside it is put before the text, as in BEIR.

    Raises:
        MilcoError: there is no such file, nothing in it, or a line or row is not what the form asks for.
    """
    path = STDIN if str(path) == "-" else path
    form = form or ("txt" if path == STDIN else FORMATS.get(path.suffix))
    if not path.exists() or path.is_dir():
        raise MilcoError(f"{path}: no such file")
    if form is None:
        raise MilcoError(f"{path}: unknown kind of file; name it {', '.join(FORMATS)} or say --format")
    found: Texts
    if form == "txt":
        found = ((str(number), line) for number, line in numbered_lines(path))
    elif form == "tsv":
        found = _tsv(path)
    else:
        rows = _parquet(path, id_key, text_key) if form == "parquet" else json_lines(path)
        found = (_text(row, f"{path}:{number}", id_key, text_key) for number, row in rows)
    number = 0
    for number, (identifier, text) in enumerate(found, 1):
        if not identifier or "\n" in identifier:
            raise MilcoError(f"{path}:{number}: the id {identifier!r} is empty or has more than one line")
        try:
            f"{identifier}{text}".encode()
        except UnicodeEncodeError:
            raise MilcoError(f"{path}:{number}: has half of a surrogate pair, which is no text") from None
        yield identifier, text
    if not number:
        raise MilcoError(f"{path}: empty; there is no text in it")


def _tsv(path: Path) -> Texts:
    for number, line in numbered_lines(path):
        identifier, tab, text = line.partition("\t")
        if not tab or "\t" in text:
            raise MilcoError(f"{path}:{number}: expected an id and a text, tab-separated")
        yield identifier, text


def _parquet(path: Path, id_key: str | None, text_key: str) -> Iterator[tuple[int, dict]]:
    """Rows of a Parquet file with their numbers from 1."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # else all of it stays in memory until its end
    except pa.ArrowInvalid as error:
        raise MilcoError(f"{path}: no complete Parquet file ({error})") from None
    wanted = {*([id_key] if id_key else IDS), text_key, "title"}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    batches = file.iter_batches(WINDOW, columns=columns)
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


def _text(row: dict[str, Any], where: str, id_key: str | None, text_key: str) -> tuple[str, str]:
    keys = [id_key] if id_key else IDS
    identifier = next((row[key] for key in keys if key in row), None)
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        raise MilcoError(f"{where}: no id under {' or '.join(map(repr, keys))}; say its key with --id-key")
    if not isinstance(row.get(text_key), str):
        raise MilcoError(f"{where}: no text under {text_key!r}; say its key with --text-key")
    return str(identifier), f"{row.get('title') or ''} {row[text_key]}".strip()


def count_texts(path: Path, form: str | None = None) -> int | None:
    """How many texts a file has, for the progress bar; None for a pipe."""
    if not path.is_file():
        return None
    if (form or FORMATS.get(path.suffix)) == "parquet":
        with suppress(pa.ArrowInvalid):  # `read_texts` has the words for it
            return pq.ParquetFile(path).metadata.num_rows
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def windows(items: Iterable, size: int | None = None) -> Iterator[list]:
    """Lists of so many items in a row; the last may be shorter."""
    items = iter(items)
    return iter(lambda: list(islice(items, size or WINDOW)), [])


def vocabulary_of(model: MilcoModel) -> list[str]:
    """The token of each column of a model's rows, such as `e_password` or `m_▁Passwort`."""

    def names(mark: str, tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
        # A head may have more rows than its tokenizer has tokens.
        tokens = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
        return [f"{mark}{token}" for token in tokens] + [f"{mark}[{n}]" for n in range(len(tokens), size)]

    shape = model.config
    return [
        *names("e_", model.pivot_tokenizer, shape.pivot_vocab_size),
        *names("m_", model.tokenizer, shape.source_vocab_size),
    ]


def encode(
    model: MilcoModel,
    texts: Iterable[tuple[str, str]],
    output: Path,
    query: bool = False,
    language: str | None = None,
    batch_size: int = 64,
    bf16: bool = False,
    done: Callable[[int], object] = lambda count: None,
) -> None:
    """Encode texts (id, text) into the vectors `output`, or go on where an earlier run of the same was cut off.

    Args:
        query: whether texts are cut and pruned as the model does it with queries, or with documents.
        language: of the texts; a model may prune each language to a budget of its own.
        bf16: whether the model computes in bfloat16.
        done: told how many texts were finished since.

    Raises:
        MilcoError: a text has weights that are no numbers.
    """
    about = model.config
    length = about.query_max_length if query else about.passage_max_length
    budget = budget_of(about.query_budgets if query else about.document_budgets, language)
    made_by = [length, budget, str(model.device), bf16, _state_of(Path(model.name_or_path))]
    draft = Draft(output, vocabulary_of(model), model.config.pivot_vocab_size)
    for part in windows(texts):
        digest = hashlib.sha256(json.dumps([made_by, part]).encode()).hexdigest()
        if not draft.has(digest):
            ids, strings = zip(*part, strict=True)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                rows = in_text_order(model.iter_rows(list(strings), length, batch_size), model.width)
            refuse_broken(rows, strings)
            draft.add(prune_to(rows, budget), list(ids), digest)
        done(len(part))
    draft.finish()


def _state_of(folder: Path) -> list:
    """What changes when a model in a folder does."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def prune(vectors: Path, output: Path, top_k: int | None = None, mass: float | None = None) -> tuple[float, float]:
    """Write vectors with the `top_k` heaviest tokens of each, or with the fewest that hold the share `mass` of its
    weight. Returns the mean active dimensions before and after."""
    if output.exists() and output.samefile(vectors):
        raise MilcoError(f"{output}: the vectors that are pruned; give another name")
    columns: dict[str, int] = {}
    before = after = number = 0
    draft = None
    try:
        for ids, rows, pivot in read_vectors(vectors, columns):
            if pivot is None and output.suffix != ".jsonl":
                raise MilcoError(f"{output}: vectors that come as JSONL are pruned to JSONL; end its name with .jsonl")
            kept = rows if top_k is None else prune_top_k(rows, top_k)
            kept = kept if mass is None else prune_mass(kept, mass)
            draft = draft or Draft(output, columns, pivot, fresh=True)
            draft.add(kept, ids)
            before, after, number = before + rows.nnz, after + kept.nnz, number + len(ids)
    except BaseException:
        if draft:  # pruning is quick: it begins anew
            shutil.rmtree(draft.folder)
        raise
    assert draft  # there is no reading of nothing
    draft.finish()
    return before / number, after / number


class Draft:
    """Vectors that are being written, a window at a time, and appear under their name when they are finished.

    Args:
        path: NAME.jsonl or a folder.
        vocabulary: token of each column; tokens may be added behind while the draft is written.
        pivot: how many columns belong to the pivot view.
        fresh: whether what an earlier run left is thrown away.

    Raises:
        MilcoError: something else than vectors has that name, or another run is writing this draft.
    """

    def __init__(self, path: Path, vocabulary: Iterable[str], pivot: int | None, fresh: bool = False):
        as_lines = path.suffix == ".jsonl"
        mine = path.is_file() if as_lines else path.is_dir() and (path / VOCABULARY).exists()
        if path.exists() and not mine:
            raise MilcoError(f"{path}: holds something else than vectors; give another name or take it away")
        self.path, self.vocabulary, self.pivot = path, vocabulary, pivot
        self.folder = path.absolute().with_name(f".{path.absolute().name}.part")
        self.lines = self.folder / "vectors.jsonl" if as_lines else None
        self.tokens: list[str] = []  # as JSON strings
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        log = self.folder / "windows.txt"  # digest of a window, and where it ends in `lines`
        self.earlier = [line.split() for line in log.read_text().split("\n")[:-1]] if log.exists() else []
        self.ends: list[int] = []
        self.log: TextIO | None = None

    def has(self, digest: str) -> bool:
        """Whether an earlier run wrote this window as the next one; then it is taken for written."""
        number = len(self.ends)
        if self.log or number >= len(self.earlier) or self.earlier[number][0] != digest:
            return False
        self.ends.append(int(self.earlier[number][1]))
        return True

    def add(self, rows: scipy.sparse.csr_array, ids: list[str], digest: str = "-") -> None:
        """Write the next window."""
        log = self.log = self.log or self._begin()
        end = 0
        if self.lines:
            with self.lines.open("ab") as file:
                file.writelines(line.encode() for line in self._as_lines(rows, ids))
                end = file.tell()
        else:
            save_vectors(self.folder / f"part-{len(self.ends):06}.safetensors", rows, ids, self.pivot)
        self.ends.append(end)
        log.write(f"{digest} {end}\n")  # after the window, so that a kill in between costs no more than it
        log.flush()

    def _begin(self) -> TextIO:
        """Keep the windows that `has` found; what an earlier run wrote behind them goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "windows.txt").open("a")
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel ends the lock with the process
        except OSError:
            raise MilcoError(f"{self.path}: another run is writing it; wait for it or end it") from None
        log.truncate(0)
        log.writelines(f"{digest} {end}\n" for digest, end in self.earlier[: len(self.ends)])
        self._cut()
        return log

    def _cut(self) -> None:
        if self.lines:
            with self.lines.open("ab") as file:
                file.truncate(self.ends[-1] if self.ends else 0)
        for path in self.folder.glob("part-*"):
            if int(path.name[5:11]) >= len(self.ends):
                path.unlink()

    def _as_lines(self, rows: scipy.sparse.csr_array, ids: list[str]) -> Iterator[str]:
        if rows.shape[1] > len(self.tokens):
            self.tokens = [json.dumps(token, ensure_ascii=False) for token in self.vocabulary]
        weights = rows.data.astype(np.float32).astype(str)  # as few digits as say which float32 it is
        for row, identifier in enumerate(ids):
            part = slice(rows.indptr[row], rows.indptr[row + 1])
            order = part.start + np.lexsort((rows.indices[part], -rows.data[part]))
            pairs = (f"{self.tokens[rows.indices[place]]}: {weights[place]}" for place in order)
            yield f'{{"id": {json.dumps(identifier, ensure_ascii=False)}, "vector": {{{", ".join(pairs)}}}}}\n'

    def finish(self) -> None:
        """Give the draft its real name in the place of the vectors that had it."""
        self._cut()
        if self.log:
            self.log.close()
        if self.lines:
            os.replace(self.lines, self.path)
            shutil.rmtree(self.folder)
            return
        write_json(self.folder / VOCABULARY, list(self.vocabulary))
        (self.folder / "windows.txt").unlink()
        shutil.rmtree(self.path, ignore_errors=True)
        os.replace(self.folder, self.path)


def read_vectors(path: Path, columns: dict[str, int]) -> Iterator[tuple[list[str], scipy.sparse.csr_array, int | None]]:
    """Vectors part by part: ids, rows N×V, and how many columns are the pivot view's (None: they come as JSONL).

    Args:
        columns: the column of each token; it is filled, and may grow with each part of a JSONL file.

    Raises:
        MilcoError: there are none, a line is broken, or a part of them is missing.
    """
    if path.is_dir():
        parts = sorted(path.glob("part-*.safetensors"))
        names = path / VOCABULARY
        if not (parts and names.exists()):
            raise MilcoError(
                f"{path}: no vectors in it (part-000000.safetensors, …, vocabulary.json); see milco encode"
            )
        columns.update({token: column for column, token in enumerate(json.loads(names.read_text(encoding="utf-8")))})
        for part in parts:
            rows, ids = load_vectors(part)
            if rows.shape[1] != len(columns):
                raise MilcoError(f"{part}: {rows.shape[1]} columns, but vocabulary.json has {len(columns)} tokens")
            yield ids, rows, pivot_columns(part)
        return
    if not path.exists():
        raise MilcoError(f"{path}: no such file or folder; milco encode writes vectors")
    empty = True
    for lines in windows(json_lines(path)):
        empty = False
        vectors = [_vector(row, f"{path}:{number}", columns) for number, row in lines]
        bounds = np.cumsum([0, *(len(vector) for vector in vectors)])
        places = np.array([column for vector in vectors for column in vector], np.int64)
        weights = np.array([weight for vector in vectors for weight in vector.values()], np.float32)
        rows = scipy.sparse.csr_array((weights, places, bounds), shape=(len(vectors), len(columns)))
        rows.sort_indices()
        yield [str(row["id"]) for _, row in lines], rows, None
    if empty:
        raise MilcoError(f"{path}: empty; there is no vector in it")


def in_columns_of(model: MilcoModel, path: Path) -> Iterator[tuple[list[str], scipy.sparse.csr_array]]:
    """Vectors part by part, with the columns that the model gives to their tokens: ids and rows N×(V_e+V_m).

    Raises:
        MilcoError: the model does not know a token of theirs, or see `read_vectors`.
    """
    known = {token: column for column, token in enumerate(vocabulary_of(model))}
    columns: dict[str, int] = {}
    for ids, rows, _ in read_vectors(path, columns):
        foreign = next((token for token in columns if token not in known), None)
        if foreign is not None:
            raise MilcoError(
                f"{path}: model {model.name_or_path} does not know the token {foreign!r}; give the model that made them"
            )
        place = np.array([known[token] for token in columns], np.int64)
        yield ids, scipy.sparse.csr_array((rows.data, place[rows.indices], rows.indptr), (len(ids), len(known)))


def _vector(row: dict[str, Any], where: str, columns: dict[str, int]) -> dict[int, float]:
    vector, identifier = row.get("vector"), row.get("id")
    if not isinstance(vector, dict) or not isinstance(identifier, str | int):
        raise MilcoError(f'{where}: expected {{"id": …, "vector": {{token: weight}}}}')
    if identifier == "" or "\n" in str(identifier):
        raise MilcoError(f"{where}: the id {identifier!r} is empty or has more than one line")
    for token, weight in vector.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise MilcoError(f"{where}: the weight of {token!r} is {weight!r}; expected a number that is not below 0")
    return {columns.setdefault(token, len(columns)): weight for token, weight in vector.items() if weight}


def refuse_doubles(ids: list[str], what: Path) -> None:
    """Raise MilcoError if an id stands there twice."""
    identifier, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise MilcoError(f"{what}: id {identifier!r} is there {times} times; ids must differ")

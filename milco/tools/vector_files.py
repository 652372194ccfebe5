"""Stream vectors to and from files, one window at a time.

NAME.jsonl   a line {"id": …, "vector": {token: weight}} for each text, heaviest token first, as Anserini reads it
a folder     part-000000.safetensors, … (data/vectors.py), and vocabulary.json: the token of each column
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import scipy.sparse

from milco.data import reading
from milco.data.reading import Broken, BrokenRow
from milco.data.vectors import LARGEST, load_vectors, pivot_columns, save_vectors
from milco.errors import MilcoError
from milco.files import lock, put, put_in_place, write_json
from milco.outputs import WINDOWS, begins, check_output, consists, draft_of, is_stream
from milco.tools.text_files import windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from milco.modeling.model import MilcoModel

VOCABULARY = "vocabulary.json"
PART = f"part-{'[0-9]' * 6}.*s*t*"  # part-000000.safetensors and part-000000.ids.txt
OUR_LINE = rb'{"id": "(?:[^"\\]|\\.)*", "vector": {'  # with these blanks, as `Draft` writes it
Parts = Iterator[tuple[list[str], scipy.sparse.csr_array]]


def vocabulary_of(model: "MilcoModel") -> list[str]:
    """The token of each column of a model's rows, such as `e_password` or `m_▁Passwort`."""

    def names(mark: str, tokenizer: "PreTrainedTokenizerBase", size: int) -> list[str]:
        # A head may have more rows than its tokenizer has tokens.
        tokens = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
        return [f"{mark}{token}" for token in tokens] + [f"{mark}[{n}]" for n in range(len(tokens), size)]

    shape = model.config
    return [
        *names("e_", model.pivot_tokenizer, shape.pivot_vocab_size),
        *names("m_", model.tokenizer, shape.source_vocab_size),
    ]


class Draft:
    """Vectors that are being written, a window at a time, and appear under their name when they are finished.

    Args:
        path: NAME.jsonl or a folder.
        vocabulary: token of each column; tokens may be added at the end while the draft is written.
        pivot: how many columns belong to the pivot view.
        fresh: whether to discard the draft of an earlier run.

    Raises:
        MilcoError: the name belongs to something other than vectors, or another run is writing this draft.
    """

    def __init__(self, path: Path, vocabulary: Iterable[str], pivot: int | None, fresh: bool = False):
        lines = come_as_lines(path)
        ours = begins(OUR_LINE) if lines else consists(VOCABULARY, PART, WINDOWS)
        check_output(path, "vectors", ours, folder=not lines)
        self.path, self.vocabulary, self.pivot = path, vocabulary, pivot
        target = path.resolve()
        if is_stream(path):  # a stream cannot be resumed
            self.aside = TemporaryDirectory()
            target = Path(self.aside.name) / "vectors"
        self.folder = draft_of(target)
        self.lines = self.folder / "vectors.jsonl" if lines else None
        self.tokens: list[str] = []  # as JSON strings
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        log = self.folder / WINDOWS  # digest of a window, and where it ends in `lines`
        whole = log.exists() and not (self.lines and not self.lines.exists())  # else they are in their place already
        self.earlier = [line.split() for line in log.read_text().split("\n")[:-1]] if whole else []
        self.ends: list[int] = []
        self.log: TextIO | None = None

    def has(self, digest: str) -> bool:
        """Whether an earlier run wrote this window as the next one; if so, it counts as written."""
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
        """Keep the windows that `has` found; remove what an earlier run wrote after them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / WINDOWS).open("a")
        if not lock(log):
            raise MilcoError(f"{self.path}: another run is writing it; wait for it or end it")
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
        weights = rows.data.astype(np.float32).astype(str)  # the fewest digits that identify a float32
        for row, identifier in enumerate(ids):
            part = slice(rows.indptr[row], rows.indptr[row + 1])
            order = part.start + np.lexsort((rows.indices[part], -rows.data[part]))
            pairs = (f"{self.tokens[rows.indices[place]]}: {weights[place]}" for place in order)
            yield f'{{"id": {json.dumps(identifier, ensure_ascii=False)}, "vector": {{{", ".join(pairs)}}}}}\n'

    def finish(self) -> None:
        """Give the draft its real name; earlier vectors of that name are replaced."""
        self._cut()
        if self.log:
            self.log.close()
        if self.lines:
            put(self.lines, self.path)
            shutil.rmtree(self.folder)
            return
        write_json(self.folder / VOCABULARY, list(self.vocabulary))
        path = self.path.resolve()
        put_in_place(self.folder, path)
        (path / WINDOWS).unlink()  # not before: a run that is killed here has lost nothing


def come_as_lines(path: Path) -> bool:
    """Whether vectors of this name are a file of lines, not a folder."""
    return path.suffix == ".jsonl" or is_stream(path)


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
            if not np.isfinite(rows.data).all():
                raise MilcoError(f"{part}: has weights that are no finite numbers; encode again")
            yield ids, rows, pivot_columns(part)
        return
    path = reading.place(path)
    if not path.exists():
        raise MilcoError(f"{path}: no such file or folder; milco encode writes vectors")
    empty = True
    broken = Broken()
    rows_of = reading.each(path, reading.json_lines(path, broken), lambda _, row: _vector(row, columns), broken)
    for lines in windows(reading.whole(rows_of, broken)):
        empty = False
        vectors = [vector for _, vector in lines]
        bounds = np.cumsum([0, *(len(vector) for vector in vectors)])
        places = np.array([column for vector in vectors for column in vector], np.int64)
        weights = np.array([weight for vector in vectors for weight in vector.values()], np.float32)
        rows = scipy.sparse.csr_array((weights, places, bounds), shape=(len(vectors), len(columns)))
        rows.sort_indices()
        yield [identifier for identifier, _ in lines], rows, None
    if empty:
        raise MilcoError(f"{path}: empty; there is no vector in it")


def in_columns_of(model: "MilcoModel", path: Path) -> Iterator[tuple[list[str], scipy.sparse.csr_array]]:
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


def each_once(parts: Parts, path: Path) -> Parts:
    """Parts of vectors, if no id is there twice.

    Raises:
        MilcoError: one is.
    """
    seen: set[str] = set()
    for ids, rows in parts:
        for identifier in ids:
            if identifier in seen:
                raise MilcoError(f"{path}: id {identifier!r} is there twice; ids of queries must differ")
            seen.add(identifier)
        yield ids, rows


def _vector(row: dict[str, Any], columns: dict[str, int]) -> tuple[str, dict[int, float]]:
    """Id, and weight of each column."""
    vector = row.get("vector")
    if not isinstance(vector, dict) or "id" not in row:
        raise BrokenRow('expected {"id": …, "vector": {token: weight}}')
    identifier = reading.identifier(row["id"])
    for token, weight in vector.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= LARGEST:
            raise BrokenRow(f"the weight of {token!r} is {weight!r:.80}; expected a finite float32 that is not below 0")
    weights = {token: weight for token, weight in vector.items() if np.float32(weight)}
    return identifier, {columns.setdefault(token, len(columns)): weight for token, weight in weights.items()}


def refuse_doubles(ids: list[str], what: Path) -> None:
    """Raise MilcoError if an id occurs twice."""
    identifier, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise MilcoError(f"{what}: id {identifier!r} is there {times} times; ids must differ")

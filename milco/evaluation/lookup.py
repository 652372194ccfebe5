"""The test collections of each system, and its vectors: merged from shards, and looked up by text. It does not import
torch."""

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
import scipy.sparse

from milco.data.beir import depth_of_search, iter_documents, read_about, read_queries
from milco.data.cuts import CUT, Cuts
from milco.data.sorting import DIGEST_EDGES, PARTS, Sorted, numbered
from milco.data.vectors import load_ids, load_vectors, pivot_columns, terms_and_rows
from milco.errors import MilcoError
from milco.evaluation.search import Block, Ranking
from milco.evaluation.sharding import ALL, Shard
from milco.files import finished_folder, write_json

SIDES = ("queries", "documents")
TEXTS = 16_384  # whose digests are taken at a time
# Gives what has been freed back to the system; without it glibc keeps holes between the blocks of a large collection.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: None)


def text_id(text: str) -> str:
    """Name of a text in a vector file: the start of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folders_of(system: str, collections: Path) -> list[Path]:
    """The test collections that a system is measured on, by name."""
    folders = sorted(collections.iterdir())
    if system == "teacher":
        return [folder for folder in folders if read_about(folder)["document_language"] == "en"] or folders
    return cross_lingual(folders) if system == "dense" else folders


def collections_of(system: str, collections: Path) -> Iterator["StoredCollection"]:
    """The same, with queries and judgements in memory."""
    return read_stored(folders_of(system, collections))


def cross_lingual(folders: list[Path]) -> list[Path]:
    """The collections whose queries are in another language than their documents; all, if none is so."""
    said = {folder: read_about(folder) for folder in folders}
    return [f for f in folders if said[f]["query_language"] != said[f]["document_language"]] or folders


def merge(shards: list[Path], output: Path) -> None:
    """Link the vectors of all shards into one folder of the same form, or copy them if the file system has no links."""
    with finished_folder(output) as folder:
        for side in SIDES:
            parts = [path for shard in shards for path in sorted(shard.glob(f"{side}-*.safetensors"))]
            for number, path in enumerate(parts):
                for suffix in (".safetensors", ".ids.txt"):
                    link_or_copy(path.with_suffix(suffix), folder / f"{side}-{number:05}{suffix}")
        if all((shard / CUT).exists() for shard in shards):  # none beside those that an earlier version began
            counts = [json.loads((shard / CUT).read_text(encoding="utf-8")) for shard in shards]
            together = {side: sum((Cuts(**one[side]) for one in counts), Cuts()) for side in SIDES}
            write_json(folder / CUT, {side: cuts.as_dict() for side, cuts in together.items()})


def link_or_copy(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


class Places:
    """Digest of a text → its position in a list; both are in a temporary file."""

    def __init__(self, texts: Iterable[str]):
        self._digest = hashlib.sha256()
        self.sorted = Sorted(numbered(self._portions(map(text_id, texts))), DIGEST_EDGES)
        self.fingerprint = self._digest.hexdigest()  # the same for the same texts in the same order

    def __len__(self) -> int:
        return len(self.sorted)

    def _portions(self, ids: Iterator[str]) -> Iterator[np.ndarray]:
        while len(digests := _digests(islice(ids, TEXTS))):
            self._digest.update(digests.data)
            yield digests


def _digests(ids: Iterable[str]) -> np.ndarray:
    """The numbers that `text_id` writes in hexadecimal form."""
    return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64)


class Vectors:
    """What `encode` wrote, looked up by text, one file in memory at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = {side: sorted(folder.glob(f"{side}-*.safetensors")) for side in SIDES}
        self.pivot_columns = pivot_columns(self.paths["queries"][0])
        self.named: dict[str, tuple[np.ndarray, Sorted]] = {}

    def of(self, side: str, texts: Iterable[str]):
        """Rows of some texts, in their order."""
        places = Places(texts)
        blocks = list(self.blocks(side, places, max(1, len(places))))
        if not blocks:
            return load_vectors(self.paths[side][0])[0][:0]
        ((found, rows),) = blocks
        return rows[np.argsort(found)]

    def blocks(self, side: str, places: Places, size: int, shard: Shard = ALL) -> Iterator[Block]:
        """Places and rows of a list of texts, or of a shard of it, `size` of them at a time, in the order of the files.

        Raises:
            MilcoError: the folder does not have each of the texts once.
        """
        starts, names = self._named(side)
        found = Sorted(names.joined(places.sorted), starts[1 : -1 : ceil(len(starts) / PARTS)].astype(np.uint64))
        if len(found) != len(places):
            raise MilcoError(
                f"{self.folder}: vectors of {len(found)} {side} for {len(places)}; delete it and encode again"
            )
        waiting: list[Block] = []
        free = size
        for part in found.parts(shard.of(len(found))):
            numbers, at = part.astype(np.int64).T
            files = np.searchsorted(starts, numbers, side="right") - 1
            for file in np.unique(files):
                _trim(0)
                rows, mine = load_vectors(self.paths[side][file])[0], np.flatnonzero(files == file)
                while len(mine):
                    taken, mine = mine[:free], mine[free:]
                    waiting.append((at[taken], rows[numbers[taken] - starts[file]]))
                    free -= len(taken)
                    if not free:
                        yield _together(waiting)
                        free = size
        if waiting:
            yield _together(waiting)

    def mean_terms(self, side: str) -> float:
        """Mean terms of a row, by what the heads of the files say."""
        shapes = [terms_and_rows(path) for path in self.paths[side]]
        return sum(terms for terms, _ in shapes) / max(1, sum(rows for _, rows in shapes))

    def _named(self, side: str) -> tuple[np.ndarray, Sorted]:
        """Where the rows of each file start among all rows, and where the last file ends; and the rows, sorted by the
        digests of their texts."""
        if side not in self.named:
            starts = [0]

            def portions() -> Iterator[np.ndarray]:
                for path in self.paths[side]:
                    digests = _digests(load_ids(path))
                    starts.append(starts[-1] + len(digests))
                    yield digests

            names = Sorted(numbered(portions()), DIGEST_EDGES)
            self.named[side] = np.array(starts), names
        return self.named[side]


def _together(waiting: list[Block]) -> Block:
    """Join several blocks into one and release them, so that memory holds the rows only once."""
    blocks = waiting.copy()
    waiting.clear()
    if len(blocks) == 1:
        return blocks[0]
    rows = [rows for _, rows in blocks]
    stacked = scipy.sparse.vstack(rows, format="csr") if scipy.sparse.issparse(rows[0]) else np.concatenate(rows)
    return np.concatenate([places for places, _ in blocks]), stacked


class StoredCollection:
    """A test collection whose documents stay on disk; a temporary file holds their places, by the digests of their
    texts.

    Args:
        places: those of the documents, if another collection over the same file has them.
    """

    def __init__(self, folder: Path, places: Places | None = None, split: str = "test"):
        self.folder, self.name, self.about = folder, folder.name, read_about(folder)
        self.queries, self.qrels = read_queries(folder, split)
        self.places = places or Places(self.texts())

    def texts(self) -> Iterator[str]:
        """The documents, one at a time."""
        return (text for _, text in iter_documents(self.folder))

    def judged_ids(self, rankings: Iterable[Ranking]) -> dict[int, str]:
        """Place → id under which a document is judged, for all that were found; a chunk has that of its document."""
        found = {place for ranking in rankings for place, _ in ranking}
        return {place: name for place, name in enumerate(self._judged()) if place in found}

    def texts_to_find(self, depth: int) -> int:
        """As in `Collection`."""
        return depth_of_search(depth, self.about, self._judged())

    def _judged(self) -> Iterator[str]:
        chunked = bool(self.about.get("chunked"))
        return (name.rpartition("#")[0] if chunked else name for name, _ in iter_documents(self.folder))


def read_stored(folders: Iterable[Path], split: str = "test") -> Iterator[StoredCollection]:
    """Yield collections one at a time; consecutive collections with the same corpus file share document positions."""
    before: StoredCollection | None = None
    for folder in folders:
        same = before and (before.folder / "corpus.jsonl").samefile(folder / "corpus.jsonl")
        before = StoredCollection(folder, before.places if before and same else None, split)
        yield before

"""The test collections of each system, and its vectors: put together, and looked up by their text. Nothing here needs
torch."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse

from milco.data.beir import Collection, read_about, read_collection
from milco.data.vectors import load_vectors, pivot_columns
from milco.files import finished_folder

SIDES = ("queries", "documents")


def text_id(text: str) -> str:
    """Name of a text in a vector file: the start of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folders_of(system: str, collections: Path) -> list[Path]:
    """The test collections that a system is measured on, by name."""
    folders = sorted(collections.iterdir())
    if system == "teacher":
        return [folder for folder in folders if read_about(folder)["document_language"] == "en"] or folders
    return cross_lingual(folders) if system == "dense" else folders


def collections_of(system: str, collections: Path) -> Iterator[Collection]:
    """The same, one in memory at a time."""
    return map(read_collection, folders_of(system, collections))


def cross_lingual(folders: list[Path]) -> list[Path]:
    """The collections whose queries are in another language than their documents; all, if none is so."""
    said = {folder: read_about(folder) for folder in folders}
    return [f for f in folders if said[f]["query_language"] != said[f]["document_language"]] or folders


def merge(shards: list[Path], output: Path) -> None:
    """Write the vectors of all shards into one folder of the same form."""
    with finished_folder(output) as folder:
        for side in SIDES:
            parts = [path for shard in shards for path in sorted(shard.glob(f"{side}-*.safetensors"))]
            for number, path in enumerate(parts):
                for suffix in (".safetensors", ".ids.txt"):
                    shutil.copyfile(path.with_suffix(suffix), folder / f"{side}-{number:05}{suffix}")


class Vectors:
    """What `encode` wrote, looked up by text."""

    def __init__(self, folder: Path):
        self.rows: dict = {}
        self.place: dict[str, dict[str, int]] = {}
        self.pivot_columns: int | None = None
        for side in SIDES:
            paths = sorted(folder.glob(f"{side}-*.safetensors"))
            parts = [load_vectors(path) for path in paths]
            self.pivot_columns = pivot_columns(paths[0])
            stack = np.concatenate if self.pivot_columns is None else scipy.sparse.vstack
            self.rows[side] = stack([rows for rows, _ in parts])
            ids = (identifier for _, part in parts for identifier in part)
            self.place[side] = {identifier: row for row, identifier in enumerate(ids)}

    def of(self, side: str, texts: Iterable[str]):
        """Rows of some texts, in their order."""
        return self.rows[side][[self.place[side][text_id(text)] for text in texts]]

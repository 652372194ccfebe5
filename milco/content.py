"""Digests of file contents. An edit changes them; a touch, a copy, a restored backup or a stray hidden file does not.

Files that no program reads are ignored: hidden ones (`.nfs…`, `.git`), Markdown, what editors and desktops leave
behind, and our own record of where a result was made.
"""

import hashlib
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from milco.environment import RECORD
from milco.files import write_json

LARGE = 2**24  # bytes; digests of larger files of the user's own are written down
PIECES, PIECE = 16, 2**12  # how many pieces of a file of our own are read, and bytes of each
KNOWN = Path("resources/digests.json")
UNREAD = (".*", "*.md", "*~", "*.bak", "*.swp", "__pycache__", "Thumbs.db", "desktop.ini", RECORD)


def content_of(path: Path) -> str | None:
    """Digest of all bytes of a user's file, or of the files of a folder and their names; None: there is none.

    A large file is read once: its digest is written down in `resources/digests.json` with its size and time.
    """
    return _combined(path, _digest_of_all)


def sample_of(path: Path) -> str | None:
    """The same for files that our programs wrote, of which only the size and 16 pieces of 4 KiB count.

    Sampling is enough: a 100 GB token cache is not edited by hand, and a program that rewrites it changes it in many
    places. Reading all of it, or of thousands of vector files, would keep GPUs and the scheduler waiting for minutes.
    """
    return _combined(path, _digest_of_pieces)


def _combined(path: Path, digest) -> str | None:
    if not path.exists():
        return None
    if path.is_file():
        return digest(path)
    names = sorted(str(file.relative_to(path)) for file in _files(path))
    return hashlib.sha256(json.dumps([[name, digest(path / name)] for name in names]).encode()).hexdigest()


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Content files of a folder, including linked folders, except links to its own parents."""
    place = folder.resolve()
    for path in folder.iterdir() if place not in above else ():
        if any(fnmatchcase(path.name, pattern) for pattern in UNREAD):
            continue
        if path.is_dir():
            yield from _files(path, above | {place})
        elif path.is_file():
            yield path


def _digest_of_all(path: Path) -> str:
    status = path.stat()
    return _known(str(path.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _known(path: str, size: int, time: int) -> str:
    if size <= LARGE:
        return _hash(path)
    known = json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.exists() else {}
    if known.get(path, [])[:2] != [size, time]:
        known[path] = [size, time, _hash(path)]
        write_json(KNOWN, known)
    return known[path][2]


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_pieces(path: Path) -> str:
    """Digest of a whole file, or of its size and some pieces if they are less than a quarter of it."""
    size = path.stat().st_size
    if size <= 4 * PIECES * PIECE:
        return _hash(str(path))
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(PIECES):
            file.seek((size - PIECE) * number // (PIECES - 1))
            found.update(file.read(PIECE))
    return found.hexdigest()

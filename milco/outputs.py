"""What an output's name stands for, and whether it may be written: a program asks before it starts to work.

A name may be more than a place for a file. A link stays, and what it leads to is written. A device, a pipe and an open
descriptor (`-` and /dev/stdout, which are `sys.stdout`, or /dev/fd/63) are streams: they are written to, from a draft
that lies elsewhere. And what is there already may be somebody's own: it is replaced only if it is what milco makes
under such a name.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from milco.errors import MilcoError

WINDOWS = "windows.txt"  # in vectors that are being written
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
DESCRIPTOR = re.compile(r"/dev/stderr|/(?:dev|proc/self)/fd/(\d+)")


def is_stream(path: Path) -> bool:
    """Whether a name stands for a device, a pipe or an open descriptor: it is written to and never replaced."""
    return _is_open(path) or (path.exists() and not path.is_file() and not path.is_dir())


def _is_open(path: Path) -> bool:
    return str(path) in STDOUT or DESCRIPTOR.fullmatch(str(path)) is not None


def pour(draft: Path, path: Path) -> None:
    """Write what a file has to a stream."""
    with draft.open("rb") as source, _open(path) as sink:
        shutil.copyfileobj(source, sink)
        sink.flush()


def _open(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) in STDOUT:
        sys.stdout.flush()
        return nullcontext(sys.stdout.buffer)
    named = DESCRIPTOR.fullmatch(str(path))
    if named is None:
        return path.open("wb")
    return os.fdopen(os.dup(int(named[1] or 2)), "wb")  # to open it by name would empty the file behind it


def check_output(
    path: Path, what: str, ours: Callable[[Path], bool] = lambda there: False, folder: bool = False
) -> None:
    """Whether an output can be written, and replaces nothing that milco did not make.

    Args:
        what: what is written, for the message.
        ours: whether an existing file or folder is such a thing, and so may be replaced. An empty one may be, too.
        folder: whether a folder is written.

    Raises:
        MilcoError: it cannot be written, or something else is there.
    """
    if is_stream(path):
        if folder or not (_is_open(path) or os.access(path, os.W_OK)):
            raise MilcoError(f"{path}: {what} cannot be written there; give another name")
        return
    target = path.resolve()
    if target.exists() and not (target.is_dir() == folder and (_is_empty(target) or ours(target))):
        raise MilcoError(f"{path}: holds something other than {what}; give another name or remove it")
    parent = next(parent for parent in target.parents if parent.exists())
    machines = {Path("/proc"), Path("/sys")} & {parent, *parent.parents}  # root may write there, and yet make no file
    if machines or not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise MilcoError(f"{path}: cannot be written in {parent}; give another name")
    draft, old = draft_of(target), old_of(target)
    killed = lock_of(target).exists() or (draft / WINDOWS).exists()
    if not killed and (draft.exists() or (folder and old.exists() and not ours(old))):
        raise MilcoError(f"{path}: {draft} or {old} is in the way, and milco did not write it; remove it")


def draft_of(path: Path) -> Path:
    """Where an output lies until it is finished."""
    return path.with_name(f".{path.name}.part")


def lock_of(path: Path) -> Path:
    """The file that is there, and locked, while an output is written; a killed run leaves it."""
    return path.with_name(f".{path.name}.lock")


def old_of(path: Path) -> Path:
    """Where an older folder of that name lies while the new one is put in its place."""
    return path.with_name(f".{path.name}.old")


def _is_empty(path: Path) -> bool:
    return not any(path.iterdir()) if path.is_dir() else not path.stat().st_size


def begins(pattern: bytes) -> Callable[[Path], bool]:
    """Whether the first line of a file begins with a pattern, for `check_output`."""

    def ours(file: Path) -> bool:
        with file.open("rb") as lines:
            return re.match(pattern, lines.readline(1 << 16)) is not None

    return ours


def consists(mark: str, *patterns: str) -> Callable[[Path], bool]:
    """Whether a folder has a file `mark`, and nothing but it and files of some patterns, for `check_output`."""

    def ours(folder: Path) -> bool:
        names = {path.name for path in folder.iterdir()}
        return mark in names and all(any(fnmatchcase(name, known) for known in (mark, *patterns)) for name in names)

    return ours

"""Check an output path before the work starts: what kind of target it is, and whether it may be written.

A path is not always a plain file. A link is kept and its target is written. Devices, pipes and open descriptors (`-`
and /dev/stdout, which are `sys.stdout`, or /dev/fd/63) are streams: the draft is made elsewhere and then copied to
them. An existing file or folder is replaced only if it has the form of milco's own output.
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
    """Copy a file's content to a stream."""
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
    """Temporary path of an output until it is complete."""
    return path.with_name(f".{path.name}.part")


def lock_of(path: Path) -> Path:
    """Path of the lock file of an output; a killed run leaves the file behind."""
    return path.with_name(f".{path.name}.lock")


def old_of(path: Path) -> Path:
    """Temporary path of the older folder while the new one takes its name."""
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
    """Whether a folder has the file `mark` and otherwise only files that match the patterns, for `check_output`."""

    def ours(folder: Path) -> bool:
        names = {path.name for path in folder.iterdir()}
        return mark in names and all(any(fnmatchcase(name, known) for known in (mark, *patterns)) for name in names)

    return ours

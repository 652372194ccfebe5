"""Atomic files and folders: they appear complete or not at all, and one process writes at a time."""

import fcntl
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, TextIO

from milco.outputs import STDOUT, draft_of, is_stream, lock_of, old_of, pour


@contextmanager
def finished_folder(path: Path, made_by: Any = None) -> Iterator[Path]:
    """Give a folder to write into; it takes its real name `path` only if the block ends without an error.

    What a failed or killed run left behind is removed, so that a rerun never mistakes it for a result.

    Args:
        made_by: identifies the content, for a block that reuses what it finds. What a run with the same value left
            behind is kept; so is what such a run finished while this one waited.
    """
    path = path.resolve()
    draft, asked = draft_of(path), json.dumps(made_by, sort_keys=True)
    with _alone(path) as (held, said):
        if made_by is None or said != asked:
            shutil.rmtree(draft, ignore_errors=True)
        elif path.is_dir() and not draft.exists():
            os.replace(path, draft)
        held.truncate(0)
        held.write(asked)
        held.flush()
        draft.mkdir(exist_ok=True)
        for left in [path for end in ("part", "lock") for path in draft.rglob(f".*.{end}") if path.is_file()]:
            left.unlink()  # of a file that was being written
        try:
            yield draft
        except BaseException:
            if made_by is None:
                shutil.rmtree(draft, ignore_errors=True)
                lock_of(path).unlink()
            raise
        put_in_place(draft, path)
        lock_of(path).unlink()


def put_in_place(draft: Path, path: Path) -> None:
    """Give a finished folder its name. An older folder of that name is removed when the new one is there."""
    old = old_of(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(draft, path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def finished_file(path: Path) -> Iterator[Path]:
    """The same for one file, without reuse; a stream of that name is written to when the block ends."""
    if is_stream(path):
        with TemporaryDirectory() as folder:
            draft = Path(folder) / "draft"
            yield draft
            put(draft, path)
        return
    path = path.resolve()
    draft = draft_of(path)
    with _alone(path):
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())  # or a lost node might leave the name without the content
            put(draft, path)
        finally:
            draft.unlink(missing_ok=True)
            lock_of(path).unlink()


@contextmanager
def text_lines(path: Path | None) -> Iterator[TextIO]:
    """Give a text file to write into, as `finished_file` does; the standard output takes lines as they come.

    Args:
        path: None is the standard output.
    """
    if path is None or str(path) in STDOUT:
        yield sys.stdout
        return
    with finished_file(path) as draft, draft.open("w", encoding="utf-8") as lines:
        yield lines
        lines.flush()  # before the draft is put where it belongs


def put(draft: Path, path: Path) -> None:
    """Move a finished draft to `path`, or write it to `path` if that is a stream."""
    if is_stream(path):
        pour(draft, path)
    else:
        os.replace(draft, path.resolve())


def lock(file: IO, seconds: float = 0) -> bool:
    """Lock an open file until it is closed or the process ends. False: another process still held the lock after
    `seconds`. If the file system has no locks, print a warning and continue."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)
        except OSError as error:  # some shared file systems are mounted without locks
            print(f"{file.name}: no lock ({error}); take care that nothing else writes there", file=sys.stderr)
            return True
        else:
            return True


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    with finished_file(path) as draft:
        draft.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def wait_for_lock(file: IO, place: Path, does: str) -> None:
    """Lock an open file until it is closed or the process ends. It waits for an earlier run of the same job whose
    Snakemake was killed.

    Args:
        place, does: for the message: where the earlier run works and what it does.
    """
    if not lock(file):
        print(f"{place}: another process still {does} here; waiting for it to end", file=sys.stderr, flush=True)
        lock(file, math.inf)


@contextmanager
def _alone(path: Path) -> Iterator[tuple[IO[str], str]]:
    """Wait until no other process writes `path`. Gives the open lock file and its text, or the text of the lock for
    which this process waited. A process that is done removes its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = ""
    while True:
        with lock_of(path).open("a+", encoding="utf-8") as held:
            wait_for_lock(held, path, "writes")
            with suppress(OSError):  # a network file system may have forgotten a removed file
                held.seek(0)
                said = held.read() or said
            if _is(held, lock_of(path)):  # else it was removed by the process that held it
                yield held, said
                return


def _is(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False

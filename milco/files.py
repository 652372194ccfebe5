"""Files that appear whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def finished_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """Give a folder to write into; it takes its real name `path` only if the block ends without an error.

    What a failed or killed run left behind is removed, so that a rerun never takes it for good; with `resume` it
    stays, for a block that checks what it finds.
    """
    draft = path.with_name(f".{path.name}.part")
    if not resume:
        shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, exist_ok=resume)
    try:
        yield draft
    except BaseException:
        if not resume:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    os.replace(draft, path)


@contextmanager
def finished_file(path: Path) -> Iterator[Path]:
    """The same for one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    with finished_file(path) as draft:
        draft.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

"""The error that users read, and the file through which launch.sh repeats it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MilcoError(Exception):
    """Something in the user's settings, data or machine is wrong; the message says what, where and what to do."""


@contextmanager
def about_source(name: str, path: Path) -> Iterator[None]:
    """Put the key of a source before an error that begins with the path of that source."""
    try:
        yield
    except MilcoError as error:
        if not str(error).startswith(str(path)):
            raise
        raise MilcoError(f"sources.{name}.uri: {error}") from error


def leave_last_words(message: str) -> None:
    """Store a message that launch.sh prints at the end of its log, below torchrun's output.

    A message that is not an error means that the program stopped early and must be restarted.
    """
    if "MILCO_LAST_WORDS" in os.environ:
        with open(os.environ["MILCO_LAST_WORDS"], "a", encoding="utf-8") as file:
            file.write(message + "\n")

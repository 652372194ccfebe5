"""The one error that a user of the programs is meant to read, and how launch.sh comes to repeat it."""

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
    """Have launch.sh repeat a message at the end of its log, below all that torchrun prints.

    Last words that are no error say that the program stopped early and wants to be started again.
    """
    if "MILCO_LAST_WORDS" in os.environ:
        with open(os.environ["MILCO_LAST_WORDS"], "a", encoding="utf-8") as file:
            file.write(message + "\n")

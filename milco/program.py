"""How every program of ours begins and ends."""

import os
import sys
from io import TextIOWrapper

import typer

from milco.errors import MilcoError, leave_last_words

# On a shared processor, threads that wait for each other by spinning stop the work for as long as one of them is put
# aside: three times slower beside one busy neighbour. With a short spin an idle machine loses nothing. Read by
# libgomp when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def run(app: typer.Typer, hub: bool = False) -> None:
    """Run a program; what the user must know ends it in one line, without a traceback.

    Args:
        hub: whether any of its commands may ask the Hugging Face Hub, for a model that is named and lies nowhere here.
    """
    if not hub and sys.argv[1:2] not in (["fetch"], ["publish"]):  # loading local files needs no bars of its own
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # UTF-8 whatever the locale; a path may have any bytes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        try:
            app()
        finally:
            print(end="", flush=True)  # what goes wrong at the interpreter's end, nobody can catch
    except BrokenPipeError:  # `head` has read enough; Typer ends so when it happens within the program
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except MilcoError as error:
        message = f"milco: error: {error}"
        leave_last_words(message)
        sys.exit(message)

"""Common start and end of all command-line programs."""

import ctypes
import errno
import os
import re
import signal
import sys
from io import TextIOWrapper
from typing import NoReturn

import typer

from milco.errors import MilcoError, leave_last_words

# Threads wait for each other by spinning. On a shared processor, while the system suspends one of them, the others spin
# in vain: beside one busy neighbour the work is three times slower. A short spin avoids that and costs nothing on an
# idle machine. libgomp reads this when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# What torch says of a full GPU, and the messages of the driver, cuBLAS, NCCL and Triton that it passes on. These
# allocate memory themselves, and fail first where another process holds nearly all of it.
FULL = re.compile("(CUDA|HIP|XPU).*out of memory|BLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
# Errors of the machine that a user can mend, whichever file they come from.
USERS = {errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


def run(app: typer.Typer, hub: bool = False) -> None:
    """Run a program. An error that the user can mend ends it with one line instead of a traceback.

    Args:
        hub: whether its commands may ask the Hugging Face Hub for a model that is not on this machine.
    """
    if not hub and sys.argv[1:2] not in (["fetch"], ["publish"]):  # loading local files needs no bars of its own
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        _end_with_torchrun()
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # UTF-8 whatever the locale; a path may have any bytes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        try:
            app()
        finally:
            print(end="", flush=True)  # an error at the interpreter's exit cannot be caught
    except BrokenPipeError:  # `head` has read enough; within the program, Typer ends it the same way
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except MilcoError as error:
        _end(str(error))
    except OSError as error:
        if error.errno not in USERS:
            raise
        _end(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}")
    except RuntimeError as error:
        if not FULL.search(str(error)):
            raise
        _end(out_of_memory(sys.argv[1], error))


def _end_with_torchrun() -> None:
    """Have the kernel ask this process to stop when torchrun is killed.

    Otherwise it would wait for torchrun's store until the training's timeout and keep its run folder locked.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(message: str) -> NoReturn:
    message = f"milco: error: {message}"
    leave_last_words(message)
    sys.exit(message)


def out_of_memory(program: str, error: RuntimeError) -> str:
    """Advice after a GPU ran out of memory."""
    remedy = "lower --batch-size"
    if program in ("align", "distill"):
        remedy = (
            f"lower {program}.max_tokens_per_device or set {program}.gradient_checkpointing: the result is the same"
        )
    elif program in ("teacher", "mine", "encode"):
        remedy = "lower evaluate.batch_size"
    said = next(line for line in str(error).splitlines() if FULL.search(line))
    return f"{program}: {'. '.join(said.split('. ')[:2])}; {remedy}"

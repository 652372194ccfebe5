"""What the programs end with."""

import errno
import os
import subprocess
import sys

import psutil
import pytest
import torch
import typer

from milco.program import run

# What torch 2.13 says.
FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 GiB is free. "
    "Including non-PyTorch memory, this process has 77.91 GiB memory in use. Of the allocated memory 70.00 GiB is "
    "allocated by PyTorch."
)


@pytest.mark.parametrize(
    ("program", "remedy"),
    [
        ("align", "lower align.max_tokens_per_device or set align.gradient_checkpointing: the result is the same"),
        (
            "distill",
            "lower distill.max_tokens_per_device or set distill.gradient_checkpointing: the result is the same",
        ),
        ("teacher", "lower evaluate.batch_size"),
        ("search", "lower --batch-size"),
    ],
)
def test_a_gpu_whose_memory_is_full_is_one_line_with_what_to_lower(program, remedy, monkeypatch, tmp_path):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)

    @app.command(program)
    def command() -> None:
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr(sys, "argv", ["milco", program])
    monkeypatch.setenv("MILCO_LAST_WORDS", str(tmp_path / "words"))
    with pytest.raises(SystemExit) as end:
        run(app)
    assert end.value.code == f"milco: error: {program}: CUDA out of memory. Tried to allocate 2.00 GiB; {remedy}"
    assert (tmp_path / "words").read_text() == f"{end.value.code}\n"


@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "Cuda failure 2 'out of memory'",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_others_than_torch_miss_is_one_line_too(line, monkeypatch):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)

    @app.command("encode")
    def command() -> None:
        raise RuntimeError(f"NCCL error:\n{line}\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.")

    monkeypatch.setattr(sys, "argv", ["milco", "encode"])
    with pytest.raises(SystemExit) as end:
        run(app)
    assert end.value.code == f"milco: error: encode: {line}; lower evaluate.batch_size"


@pytest.mark.parametrize(
    "text", ["made", "CUDA error: an illegal memory access was encountered", "out of shared memory"]
)
def test_other_errors_keep_their_traceback(text, monkeypatch):
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def command() -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(sys, "argv", ["milco"])
    with pytest.raises(RuntimeError, match=text):
        run(app)


@pytest.mark.parametrize(("code", "name"), [(errno.ENOSPC, None), (errno.ENAMETOOLONG, "x" * 300)])
def test_what_only_the_user_can_mend_is_one_line(monkeypatch, code, name):
    app = typer.Typer()

    @app.command()
    def end() -> None:
        raise OSError(code, os.strerror(code), name)

    monkeypatch.setattr(sys, "argv", ["milco"])
    with pytest.raises(SystemExit) as ended:
        run(app)
    assert ended.value.code == f"milco: error: {f'{name}: ' if name else ''}{os.strerror(code)}"


PROGRAM = """
import os, time
import typer
from milco.program import run

app = typer.Typer()

@app.command()
def wait() -> None:
    print(os.getpid(), flush=True)
    time.sleep(600)

run(app)
"""


@pytest.mark.slow
def test_a_program_does_not_outlive_the_torchrun_that_started_it(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    with subprocess.Popen([*launch, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True) as torchrun:
        program = psutil.Process(int(torchrun.stdout.readline()))
        torchrun.kill()
        program.wait(timeout=20)

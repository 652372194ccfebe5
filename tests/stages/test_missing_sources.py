"""A file of the user's own that is not there: its key is named before Snakemake names the file alone."""

import os
import subprocess

import pytest
from miniature import Project

from milco.config import parse
from milco.errors import MilcoError
from milco.experiments import Experiment


def moved(values: dict, source: str, uri: str) -> dict:
    return {**values, "sources": {**values["sources"], source: {**values["sources"][source], "uri": uri}}}


@pytest.mark.parametrize("source", ["pairs", "triples", "mine", "encoder", "lsr"])
@pytest.mark.parametrize("uri", ["file:data/none.tsv", "file: data/none.tsv", "file:~/none.tsv"])
def test_the_key_of_a_missing_file_is_named(values, source, uri):
    Experiment(parse(values)).check_files()
    with pytest.raises(MilcoError, match=rf"^sources\.{source}\.uri: '.*none\.tsv' does not exist \(seen from /"):
        Experiment(parse(moved(values, source, uri))).check_files()


def test_what_is_not_read_need_not_be_there(values):
    unread = {"uri": "file:none", "format": "pairs", "language": "xx"}
    Experiment(parse({**values, "sources": {**values["sources"], "unread": unread}})).check_files()


@pytest.mark.slow
def test_snakemake_says_so_too(values, tmp_path):
    project = Project(tmp_path, moved(values, "pairs", "file:~/none.tsv"))
    done = subprocess.run(project.command("--dry-run", "corpora"), capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "sources.pairs.uri: " in said and "none.tsv' does not exist" in said


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [True, False])
def test_a_gpu_without_bfloat16_is_named_before_any_job(values, tmp_path, monkeypatch, bf16):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '7.5, Tesla T4'\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # a choice of GPUs is left to the programs
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    project = Project(tmp_path / "project", {**values, "distill": {**values["distill"], "bf16": bf16}})
    done = subprocess.run(project.command("--dry-run", "corpora"), capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert ("distill.bf16: Tesla T4 has no bfloat16; set it to false" in said) == bf16 == (done.returncode == 1)

"""The workflow as a module of somebody's project, as `snakedeploy deploy-workflow` makes it."""

import re
import shutil
import subprocess
import sys

import pytest
from miniature import ROOT, Project

pytestmark = pytest.mark.slow


def test_a_deployed_workflow_trains(tmp_path, values):
    source = tmp_path / "milco"
    for name in ("config", "profiles", "workflow", "milco"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "environment.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, source)
    project = Project(tmp_path / "mine", values)
    deploy = [sys.executable, "-m", "snakedeploy.client", "deploy-workflow", "--branch", "main", source, project.folder]
    subprocess.run(deploy, check=True, capture_output=True)
    snakefile = project.folder / "workflow" / "Snakefile"
    said = snakefile.read_text(encoding="utf-8")
    place = re.search(r'"workflow/Snakefile"', said)  # a folder has no github(…) to stand here
    assert place and "use rule * from milco" in said
    snakefile.write_text(said.replace(place[0], f'"{source}/workflow/Snakefile"'), encoding="utf-8")
    (project.folder / "config" / "config.yaml").write_text((project.folder / "config.yaml").read_text(encoding="utf-8"))
    project.workflow = snakefile
    assert {"align", "distill", "report", "all"} <= project.planned("all")
    project.snakemake("align")
    assert project.one("artifacts/align/*/model/model.safetensors").stat().st_size

"""What Snakemake does after a copy, touch or edit of the user's own files, in folders with a space in their name."""

import os
import shutil
from pathlib import Path

import pytest
from miniature import ROOT, Project

pytestmark = pytest.mark.slow

PLACES = {"lsr": "models/lsr", "encoder": "models/encoder", "pairs": "pairs.tsv", "triples": "triples.jsonl",
          "mine": "collection"}  # fmt: skip


class Clone(Project):
    """A project in a clone of its own, run by the workflow that lies there."""

    def command(self, *arguments: str) -> list[str]:
        python, *words = super().command(*arguments)  # which may lie in the repository itself, as .venv
        return [python, *(word.replace(str(ROOT), str(self.folder)) for word in words)]


@pytest.fixture(scope="module")
def project(tmp_path_factory, values) -> Project:
    """Stage 1 of a clone "My Project" whose sources lie in "my data"."""
    data = tmp_path_factory.mktemp("own") / "my data"
    sources = {}
    for name, place in PLACES.items():
        source = values["sources"][name]
        path = Path(source["uri"].removeprefix("file:"))
        (shutil.copytree if path.is_dir() else shutil.copy)(path, make_room(data / place))
        sources[name] = {**source, "uri": f"file:{data / place}"}
    project = Clone(data.parent / "My Project", {**values, "sources": sources})
    for part in ("workflow", "config", "milco", "profiles"):
        shutil.copytree(ROOT / part, project.folder / part)
    shutil.copy(ROOT / "environment.yml", project.folder)
    project.snakemake("align")
    return project


def make_room(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def place(project: Project, name: str) -> Path:
    return Path(project.values["sources"][name]["uri"].removeprefix("file:"))


def test_touches_copies_and_stray_files_rerun_nothing(project):
    for name in PLACES:
        os.utime(place(project, name))
    (place(project, "encoder") / ".nfs0001").touch()
    (place(project, "mine") / "README.md").touch()
    backup = shutil.copytree(place(project, "encoder"), project.folder / "backup", copy_function=shutil.copyfile)
    shutil.rmtree(place(project, "encoder"))
    shutil.copytree(backup, place(project, "encoder"), copy_function=shutil.copyfile)  # all times are new
    assert project.planned("align") == set()


@pytest.mark.parametrize(
    ("name", "file", "rules"),
    [
        ("pairs", "", {"corpora", "tokenize", "teacher", "development", "align"}),
        ("encoder", "config.json", {"tokenize", "development", "align"}),
        ("lsr", "config.json", {"teacher", "development", "align"}),
        ("lsr", "README.md", set()),
    ],
)
def test_an_edit_in_place_reruns_what_hangs_on_it_and_taken_back_nothing(project, name, file, rules):
    path = place(project, name) / file if file else place(project, name)
    path.touch()
    before = path.read_bytes()
    times = path.parent.stat()
    path.write_bytes(before + b"\n")
    os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert project.planned("align") == rules
    path.write_bytes(before)
    assert project.planned("align") == set()

"""Publishing with the real client of the Hugging Face Hub, to one on this machine (hub.py), and all its failures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub as loopback
import numpy as np
import pytest
import yaml
from test_model import TEXTS

from milco.data.vectors import load_vectors, save_vectors
from milco.modeling.pruning import prune
from milco.tools.export import export

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKEN, STRANGER = "hf_averysecrettokenindeed", "hf_anothersecrettoken"
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"
REPOSITORY = "models/owner/name"


@pytest.fixture
def hub():
    with loopback.running() as running:
        running.writers = {TOKEN: {"owner"}, STRANGER: {"stranger"}}
        yield running


class Publish:
    """`python -m milco.stages publish` of a model that prunes documents, with a card and vectors."""

    def __init__(self, hub: loopback.Hub, folder: Path, model_folder: Path):
        self.hub, self.folder, self.receipt = hub, folder, folder / "published.json"
        export(model_folder, folder / "model", pruned={"documents": {"all": "top-k 3"}})
        (folder / "model" / ".snakemake_timestamp").touch()
        (folder / "card.md").write_text(CARD)

    def run(self, *arguments: str, token: str | None = TOKEN, **settings) -> subprocess.CompletedProcess:
        values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
        values["publish"] = {"repo": "owner/name", **settings}
        (self.folder / "my.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": self.hub.address, "HF_HOME": str(self.folder / "home"), "PYTHONPATH": str(ROOT)}
        environment |= {"HF_HUB_DISABLE_XET": "1", "no_proxy": "*", **({"HF_TOKEN": token} if token else {})}
        command = [sys.executable, "-m", "milco.stages", "publish", "--config", "my.yaml", "--model", "model"]
        done = subprocess.run(
            [*command, "--card", "card.md", "--output", "published.json", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert TOKEN not in done.stdout + done.stderr and STRANGER not in done.stdout + done.stderr
        return done

    def succeeds(self, *arguments: str, **settings) -> str:
        """Publish, and give the commit that the receipt names."""
        done = self.run(*arguments, **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(self.receipt.read_text())["commit"]

    def fails(self, **settings) -> str:
        """Publish in vain, and give the one line that says why."""
        done = self.run(**settings)
        assert done.returncode == 1 and not self.receipt.exists()
        line = done.stderr.splitlines()[-1]
        assert line.startswith("milco: error: publish.repo: ") and "Traceback" not in done.stderr, done.stderr
        return line

    def uploaded(self) -> list[str]:
        return [request.path for request in self.hub.log if request.path.startswith("/upload/")]


@pytest.fixture
def publish(hub, tmp_path, model_folder):
    return Publish(hub, tmp_path, model_folder)


def test_model_card_and_pruned_vectors_are_one_commit_and_the_same_again_is_none(publish, hub, model):
    rows = model.encode_document(TEXTS)
    (publish.folder / "vectors").mkdir()
    ids = [f"d{number}" for number in range(len(TEXTS))]
    save_vectors(publish.folder / "vectors" / "documents-00000.safetensors", rows, ids, 61)
    save_vectors(publish.folder / "vectors" / "queries-00000.safetensors", rows, ids, 61)
    commit = publish.succeeds("--vectors", "vectors")
    repository = hub.repositories[REPOSITORY]
    assert list(repository.commits) == [commit] and repository.private
    files = repository.commits[commit]
    wanted = {path.relative_to(publish.folder / "model") for path in (publish.folder / "model").rglob("*.*")}
    wanted = {path.as_posix(): (publish.folder / "model" / path).read_bytes() for path in wanted if path.stem[0] != "."}
    assert wanted.items() <= files.items() and files["README.md"] == CARD.encode()
    vectors = {
        f"vectors/{side}-00000{end}" for side in ("queries", "documents") for end in (".safetensors", ".ids.txt")
    }
    assert files.keys() == wanted.keys() | vectors | {"README.md"}
    for side, budget in (("documents", "top-k 3"), ("queries", "none")):
        for end in (".safetensors", ".ids.txt"):
            (publish.folder / f"{side}{end}").write_bytes(files[f"vectors/{side}-00000{end}"])
        found, names = load_vectors(publish.folder / f"{side}.safetensors")
        assert names == ids
        np.testing.assert_array_equal(found.toarray(), prune(rows, budget).toarray())
    sent = publish.uploaded()
    publish.receipt.unlink()
    assert publish.succeeds("--vectors", "vectors") == commit and list(repository.commits) == [commit]
    (publish.folder / "card.md").write_text(CARD + "More.\n")
    publish.receipt.unlink()
    second = publish.succeeds()
    assert list(repository.commits) == [commit, second] and publish.uploaded() == sent  # large files are there
    assert repository.commits[second] == files | {"README.md": (CARD + "More.\n").encode()}


def test_a_public_repository_is_public_only_if_asked(publish, hub):
    publish.succeeds(private=False)
    assert not hub.repositories[REPOSITORY].private


FAILURES = {
    "no token": ({"token": None}, {}, "no token to write with; set HF_TOKEN or log in with `hf auth login`"),
    "unknown token": ({"token": "hf_unknown"}, {}, "the hub does not know the token (401); set HF_TOKEN"),
    "token of another": ({"token": STRANGER}, {}, "the token may not write to owner/name (403); take one with write"),
    "busy": ({}, {"part": "/repos/create", "status": 429, "times": 99}, "the hub is busy or out of order (429) and"),
    "dropped": ({}, {"part": "/commit/", "hang_up": True}, "owner/name did not take it: "),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_one_line_leaves_no_receipt_and_the_next_run_is_clean(publish, hub, case):
    settings, fault, says = FAILURES[case]
    if fault:
        hub.fault(**fault)
    assert says in publish.fails(**settings)
    hub.faults.clear()
    sent = publish.uploaded()
    commit = publish.succeeds()
    assert list(hub.repositories[REPOSITORY].commits) == [commit]
    assert len(publish.uploaded()) == 1 and (not sent or sent == publish.uploaded())


def test_a_card_that_the_hub_does_not_take_and_a_missing_repository_are_named(publish):
    (publish.folder / "card.md").write_text(CARD.replace("apache-2.0", "mine"))
    assert 'did not take it: Invalid metadata in README.md. - "license" must be one of' in publish.fails()
    done = publish.run(repo=None)
    assert done.stderr.splitlines()[-1] == "milco: error: publish.repo is not set: write OWNER/NAME there"

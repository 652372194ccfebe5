"""A miniature of the whole DAG on a user's own files: tiny checkpoints, parallel text, triples, a test collection."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

from milco.model import MilcoModel

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "config" / "demo.yaml"
OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def words(checkpoint: Path) -> list[str]:
    return sorted(word for word in AutoTokenizer.from_pretrained(checkpoint).get_vocab() if word.strip("▁").isalpha())


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_data(folder: Path, teacher: Path, encoder: Path) -> None:
    """Parallel text, triples and a collection in which word n of English is word n of the other language."""
    chance = random.Random(0)
    english, foreign = words(teacher), [word.strip("▁") for word in words(encoder)]
    pairs = dict(zip(english, foreign, strict=False))
    texts = [chance.sample(sorted(pairs), 4) for _ in range(120)]

    def translate(text: list[str]) -> str:
        return " ".join(pairs[word] for word in text) + "!"

    write_lines(folder / "pairs.tsv", [f"{' '.join(text)}\t{translate(text)}" for text in texts[:80]])
    triples = [
        {
            "query": translate(text[:2]),
            "pos": [" ".join(text)],
            "neg": [" ".join(other) for other in chance.sample(texts[:80], 5)],
            "pos_scores": [9.0],
            "neg_scores": [3.0, 2.0, 1.0, 1.0, 0.0],
        }
        for text in texts[:40]
    ]
    write_lines(folder / "triples.jsonl", [json.dumps(triple) for triple in triples])
    for split in ("test", "dev"):
        documents = {f"d{n}": " ".join(text) for n, text in enumerate(texts[80:])}
        queries = {f"q{n}": translate(text[:2]) for n, text in enumerate(texts[80:100])}
        beir = folder / "collection"
        write_lines(beir / "corpus.jsonl", [json.dumps({"_id": k, "text": v}) for k, v in documents.items()])
        write_lines(beir / "queries.jsonl", [json.dumps({"_id": k, "text": v}) for k, v in queries.items()])
        write_lines(
            beir / "qrels" / f"{split}.tsv",
            ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(20))],
        )


def settings(data: Path, teacher: Path, encoder: Path) -> dict:
    training = {"bf16": False, "learning_rate": 1e-3, "global_batch_size": 8, "logging_steps": 2, "save_steps": 4}
    return {
        "experiment": "miniature",
        "languages": ["xx"],
        "eval_languages": ["xx"],
        "sources": {
            "lsr": {"uri": f"file:{teacher}", "format": "transformers"},
            "encoder": {"uri": f"file:{encoder}", "format": "transformers"},
            "pairs": {"uri": f"file:{data}/pairs.tsv", "format": "pairs", "language": "xx"},
            "triples": {"uri": f"file:{data}/triples.jsonl", "format": "triples"},
            "mine": {
                "uri": f"file:{data}/collection",
                "format": "beir",
                "language": "xx",
                "document_language": "en",
            },
        },
        "model": {"multilingual_encoder_checkpoint": "encoder", "lsr_encoder_checkpoint": "lsr", "dropout": 0.1},
        "align": {
            "train_datasets": ["pairs"],
            "max_length": 16,
            "num_train_epochs": 2,
            "eval_steps": 10,
            "warm_start_texts": 20,
            "pairs_per_text": 2,
            **training,
        },
        "distill": {"train_datasets": ["triples"], "num_train_epochs": 2, "train_group_size": 3, **training},
        "evaluate": {
            "test_collections": ["mine"],
            "development_collections": ["mine"],
            "top_k": [2, 5],
            "mass": [0.5],
            "examples": {"xx": "hello world"},
        },
    }


class Project:
    """A folder with a configuration in which Snakemake is run as a user runs it."""

    def __init__(self, folder: Path, values: dict):
        self.folder, self.values = folder, values
        folder.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self, **changes) -> None:
        values = {key: {**value, **changes.get(key, {})} if isinstance(value, dict) else value
                  for key, value in self.values.items()}  # fmt: skip
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        profile = ["--profile", str(ROOT / "profiles" / "local"), "--configfile", str(self.folder / "config.yaml")]
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
        return [*snakemake, *profile, "--directory", str(self.folder), "--cores", "2", *arguments]

    def snakemake(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env={**os.environ, **OFFLINE}, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> set[str]:
        """Rules that a dry run would run."""
        output = self.snakemake("--dry-run", *arguments)
        table = output.split("Job stats:")[1].split("total")[0] if "Job stats:" in output else ""
        return {line.split()[0] for line in table.splitlines()[3:] if line.strip()}

    def one(self, pattern: str) -> Path:
        (found,) = self.folder.glob(pattern)
        return found


@pytest.fixture(scope="module")
def values(tmp_path_factory, teacher_checkpoint, encoder_checkpoint) -> dict:
    data = tmp_path_factory.mktemp("data")
    write_data(data, teacher_checkpoint, encoder_checkpoint)
    return settings(data, teacher_checkpoint, encoder_checkpoint)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, values) -> Project:
    project = Project(tmp_path_factory.mktemp("finished"), values)
    project.snakemake("all")
    return project


def test_the_report_has_every_part_and_no_outside_resource(finished):
    page = finished.one("results/miniature/report.html").read_text(encoding="utf-8")
    for part in ("Across languages", "Learning", "Pruning", "Inverted index", "Texts as weighted words", "Time"):
        assert part in page
    assert page.count("<svg") == 2
    assert "<script" not in page and 'src="http' not in page and "<link" not in page and "url(http" not in page


def test_the_metrics_are_tidy_and_complete(finished):
    table = pd.read_csv(finished.one("results/miniature/metrics.csv"))
    assert list(table) == [
        "experiment", "system", "collection", "query_language", "document_language", "measure", "value",
    ]  # fmt: skip
    assert set(table.system) == {"bm25", "teacher", "dense", "align", "distill", "distill-pivot"}
    assert set(table.measure) == {"nDCG@10", "RR@10", "R@100"}
    assert table.value.between(0, 1).all() and len(table) == 18


def test_the_summary_has_a_row_for_every_system(finished):
    summary = finished.one("results/miniature/summary.md").read_text(encoding="utf-8")
    for system in ("BM25", "English teacher", "Stage 1", "Stage 2", "Stage 2, pivot view alone"):
        assert f"| {system} |" in summary


def test_the_model_loads_from_its_folder_alone(finished, tmp_path):
    shutil.copytree(finished.one("results/miniature/model"), tmp_path / "model")
    code = (
        "import sys; from milco.model import MilcoModel; m = MilcoModel.from_pretrained(sys.argv[1]);"
        "print(m.decode(m.encode_query(['hello'])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        capture_output=True, text=True, env={**os.environ, **OFFLINE}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert MilcoModel.from_pretrained(tmp_path / "model").config.echo


def test_every_run_folder_explains_itself(finished):
    for stage in ("align", "distill"):
        folder = finished.one(f"artifacts/{stage}/*")
        assert {"config.yaml", "environment.json", "metrics.jsonl", "model"} <= {p.name for p in folder.iterdir()}
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert any("dev_nDCG@10" in row for row in rows) and any("loss" in row for row in rows)


def test_a_second_run_does_nothing(finished):
    assert finished.planned("all") == set()


def test_a_new_lambda_reruns_stage_two_and_what_follows(finished):
    finished.configure(distill={"lambda_d": 0.5})
    try:
        assert finished.planned("all") == {
            "all", "distill", "encode", "evaluate", "export", "index", "merge", "prune", "report",
        }  # fmt: skip
    finally:
        finished.configure()


def test_the_target_align_stops_after_stage_one(tmp_path, values):
    project = Project(tmp_path, values)
    assert project.planned("align") == {"align", "corpora", "teacher", "tokenize"}


def train_until_killed(project: Project) -> None:
    """Start Stage 1 and kill everything, Snakemake and training alike, after the first checkpoint."""
    process = subprocess.Popen(
        project.command("align"), env={**os.environ, **OFFLINE}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.time() + 120
    while not list(project.folder.glob("artifacts/align/*/checkpoints/checkpoint-*")) and time.time() < deadline:
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.05)
    subprocess.run(["pkill", "-KILL", "-f", f"torchrun.*{project.folder}"], check=False)
    subprocess.run(["pkill", "-KILL", "-f", f"milco align.*{project.folder}"], check=False)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, values, finished):
    project = Project(tmp_path, values)
    train_until_killed(project)
    assert not list(tmp_path.glob("artifacts/align/*/model"))
    output = project.snakemake("--nolock", "align")
    assert "resumed from checkpoint-" in output
    undisturbed = load_file(finished.one("artifacts/align/*/model/model.safetensors"))
    resumed = load_file(project.one("artifacts/align/*/model/model.safetensors"))
    assert undisturbed.keys() == resumed.keys()
    assert all(undisturbed[name].equal(resumed[name]) for name in undisturbed)
    metrics = project.one("artifacts/align/*/metrics.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in metrics.splitlines()]
    assert steps == sorted(steps)


def test_two_processes_and_accumulation_agree_with_one(tmp_path, values):
    plain = {**values, "model": {**values["model"], "dropout": 0.0}}
    weights = []
    for processes, micro_batch in ((1, 8), (2, 8), (1, 4)):
        project = Project(tmp_path / f"{processes}-{micro_batch}", plain)
        size = {"per_device_train_batch_size": micro_batch}
        project.configure(align=size, distill=size)
        layout = [f"{stage}:processes_per_node={processes}" for stage in ("align", "distill")]
        project.snakemake("distill", "--set-resources", *layout)
        weights.append(load_file(project.one("artifacts/distill/*/model/model.safetensors")))
    for name, value in weights[0].items():
        # The keys' biases change no attention: their gradient is rounding noise, which Adam blows up to full steps.
        tolerance = 1e-2 if name.endswith("key.bias") else 1e-4
        assert value.allclose(weights[1][name], atol=tolerance), name
        assert value.allclose(weights[2][name], atol=tolerance), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distill": {"lamda_d": 1}}, "distill.lamda_d: unknown key"),
        ({"align": {"learning_rate": "fast"}}, "align.learning_rate"),
        ({"align": {"train_datasets": ["nowhere"]}}, "align.train_datasets: no source 'nowhere'"),
    ],
)
def test_a_wrong_key_stops_before_any_job(tmp_path, values, change, message):
    project = Project(tmp_path, values)
    project.configure(**change)
    done = subprocess.run(project.command("all"), capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stdout + done.stderr
    assert not (tmp_path / "artifacts").exists()


def test_the_demo_can_be_planned_and_drawn_before_anything_is_fetched(tmp_path):
    profile = ["--profile", str(ROOT / "profiles" / "local"), "--configfile", str(DEMO), "--directory", str(tmp_path)]
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), *profile]
    plan = subprocess.run([*snakemake, "--dry-run", "all"], capture_output=True, text=True)
    assert plan.returncode == 0 and "fetch" in plan.stdout
    graph = subprocess.run([*snakemake, "all", "--rulegraph"], capture_output=True, text=True)
    command = [sys.executable, "-m", "milco", "dag", "--output", str(tmp_path / "dag.svg")]
    subprocess.run(command, input=graph.stdout, text=True, check=True)
    drawing = (tmp_path / "dag.svg").read_text(encoding="utf-8")
    assert drawing.count("<svg") == 1 and not (tmp_path / "resources").exists()


@pytest.mark.parametrize("target", ["dag", "dry-run"])
def test_make_plans_and_draws_as_the_readme_says(target):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", target, f"VENV={sys.prefix}", f"--assume-old={sys.prefix}/installed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]

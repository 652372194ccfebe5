"""A miniature of the whole DAG on a user's own files: tiny checkpoints, parallel text, triples, a test collection."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hub as loopback
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from miniature import OFFLINE, ROOT, Project
from safetensors.torch import load_file
from scipy.sparse import csr_array, vstack

from milco.data.vectors import load_vectors
from milco.environment import environment
from milco.evaluation.budgets import choices
from milco.modeling.model import MilcoModel

pytestmark = pytest.mark.slow

DEMO = ROOT / "config" / "demo.yaml"


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
        "import sys; from milco.modeling.model import MilcoModel; m = MilcoModel.from_pretrained(sys.argv[1]);"
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
    for name in ("report.html", "summary.md"):  # every stage said where it was made
        page = finished.one(f"results/miniature/{name}").read_text(encoding="utf-8")
        assert "not recorded" not in page and f"commit {environment()['commit']}" in page


def test_a_second_run_does_nothing(finished):
    assert finished.planned("all") == set()


def test_snakemake_s_own_report_has_our_page_with_its_caption(finished, tmp_path):
    finished.snakemake("--report", str(tmp_path / "whole.html"), "all")
    page = (tmp_path / "whole.html").read_text(encoding="utf-8")
    assert '"caption": "<p>Results of miniature: nDCG@10 and other measures' in page.replace("&#64;", "@")
    assert "results/miniature/report.html" in page


def test_a_copy_with_new_times_does_nothing_and_other_content_is_noticed(tmp_path, values, finished):
    project = Project(tmp_path, values)
    subprocess.run(["cp", "-a", f"{finished.folder}/.", tmp_path], check=True)
    made = [path for name in ("artifacts", "results") for path in (tmp_path / name).rglob("*")]
    random.Random(0).shuffle(made)
    for number, path in enumerate(made):
        os.utime(path, (2e9 + number, 2e9 + number))
    assert project.planned("all") == set()
    record = json.loads(project.one("artifacts/corpora/*/environment.json").read_text(encoding="utf-8"))
    project.one("artifacts/corpora/*/environment.json").write_text(json.dumps({**record, "cores": 99}))
    assert project.planned("all") == set()
    with project.one("artifacts/triples/*.parquet").open("ab") as file:
        file.write(b"longer")
    assert {"pack", "distill", "report"} <= project.planned("all")


def test_a_forced_stage_trains_again(tmp_path, values, finished):
    project = Project(tmp_path, values)
    subprocess.run(["cp", "-a", f"{finished.folder}/.", tmp_path], check=True)
    before = project.one("artifacts/distill/*/.trained").stat().st_mtime
    project.snakemake("distill", "--forcerun", "distill")
    assert project.one("artifacts/distill/*/.trained").stat().st_mtime > before


EVALUATED = {"all", "encode", "merge", "evaluate", "index", "prune", "report", "export"}
REPORTED = {"all", "report", "export"}
TRAINED = {"development", "align", "distill", "tune"}
# docs/running.md's table "I changed …", line by line.
RERUNS = {
    "a key under distill": ({"distill": {"lambda_d": 0.5}}, EVALUATED | TRAINED - {"align"}),
    "a key under align": ({"align": {"learning_rate": 0.5}}, EVALUATED | TRAINED),
    "negatives": ({"distill": {"hard_negatives": 8}}, EVALUATED | TRAINED - {"align"} | {"mine", "pack", "overlap"}),
    "precision of the teacher": (
        {"align": {"teacher_precision": "bf16"}},
        EVALUATED | TRAINED | {"teacher", "mine", "pack", "overlap"},
    ),
    "layers": ({"model": {"encoder_layers": 1}}, EVALUATED | TRAINED),
    "encoder": (
        {"model": {"multilingual_encoder_checkpoint": "encoder-2"}},
        EVALUATED | TRAINED | {"tokenize", "pack"},
    ),
    "teacher": (
        {"model": {"lsr_encoder_checkpoint": "lsr-2"}},
        EVALUATED | TRAINED | {"teacher", "mine", "pack", "overlap"},
    ),
    "languages": (
        {"languages": ["xx", "yy"]},
        EVALUATED | TRAINED | {"corpora", "tokenize", "teacher", "mine", "pack", "overlap"},
    ),
    "test collections": (
        {"evaluate": {"test_collections": ["mine", "more"]}},
        EVALUATED - {"export"} | {"collections", "overlap"},
    ),
    "test collections, taken out": (
        {"evaluate": {"test_collections": ["mine", "more"]}, "corpora": {"decontaminate_for": "all"}},
        EVALUATED | TRAINED | {"corpora", "collections", "tokenize", "teacher", "mine", "pack", "overlap"},
    ),
    "development collections": (
        {"evaluate": {"development_collections": ["more"]}},
        REPORTED | {"development", "encode", "merge", "tune"},
    ),
    "development collections and a key under distill": (
        {"evaluate": {"development_collections": ["more"]}, "distill": {"lambda_d": 0.5}},
        EVALUATED | {"development", "distill", "tune"},
    ),
    "measures": ({"sources": {"mine": {"measures": ["nDCG@10", "P@5"]}}}, {"all", "evaluate", "report"}),
    "pruning budgets": ({"evaluate": {"top_k": [3]}}, REPORTED | {"prune", "tune"}),
    "budget of the exported model": ({"export": {"prune_documents": "top-k 3"}}, REPORTED),
    "layout": ({"align": {"max_tokens_per_device": 64}, "distill": {"logging_steps": 1}}, {"all", "report"}),
    "looks": (
        {"evaluate": {"examples": {"xx": "a new one"}, "development_queries": 3}, "distill": {"eval_steps": 3}},
        {"all", "report"},
    ),
    "the weights that are kept": ({"distill": {"keep": "best"}}, EVALUATED | TRAINED - {"align"}),
    "name": ({"experiment": "other"}, REPORTED),
}


@pytest.mark.parametrize("changed", RERUNS)
def test_a_change_reruns_what_it_decides(finished, changed):
    change, rules = RERUNS[changed]
    copies = {}
    for name in ("encoder", "lsr"):
        source = finished.values["sources"][name]
        other = finished.folder / f"{name}-2"
        if not other.exists():
            other.symlink_to(source["uri"].removeprefix("file:"))
        copies[other.name] = {**source, "uri": f"file:{other}"}
    mine = {**finished.values["sources"]["mine"], **change.get("sources", {}).get("mine", {})}
    finished.configure(**{**change, "sources": {**copies, "mine": mine, "more": finished.values["sources"]["mine"]}})
    try:
        assert finished.planned("all") == rules
    finally:
        finished.configure()
    assert finished.planned("all") == set()


def test_files_of_the_user_that_lie_elsewhere_rerun_nothing(finished, tmp_path):
    sources = {}
    for name, source in finished.values["sources"].items():
        if source["uri"].startswith("file:"):
            here = finished.folder / source["uri"].removeprefix("file:")
            there = tmp_path / name / here.name
            there.parent.mkdir()
            shutil.copytree(here, there) if here.is_dir() else shutil.copy(here, there)
            sources[name] = {**source, "uri": f"file:{there}"}
    assert sources
    finished.configure(sources=sources)
    try:
        assert finished.planned("all") <= {"all", "report"}
    finally:
        finished.configure()


def moved(finished: Project, place: Path, *arguments: str) -> list[str]:
    """A dry run by a copy of the project that lies elsewhere."""
    for part in ("workflow", "config", "milco", "profiles"):
        shutil.copytree(ROOT / part, place / part)
    command = finished.command("--dry-run", *arguments)
    for part in ("workflow", "profiles"):
        command = [word.replace(str(ROOT / part), str(place / part)) for word in command]
    return command


def test_a_moved_project_reruns_nothing(finished, tmp_path):
    plan = subprocess.run(moved(finished, tmp_path, "all"), capture_output=True, text=True)
    assert plan.returncode == 0 and "Nothing to be done" in plan.stdout + plan.stderr, plan.stdout[-2000:]


@pytest.mark.parametrize(("triggers", "again"), [([], True), (["--rerun-triggers", "mtime"], False)])
def test_a_changed_rule_reruns_unless_only_times_count(finished, tmp_path, triggers, again):
    command = moved(finished, tmp_path, *triggers, "--", "all")
    rule = tmp_path / "workflow" / "rules" / "distill.smk"
    rule.write_text(rule.read_text().replace("params:", "params:\n        changed=True,"))
    plan = subprocess.run(command, capture_output=True, text=True)
    assert plan.returncode == 0 and ("Stage 2: distillation" in plan.stdout) == again, plan.stdout[-2000:]


def test_publishing_without_a_repository_is_refused_before_any_job(finished):
    plan = subprocess.run(finished.command("--dry-run", "publish"), capture_output=True, text=True)
    assert plan.returncode and "publish.repo is not set: write OWNER/NAME" in plan.stdout + plan.stderr


def test_every_command_of_the_page_on_publishing_works(finished, tmp_path):
    project = Project(tmp_path, finished.values)
    subprocess.run(["cp", "-a", f"{finished.folder}/.", tmp_path], check=True)
    project.configure(experiment="demo", publish={"repo": "owner/name", "vectors": True})
    page = (ROOT / "docs" / "publish.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    # First what the page takes for granted; then each command, with the miniature in the place of the demo.
    script = [f'set -euo pipefail\nsnakemake() {{ {shlex.join(project.command())} "${{@:3}}"; }}\n']
    script += ["snakemake --profile profiles/local all\n", *blocks]
    with loopback.running() as hub:
        hub.writers = {"hf_secret": {"owner"}}
        environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "no_proxy": "*"}
        done = subprocess.run(
            ["bash", "-c", "".join(script)], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (repository,) = hub.repositories.values()
    receipt = json.loads(project.one("results/demo/published.json").read_text())
    files = repository.commits[receipt["commit"]]
    assert {"README.md", "config.json", "model.safetensors", "vectors/queries-00000.safetensors"} <= files.keys()
    card = files["README.md"].decode()
    assert ModelCard(card).data.language == ["en", "xx"] and str(tmp_path) not in card and "file:/" not in card
    tuned, measured = (pd.read_parquet(project.one(f"artifacts/{rule}/*.parquet")) for rule in ("tune", "prune"))
    wanted = choices(tuned, measured).budget["documents"]
    assert json.loads(files["config.json"])["document_budgets"] == {"all": wanted}
    assert "On the development collections" in card
    logs = [path.read_text() for path in tmp_path.glob("logs/**/*") if path.is_file()]
    assert "hf_secret" not in done.stdout + done.stderr + "".join(logs)


def test_until_stops_after_a_rule_and_forcerun_begins_with_one(finished, tmp_path, values):
    assert Project(tmp_path, values).planned("--until", "tokenize", "--", "all") == {"corpora", "tokenize"}
    assert finished.planned("--forcerun", "distill", "--", "all") == EVALUATED | {"distill", "tune"}


VARIANTS = {
    "no-echo": {"model": {"echo": False}},
    "no-stage-1": {"distill": {"pretrained_alignment_checkpoint": "none"}},
    "longer": {"align": {"num_train_epochs": 3}},
    "second-round": {"distill": {"miner": "distill"}},
}


def test_variants_share_what_they_have_in_common_and_are_compared(finished, tmp_path):
    project = Project(tmp_path, {**finished.values, "experiments": VARIANTS})
    shutil.copytree(finished.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    project.configure()
    plan = project.snakemake("--dry-run", "ablations")
    jobs = dict(line.split() for line in plan.split("Job stats:")[1].split("total")[0].splitlines()[3:] if line.strip())
    assert jobs == {
        "development": "5",
        "align": "1",
        "distill": "4",
        "mine": "1",
        "pack": "1",
        "encode": "5",
        "merge": "5",
        "evaluate": "5",
        "ablations": "1",
    }
    assert project.planned("trainings") == {"development", "align", "distill", "mine", "pack"}
    project.snakemake("ablations")
    assert project.planned("trainings") == set()
    table = pd.read_csv(project.one("results/miniature/ablations.csv"), index_col="experiment")
    assert list(table.index) == [
        "Stage 2", "BM25", "English teacher", "dense encoder, untrained", "Stage 1", "Stage 2, pivot view alone",
        "longer", "longer: Stage 1", "no-echo", "no-stage-1", "second-round",
    ]  # fmt: skip
    measured = pd.read_csv(project.one("results/miniature/metrics.csv")).query("measure == 'nDCG@10'")
    assert table["nDCG@10"]["Stage 1"] == pytest.approx(measured.set_index("system").value["align"], abs=1e-6)
    assert table.changes["no-echo"] == "model.echo: false" and table.made["no-echo"] == "Stage 2"
    assert table.made["second-round"] == "triples, token cache of Stage 2, Stage 2"
    page = project.one("results/miniature/ablations.html").read_text(encoding="utf-8")
    assert "second-round" in page and "<script" not in page
    assert project.planned("ablations") == set()


def test_further_seeds_share_the_data_and_stand_in_the_report(finished, tmp_path):
    project = Project(tmp_path, finished.values)
    shutil.copytree(finished.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    project.configure(seeds=[42, 7])  # the first is that of the finished training
    plan = project.snakemake("--dry-run", "all")
    jobs = dict(line.split() for line in plan.split("Job stats:")[1].split("total")[0].splitlines()[3:] if line.strip())
    twice = {"development": "2", "align": "1", "distill": "1", "encode": "2", "merge": "2", "evaluate": "3"}
    assert jobs == {**twice, "report": "1", "all": "1"}
    project.snakemake("all")
    figures = {}
    for system in ("align", "distill"):
        runs = [pd.read_parquet(path) for path in tmp_path.glob(f"artifacts/runs/{system}-{'?' * 10}/measures.parquet")]
        runs = [table[table.measure == "nDCG@10"].set_index("query").value for table in runs]
        assert len(runs) == 2 and set(runs[0].index) == set(runs[1].index)  # the same queries
        figures[system] = [table.mean() for table in runs]
    summary = project.one("results/miniature/summary.md").read_text(encoding="utf-8")
    for system, name in (("align", "Stage 1"), ("distill", "Stage 2")):
        (line,) = re.findall(rf"^\| {name} \|(.*)\|$", summary.split("| system, by training seed |")[1], re.MULTILINE)
        *seeds, mean, deviation, interval = [cell.strip() for cell in line.split("|")]
        assert sorted(map(float, seeds)) == pytest.approx(sorted(figures[system]), abs=6e-4)
        assert float(mean) == pytest.approx(np.mean(figures[system]), abs=6e-4)
        assert float(deviation) == pytest.approx(np.std(figures[system], ddof=1), abs=6e-5) and "…" in interval
    measured, before = (pd.read_csv(p.one("results/miniature/metrics.csv")) for p in (project, finished))
    first = measured.experiment == "miniature"
    assert measured[first].equals(before)  # the main tables are those of the first seed
    other = measured[~first & (measured.measure == "nDCG@10")].set_index("system")
    assert set(other.experiment) == {"miniature-seed-7"} and set(other.index) >= {"align", "distill"}
    assert all(min(abs(other.value[name] - value) for value in figures[name]) < 1e-6 for name in figures)
    assert "distill, seed 7" in project.one("results/miniature/report.html").read_text(encoding="utf-8")
    assert project.planned("all") == project.planned("align", "evaluate") == set()
    assert len(list(tmp_path.glob("artifacts/align/*/model"))) == 2
    assert project.planned("ablations") == {"ablations"}
    project.snakemake("ablations")
    table = pd.read_csv(project.one("results/miniature/ablations.csv"), index_col="experiment")
    assert table["nDCG@10"]["Stage 2"] == pytest.approx(np.mean(figures["distill"]))
    assert table.deviation["Stage 2"] == pytest.approx(np.std(figures["distill"], ddof=1))
    assert table.seeds[["Stage 2", "Stage 1", "BM25"]].tolist() == [2, 2, 1]


def test_the_target_align_stops_after_stage_one(tmp_path, values):
    project = Project(tmp_path, values)
    assert project.planned("align") == {"align", "corpora", "development", "teacher", "tokenize"}


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


def test_two_processes_and_small_parts_agree_with_one(tmp_path, values, finished):
    """Parts whose gradients are summed, and, as the losses of Stage 2 look at the whole batch, its gradient cache."""
    plain = {**values, "model": {**values["model"], "dropout": 0.0}}
    compared = {"contrastive_weight": 0.5, "sparse_reg": "flops"}
    weights, first_steps = [], []
    for processes, tokens in ((1, 10_000), (2, 10_000), (1, 50), (2, 20)):
        project = Project(tmp_path / f"{processes}-{tokens}", plain)
        project.prepare(finished)
        budget = {"max_tokens_per_device": tokens, "dataloader_num_workers": processes - 1, "logging_steps": 1}
        project.configure(align=budget, distill={**budget, **compared})
        layout = [f"{stage}:processes_per_node={processes}" for stage in ("align", "distill")]
        project.snakemake("distill", "--set-resources", *layout)
        weights.append(load_file(project.one("artifacts/distill/*/model/model.safetensors")))
        rows = [json.loads(project.one(f"artifacts/{stage}/*/metrics.jsonl").read_text().splitlines()[0])
                for stage in ("align", "distill")]  # fmt: skip
        first_steps.append([{name: row[name] for name in row if name.startswith(("loss", "grad"))} for row in rows])
    for steps in first_steps[1:]:
        for step, wanted in zip(steps, first_steps[0], strict=True):
            assert step == pytest.approx(wanted, rel=2e-5)
    for name, value in weights[0].items():
        # The keys' biases change no attention: their gradient is rounding noise, which Adam blows up to full steps, as
        # it does here and there with a weight whose gradient is next to nothing; a maximum may then change its place.
        tolerance = 1e-2 if name.endswith("key.bias") else 1e-3
        for other in weights[1:]:
            assert (value - other[name]).abs().flatten().quantile(0.98) < tolerance, name


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


def bare_path(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has nothing of SLURM's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "git", "which"):
        (folder / tool).symlink_to(shutil.which(tool))
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{folder}"}


@pytest.mark.parametrize("profile", sorted(path.name for path in (ROOT / "profiles").iterdir()))
@pytest.mark.parametrize("file", ["demo.yaml", "milco.yaml", "authors-code.yaml"])
def test_every_configuration_is_planned_with_every_profile_where_there_is_no_slurm(tmp_path, file, profile):
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile", "--directory", tmp_path,
        "--profile", ROOT / "profiles" / profile, "--configfile", ROOT / "config" / file, "--dry-run", "all",
    ]  # fmt: skip
    environment = bare_path(tmp_path)
    assert shutil.which("sinfo", path=environment["PATH"]) is None
    plan = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert plan.returncode == 0 and "distill" in plan.stdout, plan.stdout[-1000:] + plan.stderr[-1000:]


def launches(tmp_path: Path, *arguments: str, profile: str = "slurm") -> dict[str, str]:
    """Rule → nodes, processes and GPUs that launch.sh would be given."""
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile", "--directory", tmp_path,
        "--profile", ROOT / "profiles" / profile, "--configfile", DEMO, "--dry-run", "--printshellcmds", "distill",
        *arguments,
    ]  # fmt: skip
    plan = subprocess.run(command, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stdout[-1000:] + plan.stderr[-1000:]
    found = [line.split("launch.sh ")[1].split(" logs/") for line in plan.stdout.splitlines() if "launch.sh " in line]
    return {rest.split("/")[0]: numbers.rpartition(" ")[0] for numbers, rest in found}


def test_the_slurm_profile_starts_a_process_for_each_gpu(tmp_path):
    assert launches(tmp_path) == {"teacher": "1 8 8", "align": "2 8 8", "distill": "2 8 8"}


def test_one_number_on_the_command_line_leaves_the_others_to_the_profile(tmp_path):
    changed = launches(tmp_path, "--set-resources", "align:nodes=4", "teacher:nodes=2", "distill:gpus_per_node=4")
    assert changed == {"teacher": "2 8 8", "align": "4 8 8", "distill": "2 4 4"}


def test_a_machine_without_gpus_has_one_process_unless_told_otherwise(tmp_path):
    assert launches(tmp_path, profile="local")["align"] == "1 1 0"
    changed = launches(tmp_path, "--set-resources", "align:processes_per_node=2", profile="local")
    assert changed["align"] == "1 2 0"


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ("align:gpus_per_node=5", "resources of align: nodes=2, 5 processes each: align.global_batch_size: 64 cannot"),
        ("align:nodes=0", "resources of align: nodes=0: expected a whole number of at least 1"),
        ("align:nodes=many", "resources of align: nodes=many: expected a whole number of at least 1"),
        ("encode:nodes=2", "resources of encode: it works on one node"),
        ("encode:gpus_per_node=2", "resources of encode: it works in one process"),
        ("mine:nodes=2", "resources of mine: it works on one node"),
    ],
)
def test_a_layout_that_cannot_work_is_said_before_any_job(tmp_path, resource, message):
    with pytest.raises(AssertionError, match=message):
        launches(tmp_path, "--set-resources", resource)


def test_a_new_layout_reruns_nothing(finished):
    assert finished.planned("all", "--set-resources", "align:processes_per_node=2", "distill:mem_mb=123") == set()


def test_another_number_of_jobs_that_share_a_node_makes_nothing_anew(tmp_path, finished):
    shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)
    project = Project.__new__(Project)
    project.folder, project.values = tmp_path / "project", finished.values
    project.configure(evaluate={"encode_shards": 3, "search_shards": 2})
    assert project.planned("all") == {"all", "report"}  # whose page shows the settings


def test_shards_make_the_same_vectors(tmp_path, values, finished):
    project = Project(tmp_path, values)
    project.configure(evaluate={"encode_shards": 3})
    shutil.copytree(finished.folder / "artifacts", tmp_path / "artifacts", symlinks=True)
    shutil.rmtree(tmp_path / "artifacts" / "vectors")
    names = [path.relative_to(finished.folder) for path in finished.folder.glob("artifacts/vectors/d*")]
    project.snakemake(*map(str, names))
    assert sorted(path.name for path in tmp_path.glob("artifacts/vectors/*")) == sorted(path.name for path in names)
    for name in names:
        for side in ("queries", "documents"):
            (ids, one), (other_ids, other) = (
                sorted_rows(project / name, side) for project in (finished.folder, tmp_path)
            )
            assert ids == other_ids and abs(one - other).max() < 1e-4, (name, side)


def test_shards_find_the_same(tmp_path, values, finished):
    project = Project(tmp_path, values)
    project.configure(evaluate={"search_shards": 2})
    shutil.copytree(finished.folder / "artifacts", tmp_path / "artifacts", symlinks=True)
    made = {"runs": "*/runs/*.trec", "prune": "*.parquet", "index": "*/*.seismic"}
    for folder in made:
        shutil.rmtree(tmp_path / "artifacts" / folder)
    assert project.planned("all") >= {f"{rule}{s}" for rule in ("evaluate", "index", "prune") for s in ("", "_shard")}
    project.snakemake("all")
    for folder, pattern in made.items():
        found, wanted = (
            {path.relative_to(root): path.read_bytes() for path in root.glob(f"artifacts/{folder}/{pattern}")}
            for root in (tmp_path, finished.folder)
        )
        assert {path.parts[2] for path in found} == {path.parts[2] for path in wanted}
        assert folder != "runs" or found == wanted
    assert not [*tmp_path.glob("artifacts/*/*-of-*")]


def sorted_rows(vectors: Path, side: str) -> tuple[list[str], csr_array]:
    """Ids and rows of all files of a side, in the order of the ids."""
    parts = [load_vectors(path) for path in vectors.glob(f"{side}-*.safetensors")]
    ids = [identifier for _, names in parts for identifier in names]
    return sorted(ids), vstack([csr_array(rows) for rows, _ in parts], format="csr")[np.argsort(ids)]


def test_the_demo_can_be_planned_and_drawn_before_anything_is_fetched(tmp_path):
    profile = ["--profile", str(ROOT / "profiles" / "local"), "--configfile", str(DEMO), "--directory", str(tmp_path)]
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), *profile]
    plan = subprocess.run([*snakemake, "--dry-run", "all"], capture_output=True, text=True)
    assert plan.returncode == 0 and "fetch" in plan.stdout
    graph = subprocess.run([*snakemake, "all", "--rulegraph"], capture_output=True, text=True)
    command = [sys.executable, "-m", "milco.stages", "dag", "--output", str(tmp_path / "dag.svg")]
    subprocess.run(command, input=graph.stdout, text=True, check=True)
    drawing = (tmp_path / "dag.svg").read_text(encoding="utf-8")
    assert drawing.count("<svg") == 1 and not (tmp_path / "resources").exists()


@pytest.mark.parametrize("target", ["dag", "dry-run"])
def test_make_plans_and_draws_as_the_readme_says(target):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", target, f"VENV={sys.prefix}", f"--assume-old={sys.prefix}/installed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]

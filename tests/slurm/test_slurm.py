"""The miniature on a real SLURM of two nodes, and everything that a cluster does to a training. Order matters: the
disturbed runs are compared with the first one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import hub
import pytest
import run as rehearsal
import standins
import yaml
from miniature import OFFLINE, ROOT, Project
from safetensors.torch import load_file
from test_recovery import Training, last_step, same

pytestmark = pytest.mark.slurm

CLUSTER = Path(os.environ.get("SLURM_CLUSTER", "/nonexistent"))
LAUNCH = ROOT / "workflow" / "scripts" / "launch.sh"
STEPS = 600  # a minute of training: no machine may make them all within the shortest time limit
NODES = ("node1", "node2")
STARTED: list[subprocess.Popen] = []
DEFAULTS = ["--slurm-init-seconds-before-status-checks", "2"]
DEFAULTS += ["--latency-wait", "10", "--default-resources", "slurm_partition=gpu", "mem_mb=1000", "runtime=10"]
SMALL = {"cpus_per_task": 2, "mem_mb": 2000, "runtime": 10}  # at the most; two nodes are the profile's own


class ClusterProject(Project):
    """A project that is run with the profile for SLURM, its numbers cut down to the test cluster's."""

    @property
    def configuration(self) -> list[Path]:
        return [self.folder / "config.yaml"]

    def command(self, *arguments: str, resources: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> list[str]:
        profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
        small = [
            f"{rule}:{name}={min(most, said[name])}"
            for rule, said in profile["set-resources"].items()
            for name, most in {"gpus_per_node": min(2, said.get("nodes", 1)), **SMALL}.items()
            if name in said
        ]
        return [
            *(sys.executable, str(ROOT / "tests" / "slurm" / "impatient.py")),
            *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
            *("--profile", str(ROOT / "profiles" / "slurm"), "--configfile", *map(str, self.configuration)),
            *("--directory", str(self.folder), *DEFAULTS, *flags),
            *("--set-resources", *small, *resources, "--", *arguments),
        ]  # fmt: skip

    def start(
        self, *arguments: str, resources: tuple[str, ...] = (), variables: dict[str, str] | None = None
    ) -> subprocess.Popen:
        output = (self.folder / "snakemake.log").open("a")
        command = self.command(*arguments, resources=resources)
        started = subprocess.Popen(
            command, stdout=output, stderr=output, env=variables or environment(), start_new_session=True,
            # A program started by a test in the background would ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        STARTED.append(started)
        return started

    @property
    def log(self) -> str:
        """What every attempt at Stage 1 wrote; the rule's own log has only the last one."""
        paths = sorted(self.folder.glob("logs/slurm/rule_align/**/*.log"))
        return "".join(path.read_text(errors="replace") for path in paths)  # a bar may be half written

    @property
    def weights(self) -> dict:
        return load_file(self.one("artifacts/align/*/model/model.safetensors"))

    def step(self) -> int:
        return max((last_step(path) for path in self.folder.glob("artifacts/align/*/metrics.jsonl")), default=0)

    def wait_for_progress(self, steps: int = 10) -> None:
        before = self.step()
        wait_for(lambda: self.step() >= before + steps, "the training to make steps", self)


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Both nodes are one machine: gloo must not look for a network between them.
    return {**os.environ, **OFFLINE, "PATH": path, "GLOO_SOCKET_IFNAME": "lo"}


def wait_for(happened: Callable[[], object], what: str, project: ClusterProject | None = None, seconds: int = 150):
    deadline = time.time() + seconds
    while not (found := happened()):
        log = project.log[-3000:] if project else ""
        assert time.time() < deadline, (
            f"waited {seconds} s in vain for {what}\n{slurm('squeue', '--states=all')}\n{log}"
        )
        time.sleep(0.2)
    return found


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def jobs(*states: str) -> list[str]:
    return slurm("squeue", "--noheader", "--format=%i", f"--states={','.join(states)}").split()


def running_job() -> str:
    (job,) = wait_for(lambda: jobs("RUNNING"), "a job to run")
    return job


@pytest.fixture(autouse=True)
def quiet_cluster() -> Iterator[None]:
    """No test leaves a job to the next one, nor a Snakemake that submits more of them."""
    yield
    for started in STARTED:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    for job in jobs("RUNNING", "PENDING"):
        subprocess.run(["scancel", job], check=False)
    wait_for(lambda: not jobs("RUNNING", "PENDING", "COMPLETING"), "all jobs to end")


@pytest.fixture(scope="module")
def long(values) -> dict:
    """Settings whose Stage 1 takes long enough to be disturbed."""
    align = {"num_train_epochs": STEPS * 8 / 80, "save_steps": 50, "logging_steps": 2, "eval_steps": STEPS}
    align["dataloader_num_workers"] = 1
    evaluate = {"baselines": ["bm25"], "encode_shards": 2, "search_shards": 2}
    changes = {"align": align, "evaluate": evaluate, "model": {"dropout": 0.1}}
    return {name: {**section, **changes.get(name, {})} if isinstance(section, dict) else section
            for name, section in values.items()}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, long) -> ClusterProject:
    """Everything, both stages on two nodes with two processes each."""
    project = ClusterProject(tmp_path_factory.mktemp("finished"), long)
    done = subprocess.run(project.command("all"), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return project


def test_the_whole_pipeline_runs_on_two_nodes(finished):
    assert finished.one("results/miniature/report.html").exists()
    wide = slurm("squeue", "--noheader", "--states=COMPLETED", "--format=%D %b %k").splitlines()
    assert sorted(line.split("_wildcards_")[0] for line in wide if line.startswith("2 ")) == [
        "2 gres:gpu:2 rule_align",
        "2 gres:gpu:2 rule_distill",
    ]
    assert (
        len([line for line in wide if "gres:gpu:1 rule_encode" in line]) == 6
    )  # two systems and the budgets, two shards each
    assert not any("fetch" in line for line in wide)


def test_four_processes_on_two_nodes_agree_with_one(finished, tmp_path, values):
    plain = {**values, "model": {**values["model"], "dropout": 0.0}}
    alone = Project(tmp_path / "alone", plain)
    together = ClusterProject(tmp_path / "together", plain)
    for project in (alone, together):
        project.prepare(finished)
    snakemake = together.start("distill")
    alone.snakemake("distill")
    assert snakemake.wait() == 0, (together.folder / "snakemake.log").read_text()[-5000:]
    one, other = (load_file(p.one("artifacts/distill/*/model/model.safetensors")) for p in (alone, together))
    for name, value in one.items():
        # The keys' biases change no attention: their gradient is rounding noise, which Adam blows up to full steps, as
        # it does here and there with a weight whose gradient is next to nothing; a maximum may then change its place.
        tolerance = 1e-2 if name.endswith("key.bias") else 1e-3
        assert (value - other[name]).abs().flatten().quantile(0.98) < tolerance, name


def test_a_training_outlives_all_that_a_cluster_does_to_it(tmp_path, long, finished):
    project = ClusterProject(tmp_path, long)
    project.prepare(finished)
    snakemake = project.start("align", resources=("align:runtime=1",))

    wait_for(lambda: "stopped in time for its time limit" in project.log, "the time limit", project)
    first = project.step()
    assert 0 < first < STEPS, "the training is too short to meet its time limit"
    project.wait_for_progress()

    slurm("scancel", running_job())  # and the profile's retries submit it again
    wait_for(lambda: "stopped because of SIGTERM" in project.log, "the cancelled job to save", project)
    project.wait_for_progress()

    requeued = running_job()
    slurm("scontrol", "requeue", requeued)
    hurry(requeued)
    project.wait_for_progress()

    lost, frozen = running_job(), processes_of_node("node2")
    for process in frozen:  # a power cut: nothing says goodbye
        os.kill(process, signal.SIGSTOP)
    wait_for(lambda: lost in jobs("PENDING"), "the job of the lost node to be put back", project)
    for process in frozen:
        os.kill(process, signal.SIGKILL)
    subprocess.run([ROOT / "tests" / "slurm" / "cluster.sh", "node", CLUSTER, "node2"], check=True)
    hurry(lost)
    project.wait_for_progress()

    assert snakemake.wait(timeout=480) == 0, (project.folder / "snakemake.log").read_text()[-3000:]
    assert same(project.weights, finished.weights)


def test_a_training_that_outlived_its_snakemake_is_waited_for(tmp_path, values, finished):
    project = ClusterProject(tmp_path, values)
    project.configure(align={"num_train_epochs": 15, "logging_steps": 2})
    project.prepare(finished)
    half = ("align:gpus_per_node=1",)  # so that there is room for the second job
    snakemake = project.start("align", resources=half)
    project.wait_for_progress()
    frozen = [number for node in NODES for number in processes_of_node(node)[1:] if is_rank(number)]
    assert len(frozen) == 2
    for process in frozen:  # so that it has not ended before the second one comes
        os.kill(process, signal.SIGSTOP)
    os.killpg(snakemake.pid, signal.SIGKILL)
    unlock = project.command("align", flags=("--unlock",))
    subprocess.run(unlock, env=environment(), check=True, capture_output=True)
    again = project.start("align", resources=half)
    wait_for(lambda: "another process still trains here" in project.log, "the second job to wait", project)
    for process in frozen:
        os.kill(process, signal.SIGCONT)
    assert again.wait(timeout=240) == 0, (project.folder / "snakemake.log").read_text()[-3000:]
    assert "trained already" in project.log and "resumed" not in project.log


def is_rank(process: int, stage: str = "align") -> bool:
    """Whether it is a training process, or a worker of one."""
    return f"\0-m\0milco.stages\0{stage}".encode() in Path(f"/proc/{process}/cmdline").read_bytes()


def all_at_work(stage: str) -> bool:
    """Whether each node has two training processes with four workers each."""
    with suppress(FileNotFoundError):  # one of them ends meanwhile
        return all(sum(is_rank(p, stage) for p in processes_of_node(node)) == 2 * (1 + 4) for node in NODES)
    return False


def hurry(job: str) -> None:
    """SLURM lets a job rest for two minutes before it runs again; the processes of its first run need some seconds."""
    wait_for(lambda: job in jobs("PENDING"), "the job to be put back")
    time.sleep(10)
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")


def processes_of_node(name: str) -> list[int]:
    """The node's daemon and all that runs in its jobs."""
    found = [int((CLUSTER / f"slurmd-{name}.pid").read_text())]
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"SLURMD_NODENAME={name}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


def test_ctrl_c_cancels_the_job_and_a_new_start_goes_on(tmp_path, long, finished):
    project = ClusterProject(tmp_path, long)
    project.prepare(finished)
    snakemake = project.start("align")
    project.wait_for_progress(100)
    os.killpg(snakemake.pid, signal.SIGINT)
    snakemake.wait(timeout=120)
    wait_for(lambda: not jobs("RUNNING", "PENDING"), "the job to be cancelled", project)
    stopped = project.step()
    assert stopped < STEPS
    assert project.start("align").wait(timeout=240) == 0
    assert "resumed from checkpoint-" in project.log
    assert same(project.weights, finished.weights)


def run_in(allocation: list[str], folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    command = [*allocation, str(LAUNCH), *words]
    return subprocess.run(command, cwd=folder, env={**environment(), **more}, capture_output=True, text=True)


TWO = ["salloc", "--quiet", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--mem=2000"]


def test_doctor_is_content_with_a_sound_cluster(tmp_path):
    done = run_in([*TWO, "--time=3"], tmp_path, "2", "2", "0", "2", "log", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all-reduce over 4 processes is right" in done.stdout and "nothing is wrong" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("node1", "node2"))] == [
        "node1", "node1", "node2", "node2",
    ]  # fmt: skip


def test_doctor_by_snakemake_says_that_torch_cannot_use_the_gpus(tmp_path, long):
    project = ClusterProject(tmp_path, long)
    done = subprocess.run(project.command("doctor"), env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    for node in NODES:
        assert f"{node}: torch" in (tmp_path / "logs" / "doctor.log").read_text()
        assert "is built for CPUs only" in done.stdout + done.stderr


def test_doctor_names_a_wrong_interface(tmp_path):
    done = run_in([*TWO, "--time=3"], tmp_path, "2", "1", "0", "2", "log", "doctor", GLOO_SOCKET_IFNAME="eth9")
    assert done.returncode != 0
    assert "GLOO_SOCKET_IFNAME=eth9: there is no such interface (there are: " in done.stdout


def test_a_folder_that_the_nodes_do_not_see_is_named(tmp_path):
    script = f"mount -t tmpfs none {tmp_path} && mkdir {tmp_path}/mine && cd {tmp_path}/mine && exec " + " ".join(
        [*TWO, "--time=3", str(LAUNCH), "2", "1", "0", "2", "log", "doctor"]
    )
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script], env=environment(), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"does not see {tmp_path}/mine: the project must lie on a disk that all nodes share" in done.stdout


def test_more_nodes_than_the_job_holds_is_an_error(tmp_path):
    done = run_in(
        ["salloc", "--quiet", "--nodes=1", "--mem=500", "--time=3"], tmp_path, "2", "1", "0", "1", "log", "doctor"
    )
    assert done.returncode == 2 and "holds 1 (node" in done.stdout


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, long, finished):
    """Inside sbatch, in two processes of one node, on a disk for one checkpoint and a half."""
    project = ClusterProject(tmp_path / "project", long)
    project.prepare(finished)
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in finished.one("artifacts/align/*/model").rglob("*"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 9 // 2}", "none", disk], check=True)
    try:
        training = Training(project, disk)
        command = [word if word != "log" else "../disk-log" for word in training.command]
        batch = ["sbatch", "--wait", "--ntasks=1", "--cpus-per-task=2", "--mem=2000", "--output=/dev/null"]
        done = subprocess.run([*batch, *command], cwd=disk, env=environment(), capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        (kept,) = disk.glob("checkpoints/checkpoint-*")
        last = (tmp_path / "disk-log").read_text().splitlines()[-1]
        assert "could not be written" in last and f"{kept.name} is complete and will be taken" in last
        assert list((disk / "checkpoints").iterdir()) == [kept]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


class Rehearsal(ClusterProject):
    """The paper's experiment on the stand-ins (tests/rehearsal/)."""

    configuration = rehearsal.CONFIGURATION

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def papers(tmp_path) -> Rehearsal:
    """The rehearsed experiment; MILCO_REHEARSAL names a folder that is kept, in which an earlier run goes on."""
    return Rehearsal(Path(os.environ.get("MILCO_REHEARSAL", tmp_path)) / "project")


def run_to_its_end(project: Rehearsal, *targets: str, watched: tuple[str, ...] = (), seconds: int = 900) -> None:
    with hub.running() as there:
        standins.fill(there)
        variables = environment() | rehearsal.environment(project.folder.parent, there.address)
        variables.pop("HF_HUB_OFFLINE")  # rule fetch asks the hub
        snakemake = project.start(*targets, variables=variables)
        for stage in watched:
            what = f"two processes of {stage} on each node, four workers each"
            wait_for(partial(all_at_work, stage), what, seconds=900)
        assert snakemake.wait(timeout=seconds) == 0, (project.folder / "snakemake.log").read_text()[-3000:]


def test_the_paper_s_experiment_trains_on_two_nodes_with_workers_beside_each_process(papers):
    run_to_its_end(papers, "distill", watched=("align", "distill"))
    for stage in ("align", "distill"):
        settings = (papers.one(f"artifacts/{stage}/*/config.yaml")).read_text(encoding="utf-8")
        assert re.search(rf"^{stage}:(\n .*)*\n  dataloader_num_workers: 4$", settings, re.MULTILINE)
        assert papers.one(f"artifacts/{stage}/*/model/model.safetensors").stat().st_size > 0


@pytest.mark.whole
def test_the_paper_s_experiment_runs_to_its_last_page(papers):
    run_to_its_end(papers, *rehearsal.TARGETS, seconds=7200)
    checks = [sys.executable, "-m", "pytest", "-s", "-m", "rehearsal", "-k", "not authors", "tests/rehearsal"]
    kept = {"MILCO_REHEARSAL": str(papers.folder.parent)}
    done = subprocess.run(checks, cwd=ROOT, env=os.environ | kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Nothing to be done" in done.stdout + done.stderr  # what is checked is what the cluster made

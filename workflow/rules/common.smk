# The experiments of this run, and which of them a node is made for. Where everything lies: milco/experiments.py.

import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).parent))
from milco.config import parse_all
from milco.errors import MilcoError
from milco.experiments import Experiment, compared

if not config:
    raise WorkflowError("no configuration: add --configfile config/demo.yaml or your own")
try:
    EXPERIMENTS = {settings.experiment: Experiment(settings) for settings in parse_all(config)}
except MilcoError as error:
    raise WorkflowError(str(error)) from None

BASE, *VARIANTS = EXPERIMENTS.values()
EXPERIMENTS |= {first.name: first for e in [BASE, *VARIANTS] if (first := e.first_round)}
# What several experiments share is made for the first of them.
OWNERS = {
    (stage, key): experiment for experiment in reversed(EXPERIMENTS.values()) for stage, key in experiment.keys.items()
}
ENVIRONMENT = str(Path(workflow.basedir).parent / "environment.yml")


def owner(stage, wildcards):
    """The experiment that a node is made for, by the key or the name in its path."""
    if "experiment" in wildcards.keys():
        return EXPERIMENTS[wildcards.experiment]
    try:
        return OWNERS[stage.format(**wildcards), wildcards.key]
    except KeyError:
        raise WorkflowError(f"no experiment of this configuration has {stage.format(**wildcards)}/{wildcards.key}")


def needs(stage, name):
    """Input of a node: what its experiment has under a name, in both of which wildcards may stand."""
    return lambda wildcards: owner(stage, wildcards).places[name.format(**wildcards)]


def settings(stage):
    """Settings that a program reads. Their path decides no result, and Snakemake compares no parameter that asks for
    `output`: a node is kept when another experiment shares it."""
    return lambda wildcards, output: owner(stage, wildcards).places["settings"]


def named(option, stage, names):
    """Options `--option NAME=PATH`, one for each of `names(experiment)`, which gives NAME → PATH."""

    def options(wildcards, output):
        return [shlex.quote(f"--{option}={name}={path}") for name, path in names(owner(stage, wildcards)).items()]

    return options


def shards_of_vectors(wildcards):
    """What the encode jobs of a system write, one for each shard."""
    shards = owner("vectors-{system}", wildcards).config.evaluate.encode_shards
    return [f"artifacts/vectors/{{system}}-{{key}}.{number}-of-{shards}" for number in range(1, shards + 1)]


PROJECT = Path(workflow.basedir).parent
FIGURES = (PROJECT / "config" / "published.yaml").read_text(encoding="utf-8")


def own(file):
    """A file of the project. Where the project lies decides nothing (see `settings`)."""
    return lambda wildcards, output: str(PROJECT / file)


def stages(experiment):
    """Training stages of an experiment, with the folders of their metrics."""
    return {stage: experiment.folder(stage) for stage in ("align", "distill") if stage in experiment.config.systems()}


def runs(experiment):
    """Systems of an experiment, with their runs and measures."""
    return {system: experiment.places[f"runs-{system}"] for system in experiment.config.systems()}


def nodes(experiment):
    """Nodes of an experiment, with the files of their times."""
    keys, systems = experiment.keys, experiment.config.systems()
    sources = [(rule, name) for rule in ("fetch", "convert") for name in experiment.config.sources]
    vectors = {system: Path(experiment.places[f"vectors-{system}"]).name for system in systems if system != "bm25"}
    found = {
        **{f"{rule} {name}": f"{rule}/{name}-{keys[f'source-{name}']}" for rule, name in sources},
        "corpora": f"corpora/{keys['corpora']}",
        "tokenize": f"tokenize/{keys['tokens']}",
        "teacher": f"teacher/{keys['teacher']}",
        "mine": f"mine/{keys['triples']}",
        **{stage: f"{stage}/{keys[stage]}" for stage in stages(experiment)},
        **{f"encode {system}": f"encode/{name}.*" for system, name in vectors.items()},
        **{f"evaluate {system}": f"evaluate/{Path(path).name}" for system, path in runs(experiment).items()},
        "index": f"index/{keys['index']}",
        "prune": f"prune/{keys['prune']}",
    }
    return {name: f"logs/{path}.tsv" for name, path in found.items()}


def sharing(experiments):
    """How many of the nodes that some experiments need are made once for several of them."""
    needed = [path for experiment in experiments for path in nodes(experiment).values()]
    return f"{len(needed)} nodes, of which {len(needed) - len(set(needed))} are shared"


def measured(wildcards):
    """What the smallest budgets are chosen from, where the exported model is to have them."""
    export = owner("export", wildcards).config.export
    wanted = "auto" in (export.prune_documents, export.prune_queries)
    return owner("export", wildcards).places["prune"] if wanted else []


def repository(wildcards):
    """Where the model of an experiment is published."""
    repo = owner("publish", wildcards).config.publish.repo
    if repo is None:
        raise WorkflowError("publish.repo is not set: write OWNER/NAME of the Hugging Face Hub there")
    return repo


def published_vectors(wildcards):
    """The vectors that go with a model, if they are asked for."""
    experiment = owner("publish", wildcards)
    return experiment.places["vectors-distill"] if experiment.config.publish.vectors else []


TARGETS = {
    **{name: [BASE.places[name]] for name in ("corpora", "teacher", "align", "distill", "index", "prune")},
    "tokenize": [BASE.places["tokens"]],
    "mine": [BASE.places["triples"]],
    "evaluate": [BASE.places[f"runs-{system}"] for system in BASE.config.systems()],
    "report": [f"{BASE.places['results']}/report.html"],
    "export": [f"{BASE.places['results']}/model"],
    "card": [f"{BASE.places['results']}/card.md"],
    "publish": [f"{BASE.places['results']}/published.json"],
    "plan": [f"{BASE.places['results']}/plan.md"],
}


class NamedTargets(type(workflow)):
    """Rules are one for all experiments; their names as targets mean the nodes of the first experiment. Snakemake takes
    no rule with wildcards as a target, and says what the targets are only when the rules have been read."""

    @property
    def dag_settings(self):
        return self.__dict__["dag_settings"]

    @dag_settings.setter
    def dag_settings(self, said):
        said.targets = [path for target in said.targets for path in TARGETS.get(target, [target])]
        self.__dict__["dag_settings"] = said


workflow.__class__ = NamedTargets


wildcard_constraints:
    experiment="|".join(map(re.escape, EXPERIMENTS)),
    system="|".join({re.escape(s) for experiment in EXPERIMENTS.values() for s in experiment.config.systems()}),
    name="|".join({name for experiment in EXPERIMENTS.values() for name in experiment.config.sources}),
    key="[0-9a-f]{10}",
    shard="[0-9]+-of-[0-9]+",


def write_settings(experiment):
    """Write the resolved settings, unless they lie there already."""
    path = Path(experiment.places["settings"])
    if not path.exists() or path.read_text(encoding="utf-8") != experiment.config.to_yaml():
        path.parent.mkdir(parents=True, exist_ok=True)
        experiment.config.save(path)


def forget_forced(dag_settings):
    """Let the trainings that --forcerun or --forceall names begin anew, instead of handing out what they made before."""
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in ("align", "distill") and (dag_settings.forceall or job.rule.name in dag_settings.forcerun):
            for name in (".trained", "checkpoints"):
                shutil.rmtree(Path(job.output[0]).parent / name, ignore_errors=True)


onstart:
    # What the programs read, and what explains the results. It is no output: its content is no reason to run a job,
    # the keys in the paths are.
    for experiment in EXPERIMENTS.values():
        write_settings(experiment)
    forget_forced(workflow.dag_settings)

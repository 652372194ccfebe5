# The experiments of this run, and the experiment that each node belongs to. milco/experiments.py defines the nodes.

import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).parent))
from milco.config import parse_all, read_yaml
from milco.environment import has_gpu
from milco.errors import MilcoError
from milco.experiments import Experiment, compared

if not config:
    raise WorkflowError("no configuration: add --configfile config/demo.yaml or your own")
try:
    for path in workflow.configfiles:  # Snakemake takes the last one of two equal keys
        read_yaml(Path(path))
    EXPERIMENTS = {settings.experiment: Experiment(settings) for settings in parse_all(config)}
    for experiment in EXPERIMENTS.values():
        experiment.check_lengths()
except MilcoError as error:
    raise WorkflowError(str(error)) from None

BASE, *VARIANTS = EXPERIMENTS.values()
EXPERIMENTS |= {other.name: other for e in [BASE, *VARIANTS] for other in e.seeds.values()}
EXPERIMENTS |= {first.name: first for e in [*EXPERIMENTS.values()] if (first := e.first_round)}
# What several experiments share is made for the first of them.
OWNERS = {
    (node.rule, node.name, node.key): experiment
    for experiment in reversed(EXPERIMENTS.values())
    # Stage 1 may be needed as a miner alone
    for node in [*experiment.nodes, experiment.align, experiment.development(experiment.align)]
}
ENVIRONMENT = "../../environment.yml"  # as the rules see it
OWN = {
    str(source.local_path) for e in EXPERIMENTS.values() for source in e.config.sources.values() if source.local_path
}


def owner(rule, wildcards):
    """The experiment that a node is made for, by the key or the name in its path."""
    if "experiment" in wildcards.keys():
        return EXPERIMENTS[wildcards.experiment]
    name = wildcards.get("system") or wildcards.get("name") or ""
    try:
        return OWNERS[rule, name, wildcards.key]
    except KeyError:
        raise WorkflowError(f"no experiment of this configuration has {rule} {name} {wildcards.key}")


def by_content(path):
    """An input path. The user's own files are tracked by content (part of the key), not by time or location."""
    return untracked(path) if path and path in OWN else path


def needs(rule, what):
    """Input of a node: `what` (experiment → path or None) of the experiment that it is made for."""
    return lambda wildcards: by_content(what(owner(rule, wildcards)) or [])


def settings(rule):
    """Path of the settings that a program reads. The path does not affect the result. This function takes `output`,
    because Snakemake does not compare parameters that depend on it: a node is then kept when another experiment shares
    it."""
    return lambda wildcards, output: owner(rule, wildcards).settings


def named(option, rule, names):
    """Options `--option NAME=PATH`, one for each of `names(experiment)`, which gives NAME → PATH."""

    def options(wildcards, output):
        return [shlex.quote(f"--{option}={name}={path}") for name, path in names(owner(rule, wildcards)).items()]

    return options


def tokenizer_of_source(wildcards):
    """Where the tokenizer of a converted source lies."""
    experiment = owner("convert", wildcards)
    return by_content(experiment.source(experiment.config.sources[wildcards.name].tokenizer))


def texts(experiment):
    """Sources of training text, and of what is taken out of it, with their places."""
    return experiment.sources(experiment.config.training_sources())


def tests(experiment):
    """Sources of test collections, with their places."""
    return experiment.sources(experiment.config.evaluate.test_collections)


def looks(experiment):
    """Development collections: source name → path."""
    return experiment.sources(experiment.config.evaluate.development_collections)


def cutter(wildcards, input):
    """The option `--encoder`, if documents are cut into chunks of the encoder's tokens; else nothing."""
    return f"--encoder {shlex.quote(input.encoder)}" if input.encoder else ""


def triple_texts(experiment):
    """Sources of triples and of known items, with their places."""
    return experiment.sources(experiment.config.distill.train_datasets)


def shards(rule, path, number_of):
    """Output paths of the jobs that share a node. `number_of` is the key of `evaluate` with the number of jobs."""

    def paths(wildcards):
        jobs = getattr(owner(rule, wildcards).config.evaluate, number_of)
        return [f"{path}.{number}-of-{jobs}".format(**wildcards) for number in range(1, jobs + 1)]

    return paths


def options(name, paths):
    """Options `--NAME PATH` for such paths. Their number does not affect the result (see `settings`)."""
    return lambda wildcards, output: [f"--{name} {path}" for path in paths(wildcards)]


def one_shard(wildcards, output):
    """The option for a job that searches a single shard."""
    return f"--shard {wildcards.shard}"


ENCODED = shards("encode", "artifacts/vectors/{system}-{key}", "encode_shards")


def found_by(rule, path):
    """Output paths of the jobs that share a search; empty if one job searches."""
    paths = shards(rule, path, "search_shards")
    return lambda wildcards: several if len(several := paths(wildcards)) > 1 else []


FOUND = {
    "evaluate": found_by("evaluate", "artifacts/runs/{system}-{key}"),
    "index": found_by("index", "artifacts/index/{key}"),
    "prune": found_by("prune", "artifacts/prune/{key}"),
}


def vectors_of_system(wildcards):
    """The vectors of a system; BM25 has none."""
    vectors = owner("evaluate", wildcards).vectors
    return vectors[wildcards.system].path if wildcards.system in vectors else []


def searched(wildcards, input):
    """The option for these vectors."""
    return f"--vectors {input.vectors}" if input.vectors else ""


FIGURES = Path(workflow.source_path("../../config/published.yaml")).read_text(encoding="utf-8")


def own(file):
    """Path of a file of the project. The project's location does not affect the result (see `settings`)."""
    return lambda wildcards, output: workflow.source_path(f"../../{file}")


def trainings(experiment):
    """Training stages of an experiment, with their folders: metrics, and the model."""
    return {stage: str(Path(getattr(experiment, stage).path).parent) for stage in experiment.stages}


def runs(experiment):
    """Systems of an experiment, with their runs and measures."""
    return {system: experiment.runs[system].path for system in experiment.config.systems()}


def other_seeds(experiment):
    """Further seed → the experiment trained with it."""
    return {seed: other for seed, other in experiment.seeds.items() if other is not experiment}


def lines(experiment):
    """The systems of an experiment as (experiment, system), the form that `compared` returns."""
    return [(experiment, system) for system in experiment.config.systems()]


def runs_of_seeds(lines):
    """Runs of such lines, of every training seed."""
    return [node.path for experiment, system in lines for node in experiment.runs_of(system).values()]


def times(experiment):
    """Nodes of an experiment and of its further seeds, with the files of their times."""
    nodes = experiment.nodes
    repeated = {
        f"{node.label}, seed {seed}": node.times
        for seed, other in other_seeds(experiment).items()
        for node in other.measured
        if node not in nodes
    }
    return {node.label: node.times for node in nodes} | repeated


def sharing(experiments):
    """How many of the nodes that some experiments need are made once for several of them."""
    paths = [node.path for experiment in experiments for node in experiment.nodes]
    paths += [node.path for e in experiments for other in other_seeds(e).values() for node in other.measured]
    return f"{len(paths)} nodes, of which {len(paths) - len(set(paths))} are shared"


def tuned(rule):
    """Input for the choice of pruning budgets, if `export.prune_…` is `auto`."""
    return needs(rule, lambda e: e.tuning.path if e.config.chooses_budgets() else None)


def repository(wildcards):
    """Where the model of an experiment is published."""
    repo = owner("publish", wildcards).config.publish.repo
    if repo is None:
        raise WorkflowError("publish.repo is not set: write OWNER/NAME of the Hugging Face Hub there")
    return repo


def published_vectors(wildcards):
    """The vectors that go with a model, if they are asked for."""
    experiment = owner("publish", wildcards)
    return experiment.vectors["distill"].path if experiment.config.publish.vectors else []


# All experiments share the rules. As a target, the name of a rule means the first one's nodes, with all its seeds;
# `trainings` means the models of all experiments.
SEEDS = BASE.seeds.values()
TRAINED = {
    **{node.rule: [node.path] for node in (BASE.corpora, BASE.tokens, BASE.targets, BASE.overlap)},
    **{rule: [node.path for e in SEEDS for node in e.measured if node.rule == rule] for rule in ("mine", "pack")},
    "align": [experiment.align.path for experiment in SEEDS],
    "distill": [experiment.distill.path for experiment in SEEDS],
    "trainings": sorted({one.distill.path for e in EXPERIMENTS.values() for one in e.seeds.values()}),
    "export": [f"{BASE.results}/model"],
    "card": [f"{BASE.results}/card.md"],
    "publish": [f"{BASE.results}/published.json"],
}
NEEDLESS = ([] if BASE.reads_pairs else ["tokenize", "align"]) + ([] if BASE.config.reads_targets() else ["teacher"])
WHY = (
    "evaluate.model names a finished model, and nothing is trained"
    if BASE.config.evaluate.model
    else "distill.pretrained_alignment_checkpoint names a finished model, and nothing needs it"
)
TARGETS = {
    **{name: paths for name, paths in TRAINED.items() if BASE.stages and name not in NEEDLESS},
    **{node.rule: [node.path] for node in (BASE.collections, BASE.index, BASE.pruning)},
    "evaluate": runs_of_seeds(lines(BASE)),
    "report": [f"{BASE.results}/report.html"],
    "plan": [f"{BASE.results}/plan.md"],
}


wildcard_constraints:
    experiment="|".join(map(re.escape, EXPERIMENTS)),
    system="|".join(
        {"align", "tune", "development", *(re.escape(s) for e in EXPERIMENTS.values() for s in e.config.systems())}
    ),
    name="|".join({name for experiment in EXPERIMENTS.values() for name in experiment.config.sources}),
    key="[0-9a-f]{10}",
    shard="[0-9]+-of-[0-9]+",


def write_settings(experiment):
    """Write the resolved settings, unless they lie there already."""
    path = Path(experiment.settings)
    if not path.exists() or path.read_text(encoding="utf-8") != experiment.config.to_yaml():
        path.parent.mkdir(parents=True, exist_ok=True)
        experiment.config.save(path)


def begin(log):
    """Write the settings before the first job: programs read them, and they document the results. They are not declared
    as outputs, because a job reruns when the key in its path changes, not when this file does."""
    for experiment in EXPERIMENTS.values():
        write_settings(experiment)
    forget_forced()

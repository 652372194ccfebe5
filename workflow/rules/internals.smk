# All uses of Snakemake's internals. These names may change in any release; no other file in workflow/ uses them. Tested
# with Snakemake 9.17.0 and 9.27.1.
#
#   resources   A --set-resources on the command line replaces all set-resources of the profile (as its help says of
#               every key). Here it replaces the one number that it names. Rests on snakemake.cli.parse_args,
#               workflow.resource_settings and the type Resource.
#   files       Snakemake names a missing file, but not the key that names it. A job's process does not check, as it may
#               read less. Rests on workflow.is_main_process.
#   targets     A rule with wildcards cannot be a target, so Snakemake would refuse `snakemake align`, although
#               --forcerun, --until and --set-resources accept the name. Rests on Workflow.dag_settings, which is set
#               when all rules have been read.
#   input       Development collections decide no weight, and the user's own files count by content: newer (`ancient`)
#               or renamed ones are no reason to run a rule again, and neither is another number of jobs that share a
#               node. Rests on sourcecache_entry (Snakemake records where such an input comes from, not its path) and
#               on PersistenceBase._input (what Snakemake records of the inputs).
#   content     Snakemake judges inputs by time, and only small files by content as well. A copy or a restored backup of
#               a project has new times, so here every input counts by content. Snakemake records it when a job has
#               finished, and compares if an input is newer. Rests on _IOFile.is_checksum_eligible and checksum.
#   alone       A job that measures times must run alone on its machine, so it requests all cores. A rule's threads may
#               be `workflow.cores`, but that is an error where jobs go to a cluster. Rests on resource_settings.cores.
#   start       Snakemake ignores `onstart:` in a workflow that is used as a module. Rests on Workflow._onstart.
#   force       --forcerun align must train again, but a training that finds its finished model would return it. Rests
#               on workflow.dag and workflow.dag_settings, when the jobs are known.

import argparse
import os
from functools import cache

from milco.content import sample_of
from snakemake.cli import parse_args
from snakemake.io import _IOFile, sourcecache_entry
from snakemake.persistence import PersistenceBase
from snakemake.resources import Resource, Resources

if workflow.is_main_process:
    try:
        for experiment in EXPERIMENTS.values():
            experiment.check_files()
    except MilcoError as error:
        raise WorkflowError(str(error)) from None


def said_by_profile():
    """Rule → resources of this run's profile, which Snakemake drops when --set-resources is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile")
    parser.add_argument("--set-resources", nargs="+")
    said = parser.parse_known_args(sys.argv[1:])[0]
    if not said.profile or not said.set_resources:
        return {}
    starts = [Path(os.environ.get("PWD", "")), Path(workflow.basedir).parent]  # --directory has changed the folder
    found = [str(start / said.profile) for start in starts if (start / said.profile).exists()]
    return parse_args(["--profile", *(found[:1] or [said.profile])])[1].set_resources


# Not in the process of a cluster's job: there `cores` are all of the node, not what the job was given.
CORES = workflow.is_main_process and workflow.resource_settings.cores  # of this machine, if jobs run on it
ALONE = CORES or 1
SAID = {name: dict(resources) for name, resources in said_by_profile().items()}
for name, resources in workflow.resource_settings.overwrite_resources.items():
    SAID[name] = {**SAID.get(name, {}), **resources}


def said_of(rule_name):
    """Name → value of the resources that profile and command line give to a rule."""
    resources = {**(workflow.resource_settings.default_resources or {}), **SAID.get(rule_name, {})}
    return {name: resource.raw for name, resource in resources.items()}


def _resources(values):
    return {name: Resource(name, value) for name, value in values.items()}


def set_resources(laid):
    """Give rules the resources of profile and command line, and of `laid`; `cpus_per_task` sets the threads, too."""
    settings = workflow.resource_settings
    found = {name: {**SAID.get(name, {}), **_resources(laid.get(name, {}))} for name in {**SAID, **laid}}
    cpus = {name: resources["cpus_per_task"].raw for name, resources in found.items() if "cpus_per_task" in resources}
    settings.overwrite_resources = {name: Resources(resources) for name, resources in found.items()}
    settings.overwrite_threads = {**cpus, **settings.overwrite_threads}


class NamedTargets(type(workflow)):
    """A workflow in which the name of a target stands for files."""

    @property
    def dag_settings(self):
        return self.__dict__["dag_settings"]

    @dag_settings.setter
    def dag_settings(self, said):
        for target in said.targets:
            if target in TRAINED and target not in TARGETS:
                raise WorkflowError(f"target {target}: {WHY}; there are: {', '.join(TARGETS)}")
        said.targets = [path for target in said.targets for path in TARGETS.get(target, [target])]
        self.__dict__["dag_settings"] = said


workflow.__class__ = NamedTargets


inputs_of = PersistenceBase._input
PersistenceBase._input = lambda self, job: sorted({*inputs_of(self, job)})  # all unnoticed ones have one name


async def eligible(self, threshold):
    return await self.exists_local()


async def checksum(self, threshold=None, force=False, algorithm=None):
    """A file that other jobs read as well is read once, unless it was written since."""
    path = Path(self)
    stamp = path / ".snakemake_timestamp" if path.is_dir() else path
    return f"milco:{sample(path, stamp.stat().st_mtime_ns)}" if stamp.exists() else None


@cache
def sample(path, written):
    return sample_of(path)


_IOFile.is_checksum_eligible, _IOFile.checksum = eligible, checksum


def untracked(path):
    """An input whose time and path never trigger a rerun."""
    return sourcecache_entry(ancient(path), "whatever it is")


def unnoticed(paths):
    """Inputs that must exist before a node runs, but never trigger a rerun. `paths`: wildcards → paths."""
    return lambda wildcards: [untracked(path) for path in paths(wildcards)]


def looked_at(rule, training):
    """The development collections of a training (experiment → node)."""
    return unnoticed(lambda wildcards: [(e := owner(rule, wildcards)).development(training(e)).path])


def shared_by(rule):
    """Outputs of the jobs that share a search. If one job searches alone, another path takes their place, because a
    changed number of inputs would trigger a rerun."""
    return unnoticed(lambda wildcards: FOUND[rule](wildcards) or [owner(rule, wildcards).collections.path])


def forget_forced():
    """Start the trainings again that --forcerun or --forceall names; else they would return their finished models."""
    said = workflow.dag_settings
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in ("align", "distill") and (said.forceall or job.rule.name in said.forcerun):
            from milco.training.recovery import begin_anew  # imports torch

            begin_anew(Path(job.output[0]).parent)


workflow._onstart = begin

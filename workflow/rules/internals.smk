# What the workflow wants of Snakemake and Snakemake's documentation has no way to say. Everything here rests on names
# that may change with a release; nothing else in workflow/ does. Tried with Snakemake 9.17.0 and 9.27.1.
#
#   resources   A --set-resources on the command line replaces all set-resources of the profile (as its help says of
#               every key). Here it replaces the one number that it names. Rests on snakemake.cli.parse_args,
#               workflow.resource_settings and the type Resource.
#   files       Snakemake names a missing file, but not the key that names it. Not looked for where a job runs, which may
#               read less. Rests on workflow.is_main_process.
#   targets     A rule with wildcards is no target, so that `snakemake align` would be refused; --forcerun, --until and
#               --set-resources want that very name. Rests on Workflow.dag_settings, which is set when all rules have
#               been read.
#   input       A training looks at collections that decide no weight, so that others are no reason to train again: neither
#               newer ones (`ancient`) nor ones of another name. Nor is another number of jobs that share a node. Rests
#               on what Snakemake writes down of an input that it has taken from elsewhere: not its path, but where it
#               is from (sourcecache_entry); and on where it asks what to write down (PersistenceBase._input).
#   alone       A job that measures times runs beside no other on one machine: it takes all cores. A rule's threads may be
#               `workflow.cores`, but that is an error where jobs go to a cluster. Rests on resource_settings.cores.
#   start       `onstart:` of a workflow that is somebody's module is not heeded. Rests on Workflow._onstart.
#   force       --forcerun align is to train anew, and a training that finds what it made before hands that out. Rests
#               on workflow.dag and workflow.dag_settings, when the jobs are known.

import argparse
import os
import shutil

from snakemake.cli import parse_args
from snakemake.io import sourcecache_entry
from snakemake.persistence import PersistenceBase
from snakemake.resources import Resource, Resources

if workflow.is_main_process:
    try:
        for experiment in EXPERIMENTS.values():
            experiment.check_files()
    except MilcoError as error:
        raise WorkflowError(str(error)) from None


def said_by_profile():
    """Rule → resources in the profile of this run, where --set-resources has made Snakemake drop them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile")
    parser.add_argument("--set-resources", nargs="+")
    said = parser.parse_known_args(sys.argv[1:])[0]
    if not said.profile or not said.set_resources:
        return {}
    starts = [Path(os.environ.get("PWD", "")), Path(workflow.basedir).parent]  # --directory has changed the folder
    found = [str(start / said.profile) for start in starts if (start / said.profile).exists()]
    return parse_args(["--profile", *(found[:1] or [said.profile])])[1].set_resources


# On a cluster a job has what it was given: there `cores` are all of the node.
ALONE = (workflow.is_main_process and workflow.resource_settings.cores) or 1
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
    """Let rules have what was said of them, and what is laid out here; `cpus_per_task` are their threads, too."""
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
PersistenceBase._input = lambda self, job: sorted({*inputs_of(self, job)})  # one of another name stands for several


def unnoticed(paths):
    """Input of a node that is made before it, and is no reason to make the node again: `paths` (wildcards → some)."""
    return lambda wildcards: [sourcecache_entry(ancient(path), "whatever it is") for path in paths(wildcards)]


def looked_at(rule, training):
    """The development collections of a training (experiment → node)."""
    return unnoticed(lambda wildcards: [(e := owner(rule, wildcards)).development(training(e)).path])


def shared_by(rule):
    """What the jobs that share a search write. One job that searches alone has something else there: to have an input
    more, or one less, would be a reason."""
    return unnoticed(lambda wildcards: FOUND[rule](wildcards) or [owner(rule, wildcards).collections.path])


def forget_forced():
    """Let the trainings that --forcerun or --forceall names begin anew, instead of handing out what they made before."""
    said = workflow.dag_settings
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in ("align", "distill") and (said.forceall or job.rule.name in said.forcerun):
            for name in (".trained", "checkpoints"):
                shutil.rmtree(Path(job.output[0]).parent / name, ignore_errors=True)


workflow._onstart = begin

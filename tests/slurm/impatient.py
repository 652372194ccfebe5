"""Snakemake, whose plugin for SLURM looks at its jobs every two seconds. Left to itself it waits ten seconds more after
each look that finds none ended, a minute before long, for which no test has time."""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
main()

"""Snakemake, whose plugin for SLURM looks at its jobs every two seconds. By default it waits ten seconds longer after
each look that finds no ended job, soon a minute, which is too long for a test."""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
main()

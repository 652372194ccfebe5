"""Snakemake, whose plugin for SLURM looks at its jobs every two seconds. By default the interval grows by ten seconds
after each poll without a finished job, soon to a minute, which is too slow for a test."""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
main()

"""Where a result was made: packages, commit, machine."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = [
    "torch", "transformers", "accelerate", "tokenizers", "datasets", "numpy", "scipy", "pandas", "pyarrow",
    "snakemake", "bm25s", "pyseismic-lsr", "ir-measures",
]  # fmt: skip


def environment() -> dict:
    """Versions of the packages that decide a result, the project's code and commit, and the machine."""
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        **made_with(),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": devices or ["cpu"],
    }


def has_gpu() -> bool:
    """Whether this machine has a GPU, told without torch, whose import takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def made_with() -> dict:
    """What of the software decides a result: versions of packages, and the project's code."""
    return {"packages": {name: _version(name) for name in ["milco-lsr", *PACKAGES]}, "code": _code()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _code() -> str:
    """Checksum of the project's modules that this process uses."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("milco.")]
    return hashlib.sha256(b"".join(Path(module.__file__ or "").read_bytes() for module in modules)).hexdigest()[:12]


def _commit() -> str | None:
    """Commit of the checkout that this file lies in, with `+` if it has changes; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()

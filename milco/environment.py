"""Where a result was made: packages, commit, machine.

Each stage records it with its result: as `environment.json` in a folder, or `NAME.environment.json` beside a file.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from milco.errors import MilcoError
from milco.files import write_json

PACKAGES = [
    "torch", "transformers", "sentence-transformers", "accelerate", "tokenizers", "datasets", "mteb", "numpy", "scipy",
    "pandas", "pyarrow", "snakemake", "bm25s", "pyseismic-lsr", "ir-measures",
]  # fmt: skip
EARLIER = "earlier"  # environments in which parts were made before
RECORD = "environment.json"


def record(made: Path, parts: Iterable[dict[str, Any]] = ()) -> None:
    """Record this environment for the result `made`. `parts`: environments in which parts of it were made earlier."""
    _write(made, [environment(), *parts])


def record_as_parts(made: Path, parts: Iterable[Path]) -> None:
    """Record for `made`, which only merges parts, the environments of the parts."""
    found = [environment for part in parts for environment in recorded(part)]
    if found:
        _write(made, found)


def recorded(made: Path) -> list[dict[str, Any]]:
    """Recorded environments of `made`, latest first; empty if none was recorded."""
    path = _place(made)
    if not path.exists():
        return []
    last = json.loads(path.read_text(encoding="utf-8"))
    return [{key: value for key, value in last.items() if key != EARLIER}, *last.get(EARLIER, [])]


def _place(made: Path) -> Path:
    return made / RECORD if made.is_dir() else made.with_suffix(f".{RECORD}")


def _write(made: Path, environments: list[dict[str, Any]]) -> None:
    last, *earlier = [one for number, one in enumerate(environments) if one not in environments[:number]]
    write_json(_place(made), {**last, EARLIER: earlier} if earlier else last)


def environment() -> dict[str, Any]:
    """Versions of the packages that decide a result, the project's code and commit, and the machine."""
    torch = sys.modules.get("torch")  # a program that has not loaded it uses no device
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if torch else []
    return {
        "python": platform.python_version(),
        **made_with(),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": devices or ["cpu"],
    }


def has_gpu() -> bool:
    """Whether this machine has a GPU. Does not import torch, which takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


@cache  # several experiments ask
def gpu_without_bf16() -> str | None:
    """Name of a GPU of this machine that cannot compute in bfloat16, according to NVIDIA's driver. None if there is
    none. If CUDA_VISIBLE_DEVICES is set, only the GPUs that it names count."""
    query = ["nvidia-smi", "--query-gpu=compute_cap,name", "--format=csv,noheader"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        query.append(f"--id={visible}")
    elif visible == "":
        return None
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    gpus = re.findall(r"^(\d+)\.\d+, (.+)$", said, re.MULTILINE)
    return next((name for capability, name in gpus if int(capability) < 8), None)


def refuse_without_bf16(key: str, remedy: str = "false") -> None:
    """For a program that computes in bfloat16, as `key` of the configuration says: whether its GPU, if any, can do so.

    Raises:
        MilcoError: it cannot.
    """
    import torch  # takes seconds

    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise MilcoError(f"{key}: {torch.cuda.get_device_name()} has no bfloat16; set {key} to {remedy}")


def made_with() -> dict:
    """The software that decides a result: versions of packages, and the project's code."""
    return {"packages": {name: _version(name) for name in ["milco-lsr", *PACKAGES]}, "code": _code()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _code() -> str:
    """Checksum of the project's modules that this process uses."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("milco.")]
    return _checksum(b"".join(Path(module.__file__ or "").read_bytes() for module in modules))


def _commit() -> str:
    """Commit of the checkout of this package, with `+` and a checksum of the changes in it, if there are some. Outside
    a checkout `code` and a checksum of the package. All programs of one state have the same."""
    package = Path(__file__).parent
    try:
        commit, changes = (
            subprocess.run(["git", "-C", package, *words], capture_output=True, check=True).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["diff", "HEAD", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return f"code {_checksum(b''.join(path.read_bytes() for path in sorted(package.rglob('*.py'))))}"
    return commit.decode().strip() + (f"+{_checksum(changes)[:7]}" if changes else "")


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()

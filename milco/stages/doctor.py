"""Check that a cluster can train: devices, memory, versions, shared disk, and an all-reduce over all processes.

Run by rule `doctor` with the nodes and GPUs that the profile gives it:
    torchrun … -m milco.stages doctor --gpus-per-node 8

It reports every problem and then fails. If it succeeds, training can start.
"""

import os
import platform
import socket
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import psutil
import torch
from torch import distributed

from milco.errors import MilcoError

PATIENCE = timedelta(seconds=60)  # for nodes that do not find each other
MIB = 2**20
PACKAGES = ["torch", "transformers", "accelerate"]
INTERFACES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def facts(gpus_per_node: int) -> dict:
    """Facts about this process's node and device."""
    device = torch.cuda.get_device_properties(int(os.environ["LOCAL_RANK"])) if _has_device() else None
    return {
        "node": _node(),
        "rank": int(os.environ["RANK"]),
        "processes": int(os.environ["LOCAL_WORLD_SIZE"]),
        "device": f"{device.name}, {device.total_memory / 2**30:.0f} GiB" if device else "cpu",
        "threads": torch.get_num_threads(),
        "memory": f"{psutil.virtual_memory().available / 2**30:.0f} GiB free",
        "disk": f"{psutil.disk_usage('.').free / 2**30:,.0f} GiB free",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "torch": torch.__version__,  # says for which CUDA it is built, as its package often does not
        },
        "complaints": complaints_of_process(gpus_per_node),
    }


def complaints_of_process(wanted: int) -> list[str]:
    """Problems that this process can detect by itself."""
    found = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted and torch.version.cuda is None and torch.version.hip is None:
        found.append(
            f"torch {torch.__version__} is built for CPUs only: install a CUDA build "
            "(make install TORCH=…, or the environment of docs/slurm.md)"
        )
    elif wanted and not torch.cuda.is_available():
        found.append(
            f"torch {torch.__version__} sees no device (CUDA_VISIBLE_DEVICES={visible}): the driver is older than its "
            f"CUDA {torch.version.cuda}, or the partition gave none"
        )
    elif wanted and torch.cuda.device_count() < wanted:
        found.append(f"{wanted} GPUs are wanted, {torch.cuda.device_count()} are here (CUDA_VISIBLE_DEVICES={visible})")
    elif not wanted and torch.cuda.is_available():
        found.append("there is a GPU that nobody asked for: set gpus_per_node")
    return found + wrong_interfaces()


def wrong_interfaces() -> list[str]:
    """Network interfaces that the environment asks for and that do not exist here."""
    here = sorted(psutil.net_if_addrs())
    found = []
    for variable in INTERFACES:
        wanted = os.environ.get(variable, "")
        for name in [] if wanted.startswith("^") else wanted.lstrip("=").split(","):  # ^ means any but these
            if not any(interface.startswith(name) for interface in here):
                found.append(f"{variable}={wanted}: there is no such interface (there are: {', '.join(here)})")
    return found


def _has_device() -> bool:
    return torch.cuda.is_available() and torch.cuda.device_count() > int(os.environ["LOCAL_RANK"])


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def meet() -> None:
    """Start the process group.

    Raises:
        MilcoError: the processes do not find each other; the message names this node, the first one and the interfaces.
    """
    try:
        backend = "nccl" if _has_device() else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group(backend, timeout=PATIENCE)
        distributed.all_reduce(torch.ones(1, device=_device()))
    except (RuntimeError, ValueError) as error:  # torch's own network errors are of both kinds
        addresses = [
            f"{name} {address.address}"
            for name, found in psutil.net_if_addrs().items()
            for address in found
            if address.family == socket.AF_INET
        ]
        named = [f"{name}={os.environ[name]}" for name in INTERFACES if name in os.environ] or ["none is chosen"]
        raise MilcoError(
            f"{_node()}: process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not reach the others through "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}. Interfaces here: {'; '.join(addresses)} "
            f"({', '.join(named)}). "
            + " ".join(f"{complaint}." for complaint in wrong_interfaces())
            + " Choose the one that joins the nodes in the profile: environment: NCCL_SOCKET_IFNAME=… "
            f"GLOO_SOCKET_IFNAME=…. torch says: {str(error).splitlines()[0]}"
        ) from error


def _device() -> str:
    return f"cuda:{os.environ['LOCAL_RANK']}" if _has_device() else "cpu"


def bandwidth(mebibytes: int, repeats: int = 5) -> float:
    """Bus bandwidth of an all-reduce in GB/s: 2(n−1)/n times the bytes, by the median time.

    Raises:
        MilcoError: the sum is wrong.
    """
    processes = distributed.get_world_size()
    times = []
    for _ in range(repeats + 1):  # the first one warms up
        numbers = torch.full((mebibytes * MIB // 4,), 1.0, device=_device())
        distributed.barrier()
        started = time.perf_counter()
        distributed.all_reduce(numbers)
        total = float(numbers[-1])  # waits for the device
        times.append(time.perf_counter() - started)
        if total != processes:
            raise MilcoError(f"all-reduce of ones over {processes} processes made {total}")
    return 2 * (processes - 1) / processes * mebibytes * MIB / sorted(times[1:])[repeats // 2] / 1e9


def sees_shared_disk(folder: Path) -> bool:
    """Whether this node reads what the first process wrote into the project's folder."""
    witness = folder / f".doctor-{os.environ['MASTER_PORT']}"
    if distributed.get_rank() == 0:
        witness.write_text(_node(), encoding="utf-8")
    distributed.barrier()
    seen = witness.exists()
    for _ in range(20):  # network file systems take a moment
        if seen:
            break
        time.sleep(0.5)
        seen = witness.exists()
    distributed.barrier()
    if distributed.get_rank() == 0:
        witness.unlink()
    return seen


def examine(gpus_per_node: int) -> None:
    """Print the table and what is wrong.

    Raises:
        MilcoError: something is wrong.
    """
    meet()
    mine = facts(gpus_per_node)
    if not sees_shared_disk(Path.cwd()):
        mine["complaints"].append(f"does not see what the first node wrote into {Path.cwd()}: no shared disk")
    everyone: list[dict] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(everyone, mine)
    sizes = [1, 16, 256] if _has_device() else [1, 16]
    speeds = [f"{bandwidth(size):.2f} GB/s with {size} MiB" for size in sizes]
    distributed.destroy_process_group()
    if mine["rank"] > 0:
        return
    print(table(everyone))
    print(f"all-reduce over {len(everyone)} processes is right: {', '.join(speeds)}", flush=True)
    found = judge(everyone)
    if found:
        raise MilcoError("\n".join(found))
    print("nothing is wrong: training can start here")


def table(everyone: list[dict]) -> str:
    """A line for each process, with what its node has."""
    shown = ["node", "rank", "device", "threads", "memory", "disk"]
    rows = [{**{name: one[name] for name in shown}, **one["versions"]} for one in everyone]
    return pd.DataFrame(rows).to_string(index=False)


def judge(everyone: list[dict]) -> list[str]:
    """All complaints, each once for a node, and what differs between the nodes."""
    found = list(dict.fromkeys(f"{one['node']}: {complaint}" for one in everyone for complaint in one["complaints"]))
    for name in everyone[0]["versions"]:
        versions = {one["node"]: one["versions"][name] for one in everyone}
        if len(set(versions.values())) > 1:
            told = ", ".join(f"{node} {number}" for node, number in versions.items())
            found.append(f"{name} differs between nodes: {told}; all must use one environment")
    counts = {one["node"]: one["processes"] for one in everyone}
    if len(set(counts.values())) > 1:
        found.append(f"the nodes have different numbers of processes: {counts}")
    return found

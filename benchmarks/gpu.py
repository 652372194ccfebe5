"""Check and measure one GPU: correctness, speed, whole trainings. `make gpu` runs it.

python benchmarks/gpu.py                       every part, in about ten minutes
python benchmarks/gpu.py head --minutes 3      one of them
python benchmarks/gpu.py --tiny                every part at tiny sizes, on any machine; only tests that it runs

Nothing is fetched: weights are random, text is made on the spot, and part `whole` trains the demo from a bundle that
`make gpu-bundle` writes on another machine. Rows are written to results/gpu-PART.json as they are found, so that it may
be stopped at any point. A part that fails, or lacks something, is reported and does not stop the others.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project need not be installed
if __name__ == "__main__":  # who imports this file keeps the variables of its own process
    # One device: a training without torchrun would share its batch among all that it sees.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported

try:
    import gpu_correct
    import gpu_layout
    import gpu_speed
    import gpu_whole
    import psutil
    from gpu_layout import FULL, TINY, Sizes
    from table import speeds
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name} is missing here, and every part needs it")

BUNDLE = gpu_layout.ROOT / "build" / "gpu-bundle.tar.xz"
# Parts, the most useful ones first, and their shares of the time.
PARTS: dict[str, tuple[float, Callable[[Sizes, Path], Iterator[dict]]]] = {
    "correct": (0.1, lambda sizes, bundle: gpu_correct.correct(sizes)),
    "stages": (0.22, lambda sizes, bundle: gpu_speed.stages(sizes)),
    "head": (0.13, lambda sizes, bundle: gpu_speed.heads(sizes)),
    "encoding": (0.07, lambda sizes, bundle: gpu_speed.vectors(sizes)),
    "processes": (0.04, lambda sizes, bundle: gpu_correct.processes(sizes)),
    "whole": (0.43, gpu_whole.whole),
    "hours": (0.01, lambda sizes, bundle: hours(speeds(measure.RESULTS))),
}
GRACE = 60.0  # seconds beyond its time at which a part is ended, even in the middle of a row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of them")
    parser.add_argument("--tiny", action="store_true", help="sizes that say nothing; results go to build/gpu-tiny")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="what `make gpu-bundle` wrote")
    parser.add_argument("--results", type=Path, help="folder for the results")
    options = parser.parse_args()
    names = options.parts or list(PARTS)
    if wrong := [name for name in names if name not in PARTS]:
        sys.exit(f"{wrong[0]}: no such part (there are: {', '.join(PARTS)})")
    if not torch.cuda.is_available() and not options.tiny:
        sys.exit("there is no GPU here; --tiny runs every part on the processor")
    tiny = gpu_layout.ROOT / "build" / "gpu-tiny"
    # Programs that the parts start find the project there, too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(gpu_layout.ROOT), os.environ.get("PYTHONPATH")]))
    measure.RESULTS = options.results or (tiny if options.tiny else measure.RESULTS)
    if options.tiny or len(names) == 1:
        end, sizes = time.monotonic() + 60 * options.minutes, TINY if options.tiny else FULL
        right = [run(name, sizes, options.bundle, end) for name in names]
    else:
        print(f"missing here: {', '.join(missing(options.bundle)) or 'nothing'}", flush=True)
        more = ["--bundle", str(options.bundle), "--results", str(measure.RESULTS)]
        right = [*in_turn(names, options.minutes, more)]
    sys.exit(0 if all(right) else 1)


def in_turn(names: list[str], minutes: float, options: list[str]) -> Iterator[bool]:
    """Run each part in a process of its own, so that an error of one does not harm the next. Time that a part leaves
    goes to those after it."""
    end = time.monotonic() + 60 * minutes
    for number, name in enumerate(names):
        left, weights = end - time.monotonic(), [PARTS[name][0] for name in names[number:]]
        share = max(0.0, left) * weights[0] / sum(weights)
        command = [sys.executable, __file__, name, "--minutes", str(share / 60), *options]
        part = subprocess.Popen(command)
        try:
            done = part.wait(timeout=share + GRACE) == 0
        except subprocess.TimeoutExpired:
            end_with_children(part)
            print(f"gpu-{name}: ended in the middle of a row; those before it are kept", flush=True)
            done = True
        if not done:
            print(f"gpu-{name}: FAILED; repeat:  python benchmarks/gpu.py {name}", flush=True)
        yield done


def end_with_children(part: subprocess.Popen) -> None:
    """End a part and the programs that it has started: a training that went on would slow the parts after it."""
    for process in [*psutil.Process(part.pid).children(recursive=True), part]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    part.wait()


def run(name: str, sizes: Sizes, bundle: Path, end: float) -> bool:
    """Run one part, row by row, until its time is over; returns whether all that it checked is right."""
    rows: list[dict] = []
    for row in PARTS[name][1](sizes, bundle):
        rows.append({"benchmark": f"gpu-{name}", **row})
        measure.write(f"gpu-{name}", rows)
        print(json.dumps(rows[-1]), flush=True)
        if time.monotonic() > end:
            print(f"gpu-{name}: its time is over after {len(rows)} rows")
            break
    return all(row.get("right", True) for row in rows)


def missing(bundle: Path) -> list[str]:
    """What would be measured as well if it were here."""
    packages = [name for name in ("triton", "flash_attn", "mteb") if not importlib.util.find_spec(name)]
    return packages + ([] if bundle.exists() else [f"{bundle} (make gpu-bundle)"])


def hours(found: dict[str, float]) -> Iterator[dict]:
    """What the paper's experiment would take with these speeds, as `plan` says it."""
    if not found:
        yield {"case": "the paper's experiment", "note": "no speed has been measured yet"}
        return
    if not importlib.util.find_spec("mteb"):
        yield {"case": "the paper's experiment", "note": "mteb, which counts its texts, is not installed"}
        return
    from milco.config import load
    from milco.tools.plan import plan

    config = load(gpu_layout.ROOT / "config" / "milco.yaml")
    machine = config.machine.model_copy(update=found)
    for row in plan(config.model_copy(update={"machine": machine})):
        if row["device hours"]:
            yield {"case": row.pop("stage"), **row}


if __name__ == "__main__":
    main()

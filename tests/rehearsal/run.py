"""The paper's experiment from its first download to its last page, on the stand-ins of this folder.

    python tests/rehearsal/run.py [--folder FOLDER] [-- TARGET OPTION …]

Serves the stand-ins on the loopback, and runs Snakemake with config/milco.yaml, config/ablations.yaml and overlay.yaml
in a project folder of its own, a new one by default, which stays. Without targets: all, ablations, card. At the end it
prints how long the jobs of each rule took.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))  # where hub.py is

import hub  # noqa: E402
import pandas as pd  # noqa: E402
import standins  # noqa: E402

CONFIGURATION = [ROOT / "config" / "milco.yaml", ROOT / "config" / "ablations.yaml", HERE / "overlay.yaml"]
AUTHORS_CODE = [ROOT / "config" / "authors-code.yaml", HERE / "overlay.yaml"]
TARGETS = ["all", "ablations", "card"]
# Jobs of tiny models spend their time on imports, with one core: two run at once.
THREADS = [f"{rule}=1" for rule in ("tokenize", "teacher", "mine", "pack", "align", "distill", "encode")]


def environment(folder: Path, address: str) -> dict[str, str]:
    """What the rules see: the hub of the loopback, a token, and caches of their own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "MTEB_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "HF_ENDPOINT": address,
        "HF_TOKEN": standins.TOKEN,
        "HF_HOME": str(folder / "home"),
        "MTEB_CACHE": str(folder / "home" / "mteb"),
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
    }


def command(project: Path, arguments: list[str], configuration: list[Path]) -> list[str]:
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    snakemake += ["--profile", str(ROOT / "profiles" / "local"), "--configfile", *map(str, configuration)]
    return [*snakemake, "--directory", str(project), "--set-threads", *THREADS, "--cores", "2", *arguments]


def times(project: Path) -> pd.DataFrame:
    """Jobs that have ended, and their seconds, by rule: what Snakemake's benchmarks say."""
    rows = [(path.relative_to(project / "logs").parts[0], pd.read_csv(path, sep="\t").s[0])
            for path in sorted(project.glob("logs/*/*.tsv"))]  # fmt: skip
    seconds = pd.DataFrame(rows, columns=["rule", "seconds"]).groupby("rule", sort=False).seconds
    return seconds.agg(["count", "sum", "max"]).round(1)


def rehearse(folder: Path, arguments: list[str], configuration: list[Path] = CONFIGURATION) -> int:
    """Run Snakemake on the stand-ins in `folder`, or go on there; returns its exit status."""
    project = folder / "project"
    project.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with hub.running() as there:
        standins.fill(there)
        print(f"{len(there.repositories)} repositories at {there.address}, project in {project}", flush=True)
        done = subprocess.run(command(project, arguments, configuration), env=environment(folder, there.address))
    print(times(project).to_string())
    print(f"{time.monotonic() - start:.0f} s, exit {done.returncode}", flush=True)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="project and caches; a new one by default")
    parser.add_argument("snakemake", nargs="*", help="targets and options, after --")
    said = parser.parse_args()
    folder = said.folder or Path(tempfile.mkdtemp(prefix="milco-rehearsal-"))
    return rehearse(folder.resolve(), said.snakemake or TARGETS)


if __name__ == "__main__":
    sys.exit(main())

"""The demo's trainings on a GPU machine without network, from a bundle of their inputs.

python benchmarks/gpu_whole.py        writes the bundle, where `make demo` has run: `make gpu-bundle`
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gpu_layout import ROOT, Sizes
from safetensors.torch import load_file, save_file

from milco import config as configuration
from milco.config import Config
from milco.data.beir import read_collection
from milco.data.tokens import TokenCache
from milco.data.triples import Triples
from milco.modeling.checkpoints import load

STAGES = {"align": "Stage 1", "distill": "Stage 2"}
NDCG = "dev_nDCG@10"
MOST_MB = 60
INPUTS = ("corpora", "development", "tokens", "targets", "packed", "encoder", "lsr")


def pack(config: Config, inputs: dict[str, Path], results: dict[str, float], archive: Path) -> None:
    """Write a bundle.

    Args:
        inputs: `INPUTS` → where they lie.
        results: stage → the last nDCG@10 on the development collections, of the same training elsewhere.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config.save(folder / "config.yaml")
        (folder / "elsewhere.json").write_text(json.dumps(results))
        for part in ("tokens", "targets", "packed", "lsr"):
            shutil.copytree(inputs[part], folder / part)
        looked_at = Path("development", "collections", "dev")
        shutil.copytree(inputs["development"] / "collections" / "dev", folder / looked_at)
        (folder / "corpora").mkdir()
        shutil.copy(inputs["corpora"] / "english.parquet", folder / "corpora")
        shutil.copytree(inputs["encoder"], folder / "encoder", ignore=shutil.ignore_patterns("*.safetensors"))
        thin_out(config, inputs, folder / "encoder")
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:xz", preset=6) as file:
            file.add(folder, ".")


def thin_out(config: Config, inputs: dict[str, Path], output: Path) -> None:
    """Write the encoder's weights in float16, without layers that are not trained, and without the embeddings of
    tokens that no text of the trainings has: these become 0."""
    from transformers import AutoTokenizer

    cache, triples = TokenCache(inputs["tokens"]), Triples(inputs["packed"])
    used = set(load(AutoTokenizer, inputs["encoder"], False).all_special_ids)
    for table in (cache.english, cache.pairs, triples.queries, triples.documents):
        for start in range(0, len(table), 10_000):
            rows = np.arange(start, min(start + 10_000, len(table)))
            used.update(np.unique(np.concatenate(table.lists("input_ids", rows))).tolist())
    tokenizer = load(AutoTokenizer, inputs["encoder"], False)
    texts = list(config.evaluate.examples.values())
    for path in sorted((inputs["development"] / "collections" / "dev").iterdir()):
        collection = read_collection(path, "dev")
        texts += [*collection.queries.values(), *collection.documents.values()]
    used.update(number for ids in tokenizer(texts)["input_ids"] for number in ids)
    kept, deepest = {}, config.model.encoder_layers
    for name, weight in load_file(inputs["encoder"] / "model.safetensors").items():
        layer = name.partition("layer.")[2].partition(".")[0]
        if deepest is not None and layer.isdigit() and int(layer) >= deepest:
            continue
        if name.endswith("word_embeddings.weight"):
            unused = np.setdiff1d(np.arange(len(weight)), sorted(used))
            weight[unused] = 0.0
        kept[name] = weight.half() if weight.is_floating_point() else weight
    save_file(kept, output / "model.safetensors", {"format": "pt"})


def whole(sizes: Sizes, bundle: Path) -> Iterator[dict]:
    """Both stages, each cut off once and resumed; what they measured on the development collections."""
    if not bundle.exists():
        yield {"case": "the demo's trainings", "note": f"{bundle.name} is missing: make gpu-bundle where make demo ran"}
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(bundle) as file:
            file.extractall(folder, filter="data")
        elsewhere = json.loads((folder / "elsewhere.json").read_text())
        shared = {"config": "config.yaml", "corpora": "corpora", "lsr": "lsr", "development": "development"}
        own = {
            "align": {"tokens": "tokens", "targets": "targets", "encoder": "encoder", "output": "align/model"},
            "distill": {"triples": "packed", "start": "align/model", "output": "distill/model"},
        }
        for stage, said in STAGES.items():
            options = {**shared, **own[stage]}
            words = [word for key, value in options.items() for word in (f"--{key}", str(folder / value))]
            started = time.monotonic()
            first = train(stage, words, sizes.before_interruption)
            second = train(stage, words, sizes.training)
            rows = metrics(folder / stage)
            row = {"case": f"{said} of the bundle", "seconds": round(time.monotonic() - started, 1)}
            row["steps"] = max((found["step"] for found in rows), default=0)
            row["stopped_and_resumed"] = "yes" if "stopped" in first and "resumed" in second else "no"
            for key in ("examples_per_second", "loss", NDCG):
                row |= last(rows, key)
            yield row | ({f"{NDCG}_elsewhere": elsewhere[stage]} if stage in elsewhere else {})
            if not (folder / stage / "model").exists():
                yield {"case": "Stage 2 of the bundle", "note": "Stage 1 did not come to its end in time"}
                return


def train(stage: str, words: list[str], time_limit: float) -> str:
    """What a training prints within so many seconds."""
    limit = {"MILCO_DEADLINE": str(time.time() + time_limit)}
    command = [sys.executable, "-m", "milco.stages", stage, *words]
    done = subprocess.run(command, env={**os.environ, **limit}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{stage} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def last(rows: list[dict], key: str) -> dict:
    """The last value that a key has, under this key."""
    return {key: [row[key] for row in rows if key in row][-1]} if any(key in row for row in rows) else {}


def main() -> None:
    from experiment import Experiment

    experiment = Experiment()
    places = {name: getattr(experiment, name).path for name in ("corpora", "tokens", "targets", "packed")}
    places["development"] = experiment.development(experiment.align).path  # Stage 2 evaluates the same
    places |= {"encoder": experiment.encoder, "lsr": experiment.lsr}
    results = {}
    for stage in STAGES:
        results[stage] = last(metrics(experiment.at(getattr(experiment, stage).path).parent), NDCG)[NDCG]
    archive = ROOT / "build" / "gpu-bundle.tar.xz"
    settings = configuration.load(experiment.at(experiment.settings))
    pack(settings, {name: experiment.at(path) for name, path in places.items()}, results, archive)
    size = archive.stat().st_size / 1e6
    print(f"{archive}: {size:.1f} MB")
    if size > MOST_MB:
        sys.exit(f"more than {MOST_MB} MB, which is too much to carry")


if __name__ == "__main__":
    main()

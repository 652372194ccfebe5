"""A miniature experiment on a user's own files, and a folder in which Snakemake runs it as a user would."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import nn
from transformers import AutoTokenizer

from milco.config import Config
from milco.data import corpora

ROOT = Path(__file__).resolve().parent.parent
PREPARED = ("corpora", "tokens", "teacher", "triples", "packed", "development")  # what trainings read
OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def draw_weights(model: nn.Module, seed: int) -> None:
    """Weights so large that texts differ clearly. No bias stays 0 and no layer norm the identity, since a test could
    not see whether such a weight was copied."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("word_embeddings.weight"):
                parameter.normal_(std=1.0, generator=generator)
            elif name.endswith("LayerNorm.weight"):
                parameter.normal_(mean=1.0, std=0.1, generator=generator)
            else:
                parameter.normal_(std=0.1 if name.endswith("bias") else 0.3, generator=generator)


def words(checkpoint: Path) -> list[str]:
    return sorted(word for word in AutoTokenizer.from_pretrained(checkpoint).get_vocab() if word.strip("▁").isalpha())


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_data(folder: Path, teacher: Path, encoder: Path) -> None:
    """Parallel text, triples and a collection in which word n of English is word n of the other language."""
    chance = random.Random(0)
    english, foreign = words(teacher), [word.strip("▁") for word in words(encoder)]
    pairs = dict(zip(english, foreign, strict=False))
    asked: dict[tuple[str, ...], list[str]] = {}  # by query, each once: else a triple might have the query of a test
    while len(asked) < 120:
        text = chance.sample(sorted(pairs), 4)
        asked.setdefault(tuple(text[:2]), text)
    texts = list(asked.values())

    def translate(text: list[str]) -> str:
        return " ".join(pairs[word] for word in text) + "!"

    write_lines(folder / "pairs.tsv", [f"{' '.join(text)}\t{translate(text)}" for text in texts[:80]])
    triples = [
        {
            "query": translate(text[:2]),
            "pos": [" ".join(text)],
            "neg": [" ".join(other) for other in chance.sample(texts[:80], 5)],
            "pos_scores": [9.0],
            "neg_scores": [3.0, 2.0, 1.0, 1.0, 0.0],
        }
        for text in texts[:40]
    ]
    write_lines(folder / "triples.jsonl", [json.dumps(triple) for triple in triples])
    for split in ("test", "dev"):
        documents = {f"d{n}": " ".join(text) for n, text in enumerate(texts[80:])}
        queries = {f"q{n}": translate(text[:2]) for n, text in enumerate(texts[80:100])}
        beir = folder / "collection"
        write_lines(beir / "corpus.jsonl", [json.dumps({"_id": k, "text": v}) for k, v in documents.items()])
        write_lines(beir / "queries.jsonl", [json.dumps({"_id": k, "text": v}) for k, v in queries.items()])
        write_lines(
            beir / "qrels" / f"{split}.tsv",
            ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(20))],
        )


def build_corpora(config: Config, sources: dict[str, Path], folder: Path, encoder: Path | None = None) -> None:
    """Training text, test and development collections of an experiment in one folder."""
    evaluate = config.evaluate
    corpora.build(config, {name: sources[name] for name in config.training_sources()}, folder)
    for split, names in (("test", evaluate.test_collections), ("dev", evaluate.development_collections)):
        made = folder.with_name(f"{folder.name}-{split}")
        corpora.build_collections(config, {name: sources[name] for name in names}, split, made, encoder)
        shutil.copytree(made / "collections", folder / "collections", dirs_exist_ok=True, copy_function=os.link)
        shutil.rmtree(made)


def read_pairs(corpora: Path) -> pd.DataFrame:
    """english, non_english and language of what `corpora` wrote."""
    english = pd.read_parquet(corpora / "english.parquet").english
    pairs = pd.read_parquet(corpora / "parallel.parquet")
    return pairs.assign(english=pairs.english_id.map(english))[["english", "non_english", "language"]]


def settings(data: Path, teacher: Path, encoder: Path) -> dict:
    training = {"bf16": False, "learning_rate": 1e-3, "global_batch_size": 8, "logging_steps": 2, "save_steps": 4}
    return {
        "experiment": "miniature",
        "languages": ["xx"],
        "eval_languages": ["xx"],
        "sources": {
            "lsr": {"uri": f"file:{teacher}", "format": "transformers"},
            "encoder": {"uri": f"file:{encoder}", "format": "transformers"},
            "pairs": {"uri": f"file:{data}/pairs.tsv", "format": "pairs", "language": "xx"},
            "triples": {"uri": f"file:{data}/triples.jsonl", "format": "triples"},
            "mine": {
                "uri": f"file:{data}/collection",
                "format": "beir",
                "language": "xx",
                "document_language": "en",
            },
        },
        "model": {
            "multilingual_encoder_checkpoint": "encoder",
            "lsr_encoder_checkpoint": "lsr",
            "dropout": 0.1,
            "query_max_length": 64,
            "passage_max_length": 64,
        },
        "align": {
            "train_datasets": ["pairs"],
            "max_length": 16,
            "num_train_epochs": 2,
            "eval_steps": 10,
            "warm_start_texts": 20,
            "pairs_per_text": 2,
            **training,
        },
        "distill": {"train_datasets": ["triples"], "num_train_epochs": 2, "train_group_size": 3, **training},
        "evaluate": {
            "test_collections": ["mine"],
            "development_collections": ["mine"],
            "top_k": [2, 5],
            "mass": [0.5],
            "examples": {"xx": "hello world"},
        },
        "export": {"prune_documents": "auto"},
        "publish": {},
    }


class Project:
    """A folder with a configuration in which Snakemake is run as a user runs it."""

    workflow = ROOT / "workflow" / "Snakefile"

    def __init__(self, folder: Path, values: dict):
        self.folder, self.values = folder, values
        folder.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self, **changes) -> None:
        merged = {key: {**value, **changes.get(key, {})} if isinstance(value, dict) else changes.get(key, value)
                  for key, value in self.values.items()}  # fmt: skip
        values = {**changes, **merged}  # sections that the miniature leaves out, too
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        profile = ["--profile", str(ROOT / "profiles" / "local"), "--configfile", str(self.folder / "config.yaml")]
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(self.workflow)]
        return [*snakemake, *profile, "--directory", str(self.folder), "--cores", "2", *arguments]

    def snakemake(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env={**os.environ, **OFFLINE}, timeout=1800
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> set[str]:
        """Rules that a dry run would run."""
        output = self.snakemake("--dry-run", *arguments)
        table = output.split("Job stats:")[1].split("total")[0] if "Job stats:" in output else ""
        return {line.split()[0] for line in table.splitlines()[3:] if line.strip()}

    def prepare(self, other: "Project") -> None:
        """Take over everything that trainings read, as another project made it."""
        for made in (*(f"artifacts/{name}" for name in PREPARED), "results"):
            shutil.copytree(other.folder / made, self.folder / made)

    def one(self, pattern: str) -> Path:
        (found,) = self.folder.glob(pattern)
        return found

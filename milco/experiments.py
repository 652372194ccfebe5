"""Where everything of an experiment lies.

An artifact lies under a key made of all settings that decide it (`milco.config.Config.keys`), so that experiments
share what they have in common and a changed setting never meets an old checkpoint.
"""

from functools import cached_property
from typing import Any

from milco.config import Config
from milco.data.sources import local_path

SYSTEM_NAMES = {
    "bm25": "BM25",
    "teacher": "English teacher",
    "dense": "dense encoder, untrained",
    "align": "Stage 1",
    "distill": "Stage 2",
    "distill-pivot": "Stage 2, pivot view alone",
}


def system_names(config: Config) -> dict[str, str]:
    """System → what a reader calls it, in the reader's order."""
    mixes = {system: f"Stage 2, source view × {weight:g}" for system, weight in config.mixes().items() if weight}
    return SYSTEM_NAMES | mixes


class Experiment:
    """One experiment, with the keys and paths of its nodes.

    Attributes:
        keys: stage → key, as in `Config.keys`, and `source-NAME` → key of a download.
    """

    def __init__(self, config: Config):
        self.config, self.name = config, config.experiment
        downloads = {f"source-{name}": config.source_key(name) for name in config.sources}
        self.keys = {**config.keys(), **downloads}

    def source(self, name: str) -> str:
        """Where a source lies on this machine, fetched or the user's own."""
        local = local_path(self.config.sources[name].uri)
        return str(local) if local else f"resources/{name}-{self.keys[f'source-{name}']}"

    def checkpoint(self, name: str) -> str:
        """A transformers checkpoint: the source itself, or what is converted from it."""
        if self.config.sources[name].format == "transformers":
            return self.source(name)
        return f"artifacts/checkpoint/{name}-{self.keys[f'source-{name}']}"

    def sources(self, names: list[str]) -> dict[str, str]:
        """Name → place of some sources."""
        return {name: self.source(name) for name in names}

    @cached_property
    def first_round(self) -> "Experiment | None":
        """The experiment whose Stage 2 mines the negatives of this one, where it says so."""
        first = self.config.first_round()
        return Experiment(first.model_copy(update={"experiment": f"{self.name}-first-round"})) if first else None

    @cached_property
    def places(self) -> dict[str, Any]:
        """Name → path, or list of paths, of everything that one node makes and another reads."""
        config, keys = self.config, self.keys
        model = config.model
        systems = [name.removeprefix("runs-") for name in keys if name.startswith("runs-")]
        places = {
            "results": f"results/{self.name}",
            "settings": f"results/{self.name}/config.yaml",
            "encoder": self.checkpoint(model.multilingual_encoder_checkpoint),
            "lsr": self.checkpoint(model.lsr_encoder_checkpoint),
            "texts": list(self.sources(config.used_datasets()).values()),
            "triple-texts": list(self.sources(config.distill.train_datasets).values()),
            **{name: f"artifacts/{name}/{keys[name]}" for name in ("corpora", "tokens", "teacher", "index")},
            **{name: f"artifacts/{name}/{keys[name]}.parquet" for name in ("triples", "prune")},
            **{stage: f"artifacts/{stage}/{keys[stage]}/model" for stage in ("align", "distill")},
            **{f"runs-{system}": f"artifacts/runs/{system}-{keys[f'runs-{system}']}" for system in systems},
        }
        for system in (name.removeprefix("vectors-") for name in keys if name.startswith("vectors-")):
            made = "distill" if system.startswith("distill-") else system
            places[f"vectors-{system}"] = f"artifacts/vectors/{made}-{keys[f'vectors-{made}']}"
        for name, source in config.sources.items():
            if source.tokenizer:
                places |= {f"binary-{name}": self.source(name), f"tokenizer-{name}": self.source(source.tokenizer)}
        said = {"align": places["align"], "none": places["encoder"], "teacher": []}
        if self.first_round:
            said["distill"] = self.first_round.places["distill"]

        def named(name: str) -> Any:
            return said[name] if name in said else self.checkpoint(name)

        cut = any(config.sources[name].chunk_tokens for name in config.used_datasets())
        return {
            **places,
            "cutter": places["encoder"] if cut else [],
            "start": named(config.distill.pretrained_alignment_checkpoint),
            "miner": named(config.distill.miner),
            "scorer": named(config.distill.scorer),
            "vectors-bm25": [],
            "model-align": places["align"],
            "model-distill": places["distill"],
            "model-teacher": places["lsr"],
            "model-dense": places["encoder"],
        }

    def folder(self, stage: str) -> str:
        """Folder of a training stage, in which checkpoints and metrics lie beside its model."""
        return self.places[stage].removesuffix("/model")


def compared(experiments: list[Experiment]) -> dict[str, tuple[Experiment, str]]:
    """Lines of a comparison: label → experiment and system.

    Stage 2 of the first experiment, its other systems, then Stage 2 of every other, and its Stage 1 if that is a new
    one.
    """
    base, *variants = experiments
    names = system_names(base.config)
    lines = {names[system]: (base, system) for system in ("distill", *base.config.systems())}
    for variant in variants:
        name = variant.name.removeprefix(f"{base.name}-")
        lines[name] = (variant, "distill")
        if "align" in variant.config.systems() and variant.keys["align"] != base.keys["align"]:
            lines[f"{name}: Stage 1"] = (variant, "align")
    return lines

"""One experiment: all its sections, and the checks between them."""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from milco.config.base import Language, Layout, Strict, Whole
from milco.config.sections import Align, Corpora, Distill, Evaluate, Export, Machine, Model, Publish, Training
from milco.config.source import MODEL_FORMATS, PAIR_FORMATS, Source
from milco.errors import MilcoError
from milco.files import finished_file
from milco.languages import SEVERAL

OWN_STARTS = ("align", "none")  # values of distill.pretrained_alignment_checkpoint that name no source
BASELINES = ("bm25", "teacher", "dense")  # values of evaluate.baselines that name no source


def _as_written(value: Any) -> Any:
    """2024 and 2024-01-02 are a number and a date to YAML."""
    return str(value) if type(value) in (int, date) else value


def _no_twins(seeds: list[int]) -> list[int]:
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        raise ValueError(f"{twice[0]} occurs twice, and would train the same model; name each seed once")
    return seeds


class Config(Strict):
    """One experiment."""

    experiment: Annotated[str, BeforeValidator(_as_written)] = Field(
        pattern=r"^[\w.-]+$", description="Name of the folder under results/."
    )
    seed: Whole = Field(
        42,
        description="Seed of the data: it decides how known items are split, which pairs `max_pairs` keeps, and which "
        "random negatives are mined. Without seeds it is also the seed of the training.",
    )
    seeds: Annotated[list[Whole], Field(min_length=1), AfterValidator(_no_twins)] | None = Field(
        None,
        description="Seeds of the training: initial weights, dropout, the order of examples, and the documents shown "
        "with a query. Each trains the experiment once, on the same data. What does not depend on a training is made "
        "once; with distill.miner: align or distill each seed has its own triples. Tables and the exported model are "
        "those of the first seed; mean and deviation over all seeds stand beside them. By default there is one seed: "
        "seed.",
    )
    tracking: Literal["none", "tensorboard", "wandb", "trackio"] = Field(
        "none",
        description="Where trainings are shown while they run, in addition to metrics.jsonl. All values but none need "
        "a package: `pip install '.[tracking]'`.",
        json_schema_extra=Layout,
    )
    languages: list[Language] = Field(
        [],
        description="Languages of the training text, besides English, in any usual code: zh, zho and cmn are the "
        "same; zh-CN, zh-Hant and sr-Latn are separate languages. Pairs in other languages are dropped and counted, "
        "except mul. Triples and collections are kept in any language; if Stage 2 trains only on these, languages may "
        "be left out.",
    )
    eval_languages: list[Language] = Field(
        [],
        description="Query languages of the known-item collections. Those that are not in languages are measured but "
        "not trained on.",
    )
    sources: dict[str, Source] = Field(description="Models and data that the experiment uses, by name.")
    corpora: Corpora = Corpora()
    model: Model
    align: Align = Align.model_construct(train_datasets=[])  # may be left out, but not be empty
    distill: Distill = Distill.model_construct(train_datasets=[])
    evaluate: Evaluate
    export: Export = Export()
    publish: Publish = Publish()
    machine: Machine = Machine()
    experiments: dict[str, dict[str, Any]] = Field(
        {},
        exclude=True,  # settings are resolved experiment by experiment
        description="Variants of this experiment: for each, the keys that it changes, in the form of this file. "
        "Target `ablations` runs and compares them; what they share is made once. NAME becomes experiment-NAME.",
    )

    @field_validator("sources")
    @classmethod
    def _names_are_parts_of_file_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        if wrong := [name for name in sources if not re.fullmatch(r"[\w.-]+", name)]:
            raise ValueError(f"{wrong[0]!r}: a name has letters, digits, '.', '_' and '-', since files are named by it")
        return sources

    @model_validator(mode="before")
    @classmethod
    def _a_finished_model_has_what_it_needs(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("model", {}), dict):
            return values
        sections = [values[name] if isinstance(values.get(name), dict) else {} for name in ("evaluate", "distill")]
        name = sections[0].get("model") or sections[1].get("pretrained_alignment_checkpoint", "align")
        if name in OWN_STARTS:
            return values
        itself = dict.fromkeys(("multilingual_encoder_checkpoint", "lsr_encoder_checkpoint"), name)
        return {**values, "model": itself | values.get("model", {})}

    @model_validator(mode="after")
    def _it_is_trained_or_finished(self):
        finished, said = self.evaluate.model, self.model_fields_set
        if finished and self.seeds:
            raise ValueError("seeds: nothing is trained where evaluate.model names a finished model; leave seeds out")
        for key in ("align", "distill"):
            if finished and key in said:
                raise ValueError(
                    f"{key}: nothing is trained where evaluate.model names a finished model; leave one out"
                )
        whole = "to measure a finished model without training, set evaluate.model"
        tuned = "to continue training a finished model, set distill.pretrained_alignment_checkpoint to its source"
        missing = {"languages": self.reads_targets() and not self.languages}
        missing |= {"align": self.aligns(), "distill": True}
        for key, wanted in missing.items():
            if not finished and wanted and (key == "languages" or key not in said):
                raise ValueError(f"{key}: missing; {whole}{'' if key == 'distill' else f'; {tuned}'}")
        return self

    @model_validator(mode="after")
    def _checkpoints_are_told_apart(self):
        whole = self.evaluate.model or self.start
        checkpoints = {"dense": "multilingual_encoder_checkpoint", "teacher": "lsr_encoder_checkpoint"}
        for system, key in checkpoints.items():
            if whole and system in self.evaluate.baselines and getattr(self.model, key) == whole:
                raise ValueError(f"evaluate.baselines: {system} needs model.{key}; set it, or leave {system} out")
        if whole and not self.evaluate.model and self.reads_targets() and self.model.lsr_encoder_checkpoint == whole:
            raise ValueError(
                f"model.lsr_encoder_checkpoint: missing; {self._scored_in_english()[0]!r} of distill.train_datasets is "
                "scored by an English retriever; name its source"
            )
        return self

    @model_validator(mode="after")
    def _names_exist(self):
        checkpoints = {"transformers", "e5-q4"}
        wanted = [
            ("model.multilingual_encoder_checkpoint", self.model.multilingual_encoder_checkpoint, checkpoints),
            ("model.lsr_encoder_checkpoint", self.model.lsr_encoder_checkpoint, {"transformers"}),
        ]
        if self.evaluate.model:
            wider = [(key, name, formats | MODEL_FORMATS) for key, name, formats in wanted]
            wanted = [("evaluate.model", self.evaluate.model, MODEL_FORMATS), *wider]
        wanted += [("align.train_datasets", name, PAIR_FORMATS) for name in self.align.train_datasets]
        trained = {"triples", "home-assistant", "beir"} | (set() if self.aligns() else {"pairs"})
        wanted += [("distill.train_datasets", name, trained) for name in self.distill.train_datasets]
        wanted += [
            (f"evaluate.{kind}_collections", name, {"beir", "mteb", "home-assistant"})
            for kind in ("test", "development")
            for name in getattr(self.evaluate, f"{kind}_collections")
        ]
        stage_2 = {
            "pretrained_alignment_checkpoint": OWN_STARTS,
            "miner": ("teacher", "align", "distill"),
            "scorer": ("teacher",),
        }
        named = [  # first: a start stands for the encoder as well
            (f"distill.{key}", getattr(self.distill, key), {"transformers"})
            for key, words in stage_2.items()
            if getattr(self.distill, key) not in words
        ]
        wanted += [
            ("evaluate.baselines", name, MODEL_FORMATS)
            for name in self.finished_models()
            if name != self.evaluate.model
        ]
        wanted += [
            (f"sources.{n}.tokenizer", s.tokenizer, {"tokenizer"}) for n, s in self.sources.items() if s.tokenizer
        ]
        for key, name, formats in [*named, *wanted]:
            if name not in self.sources:
                words = f"neither {', '.join(BASELINES)} nor a source" if key == "evaluate.baselines" else "no source"
                raise ValueError(f"{key}: {words} {name!r} (there are: {', '.join(self.sources)})")
            if self.sources[name].format not in formats:
                raise ValueError(
                    f"{key}: source {name!r} has format {self.sources[name].format}, "
                    f"expected {' or '.join(sorted(formats))}"
                )
        return self

    @model_validator(mode="after")
    def _systems_differ(self):
        stages, said = {"align", "distill", *self.mixes()}, [*self.evaluate.baselines, self.evaluate.model]
        for name in said:
            if name in stages or said.count(name) > 1:
                why = "is the name of a stage's own model" if name in stages else "occurs twice"
                raise ValueError(f"evaluate.baselines: {name!r} {why}; leave it out, or give the source another name")
        return self

    @model_validator(mode="after")
    def _something_is_compared(self):
        evaluate, wanted = self.evaluate, self.evaluate.compared_collections
        for name in wanted:
            if name not in evaluate.test_collections:
                raise ValueError(
                    f"evaluate.compared_collections: {name!r} is not among evaluate.test_collections "
                    f"({', '.join(evaluate.test_collections)})"
                )
            if not self.sources[name].measured_with(evaluate.compared_measure):
                raise ValueError(
                    f"evaluate.compared_collections: {name!r} is not measured with {evaluate.compared_measure}; set "
                    f"evaluate.compared_measure, or add it to sources.{name}.measures"
                )
        for key in ("prune_documents", "prune_queries"):
            if getattr(self.export, key) == "auto":
                for kind, split in (("test", "test"), ("development", "dev")):
                    if not self.compared_sources(split):
                        raise ValueError(
                            f"export.{key}: auto, but no {kind} collection is measured with "
                            f"{evaluate.compared_measure}; set evaluate.compared_measure or {kind}_collections"
                        )
        return self

    @model_validator(mode="after")
    def _taken_out_exist(self):
        said, known = self.corpora.decontaminate_for, {*self.evaluate.test_collections}
        known |= {*self.evaluate.development_collections}
        unknown = [name for name in said if name not in known] if isinstance(said, list) else []
        if unknown:
            raise ValueError(
                f"corpora.decontaminate_for: {unknown[0]!r} is neither among evaluate.test_collections nor among "
                f"development_collections ({', '.join(sorted(known))})"
            )
        return self

    @model_validator(mode="after")
    def _looks_can_decide(self):
        for stage in ("align", "distill"):
            settings: Training = getattr(self, stage)
            if settings.looks_decide and not self.evaluate.development_collections:
                said = f"patience: {settings.patience}" if settings.patience else "keep: best"
                raise ValueError(
                    f"{stage}.{said} needs evaluate.development_collections; name one, or leave "
                    f"{said.partition(':')[0]} out"
                )
        return self

    @model_validator(mode="after")
    def _groups_can_be_filled(self):
        wanted, mined = self.distill.train_group_size - 1, self.distill.hard_negatives + self.distill.random_negatives
        if mined < wanted and {*self.distill.train_datasets} - {*self._in_format("triples")}:
            raise ValueError(
                f"distill.train_group_size: {wanted + 1} documents need {wanted} negatives, but hard_negatives and "
                f"random_negatives make {mined}"
            )
        return self

    @model_validator(mode="after")
    def _collections_can_be_mined(self):
        settings = self.distill
        for name in self._in_format("beir"):
            if settings.miner == "teacher":
                raise ValueError(
                    f"distill.miner: the English retriever cannot search {name!r}; "
                    "set it to align, distill or a source with a MILCO model"
                )
            if settings.miner == "distill" and settings.pretrained_alignment_checkpoint == "none":
                raise ValueError(
                    f"distill.miner: without Stage 1 no model can mine {name!r} for a first round; "
                    "set it to a source with a MILCO model"
                )
            if settings.scorer == "teacher":
                raise ValueError(
                    f"distill.scorer: the English retriever cannot read the queries of {name!r}; "
                    "set it to a source with a cross-encoder"
                )
        pairs = self._in_format("pairs")
        if pairs and settings.miner == "teacher":
            raise ValueError(
                f"distill.miner: for the pairs of {pairs[0]!r} a MILCO model mines; set it to "
                f"{settings.pretrained_alignment_checkpoint} or another source with one"
            )
        return self

    @model_validator(mode="after")
    def _own_vocabulary_stands_alone(self):
        wanted = {
            "distill.pretrained_alignment_checkpoint: none": self.distill.pretrained_alignment_checkpoint == "none",
            "model.echo: false": not self.model.echo,
            "model.freeze_pivot_head: false": not self.model.freeze_pivot_head,
        }
        missing = [key for key, there in wanted.items() if not there]
        if missing and not self.model.connector:
            raise ValueError(
                "model.connector: without a connector there is no English vocabulary, and so no Stage 1, LexEcho or "
                f"frozen head; set {', '.join(missing)}"
            )
        return self

    @model_validator(mode="after")
    def _languages_exist(self):
        for key in ("languages", "eval_languages"):
            if "en" in getattr(self, key):
                raise ValueError(f"{key}: leave en out, English is always there")
        return self

    @model_validator(mode="after")
    def _pairs_are_asked_for(self):
        asked = {*self.languages, SEVERAL}
        for name in self.parallel_datasets():
            source = self.sources[name]
            if source.format != "pairs":  # the others read the languages that they are asked for
                continue
            said = {f"subsets.{subset}": language for subset, language in source.subsets.items()}
            said |= {"language": source.language} if source.language else {}
            if said and asked.isdisjoint(said.values()):
                key, language = next(iter(said.items()))
                raise ValueError(
                    f"sources.{name}.{key}: {language} is not among languages ({', '.join(self.languages)}), so that "
                    "no pair would be left"
                )
        return self

    @model_validator(mode="after")
    def _chunks_fit(self):
        for name in self.used_datasets():
            size, limit = self.sources[name].chunk_tokens, self.model.passage_max_length
            if size and size > limit:
                raise ValueError(f"sources.{name}.chunk_tokens: {size}, but model.passage_max_length cuts at {limit}")
        return self

    @property
    def start(self) -> str | None:
        """Source of the finished model that Stage 2 starts from; None: this experiment's Stage 1, or the encoder."""
        said = self.distill.pretrained_alignment_checkpoint
        return None if said in OWN_STARTS else said

    def aligns(self) -> bool:
        """Whether Stage 1's text is read. It is not if Stage 2 starts from a finished model and no Stage 1 mines
        negatives."""
        return not self.start or self.distill.miner == "align"

    def parallel_datasets(self) -> list[str]:
        """Sources of the parallel text that is read: that of Stage 1, or the pairs that Stage 2 itself trains on."""
        return self.align.train_datasets if self.aligns() else self._in_format("pairs")

    def _scored_in_english(self) -> list[str]:
        """Datasets of Stage 2 whose documents have an English side, which the English retriever reads."""
        return self._in_format("home-assistant") + self._in_format("pairs")

    def reads_targets(self) -> bool:
        """Whether text with an English side is trained on, so that the English retriever's targets are needed."""
        return self.aligns() or bool(self._scored_in_english())

    def teacher_length(self) -> tuple[str, int]:
        """Key and tokens at which the English retriever cuts the texts of its targets."""
        if self.aligns():
            return "align.max_length", self.align.max_length
        return "model.passage_max_length", self.model.passage_max_length

    def tuned_languages(self) -> set[str]:
        """Languages of the training queries, as far as the configuration names them."""
        named = {self.sources[name].language for name in self.distill.train_datasets}
        return {language for language in {*self.languages, *named} if language and language != SEVERAL}

    def languages_of_items(self) -> list[str]:
        """Languages of the known items: those of the training and those of `eval_languages`."""
        return list(dict.fromkeys([*self.languages, *self.eval_languages]))

    def used_datasets(self) -> list[str]:
        """Sources of text that this experiment reads, each once."""
        names = [
            *self.parallel_datasets(),
            *self.distill.train_datasets,
            *self.evaluate.test_collections,
            *self.evaluate.development_collections,
        ]
        return list(dict.fromkeys(names))

    def taken_out(self, split: str) -> list[str]:
        """Sources of a split (`dev` or `test`) whose strings are removed from the training text."""
        evaluate, said = self.evaluate, self.corpora.decontaminate_for
        names = evaluate.test_collections if split == "test" else evaluate.development_collections
        return names if said == "all" else [name for name in names if name in said]

    def training_sources(self) -> list[str]:
        """Sources that affect the training text, each once."""
        trained = [*self.parallel_datasets(), *self.distill.train_datasets]
        return list(dict.fromkeys([*trained, *self.taken_out("test"), *self.taken_out("dev")]))

    def compared_sources(self, split: str = "test") -> list[str]:
        """Sources of the test collections on which systems and experiments may be compared; for the split `dev`, of the
        development collections on which budgets may be chosen."""
        evaluate = self.evaluate
        if split == "test" and evaluate.compared_collections:
            return evaluate.compared_collections
        names = evaluate.test_collections if split == "test" else evaluate.development_collections
        return [name for name in names if self.sources[name].measured_with(evaluate.compared_measure)]

    def chooses_budgets(self) -> bool:
        """Whether a budget of the exported model is `auto`."""
        return not self.evaluate.model and "auto" in (self.export.prune_documents, self.export.prune_queries)

    def _in_format(self, wanted: str) -> list[str]:
        """Datasets of Stage 2 in a format."""
        return [name for name in self.distill.train_datasets if self.sources[name].format == wanted]

    def first_round(self) -> "Config | None":
        """The settings of the round of Stage 2 whose model mines for this one; None if `distill.miner` is another.

        In that round the English retriever mines, or, for collections and pairs, the model that Stage 2 starts from.
        """
        if self.distill.miner != "distill":
            return None
        texts = self._in_format("beir") + self._in_format("pairs")
        miner = self.distill.pretrained_alignment_checkpoint if texts else "teacher"
        return self.model_copy(update={"distill": self.distill.model_copy(update={"miner": miner})})

    @property
    def training_seed(self) -> int:
        """Seed of the training's random choices; the data use `seed`."""
        return self.seeds[0] if self.seeds else self.seed

    def other_seeds(self) -> "list[Config]":
        """The same experiment, trained with each further seed: what `seeds` asks for besides the first."""
        return [
            self.model_copy(update={"experiment": f"{self.experiment}-seed-{seed}", "seeds": [seed]})
            for seed in (self.seeds or [])[1:]
        ]

    def check_processes(self, stage: str, processes: int) -> None:
        """Check that this number of processes can share a stage's global batch.

        Raises:
            MilcoError: they cannot.
        """
        size = getattr(self, stage).global_batch_size
        if size % processes:
            raise MilcoError(
                f"{stage}.global_batch_size: {size} cannot be shared by {processes} processes; "
                f"make it a multiple of {processes}"
            )
        together = self.align.pairs_per_mean if stage == "align" else 1
        if size // processes % together:
            raise MilcoError(
                f"align.pairs_per_mean: {together} does not divide the {size // processes} pairs that each of "
                f"{processes} processes has of align.global_batch_size; take fewer processes"
            )

    def trusts(self, checkpoint: str) -> bool:
        """Whether Python files of a checkpoint may be run.

        Args:
            checkpoint: a source or a system. A model of our stages is trusted if its start model is.
        """
        encoder, start = self.model.multilingual_encoder_checkpoint, self.distill.pretrained_alignment_checkpoint
        start = encoder if start in OWN_STARTS else start
        systems = {"dense": encoder, "align": encoder, "distill": start, "teacher": self.model.lsr_encoder_checkpoint}
        systems["development"] = start
        return self.sources[systems.get(checkpoint, checkpoint)].trust_remote_code

    def systems(self) -> list[str]:
        """Measured systems, in the order of the report's tables."""
        if self.evaluate.model:
            return [*self.evaluate.baselines, self.main]
        aligned = ["align"] if self.distill.pretrained_alignment_checkpoint == "align" else []
        return [*self.evaluate.baselines, *aligned, "distill", *self.mixes()]

    @property
    def encoder_apart(self) -> Path | None:
        """The user's folder with the encoder of finished models in the authors' layout; None if none is named."""
        named = self.model.multilingual_encoder_checkpoint
        return None if named in (self.evaluate.model, self.start) else self.sources[named].local_path

    @property
    def main(self) -> str:
        """The main system of the report: Stage 2, or `evaluate.model`."""
        return self.evaluate.model or "distill"

    def finished_models(self) -> list[str]:
        """Sources whose models are measured as they are."""
        named = [name for name in self.evaluate.baselines if name not in BASELINES]
        return [*named, self.evaluate.model] if self.evaluate.model else named

    def mixes(self) -> dict[str, float]:
        """Systems that rescale Stage 2's source view → its weight; 0 is the pivot view alone."""
        weighted = {f"distill-source-{weight:g}": weight for weight in self.evaluate.source_weights}
        return {"distill-pivot": 0.0, **weighted} if self.model.echo and not self.evaluate.model else {}

    def save(self, path: Path) -> None:
        """Write the resolved settings beside a result."""
        with finished_file(path) as draft:  # a job that starts just now reads the old ones or the new ones
            draft.write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """All settings, defaults included, as YAML; without the trainings that are left out."""
        left_out = {"align", "distill"} - self.model_fields_set
        return yaml.safe_dump(self.model_dump(exclude=left_out), sort_keys=False, allow_unicode=True)

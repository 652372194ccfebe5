"""The sections of a configuration: what a user may set, stage by stage."""

from collections.abc import Set
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from milco.config.base import Count, Layout, Rate, Share, Strict, Whole, norwegian
from milco.config.source import a_measure

LOOK = "dev_nDCG@10"  # what a look measures, and keep and patience judge by
Budget = Annotated[str, Field(pattern=r"^(none|auto|top-k [1-9]\d*|mass 0?\.\d+)$")]


class Corpora(Strict):
    """How text is split and turned into test collections."""

    held_out: Share = Field(0.4, description="Share of the integrations that is held out from training.")
    development: Share = Field(0.25, description="Share of the held-out integrations for development.")
    decontaminate: Literal["relevant", "all", "queries"] = Field(
        "relevant",
        description="Which strings of test and development collections are taken out of the training text: relevant: "
        "the queries and the documents that are judged relevant to them; all: every document; queries: no document. "
        "Of pairs, known items, and queries and positives of triples. Case, marks and markup make no difference. "
        "Integrations that are held out are so whatever this says.",
    )
    decontaminate_for: Literal["none", "all"] | list[str] = Field(
        "none",
        description="For which of these collections that is done: none, all, or sources by name. One more for which it "
        "is done trains both stages again. One more for which it is not is encoded, searched and measured, and nothing "
        "else; the report says how many queries stand in the training text. Say all, or names, before you publish.",
    )
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
    echo_scale_trained: bool = Field(
        False,
        description="Train that factor, which starts there, as the authors' code does. A model that Stage 2 starts "
        "from keeps one that it has.",
    )
    echo_special_tokens: bool = Field(
        False,
        description="Leave special tokens in the source view, as the authors' code does: their ids match in every pair "
        "of texts. A model that was trained so, and that Stage 2 starts from, keeps them anyway.",
    )
    echo_blank_pieces: bool = Field(
        False,
        description="Leave pieces of nothing but white space in the source view, such as the bare word boundary ▁ that "
        "nearly every Chinese or Japanese text has. A model that Stage 2 starts from and that has them keeps them "
        "anyway; with echo_special_tokens they stay, too.",
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
        description="Tokens whose states one process keeps. A larger share of the global batch is encoded pass by "
        "pass, and each pass again for its gradients: one more forward pass, the same result.",
        json_schema_extra=Layout,
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep no layer's states, compute them again: less memory, a third more time.",
        json_schema_extra=Layout,
    )
    dataloader_num_workers: Whole = Field(
        0, description="Processes beside each training process that prepare its batches.", json_schema_extra=Layout
    )
    learning_rate: Rate = Field(2e-5, description="Peak rate of pretrained weights.")
    new_layer_learning_rate: Rate | None = Field(None, description="Peak rate of connector and LexEcho.")
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = Field("cosine", description="Schedule.")
    warmup_ratio: Share = Field(0.03, description="Share of the steps in which the rate rises.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's weight decay.")
    max_grad_norm: Rate = Field(1.0, description="Norm at which gradients are clipped.")
    bf16: bool = Field(True, description="Mixed precision in bfloat16; false: float32.")
    eval_steps: Count = Field(
        100,
        description="Steps between looks at the development collections. The last step has one, too.",
        json_schema_extra=Layout,
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="Which weights the finished model has: last: those after the last step; best: those at the look "
        "with the highest mean nDCG@10 on the development collections, the first of equal ones. What looks see is then "
        "part of the result: a change of development_collections or of what they hold, of development_queries, "
        "development_documents or eval_steps trains again. Collections that share queries with a test collection would "
        "choose by the test. A training then has up to four checkpoints on disk, else two.",
    )
    patience: Count | None = Field(
        None,
        description="Looks in a row that are no better than the best before them, after which a training ends; by "
        "default none ends early. The rate falls as it would over all steps. What looks see is part of the result, as "
        "for keep: best.",
    )
    save_steps: Count = Field(100, description="Steps between checkpoints.", json_schema_extra=Layout)
    logging_steps: Count = Field(10, description="Steps between rows of metrics.jsonl.", json_schema_extra=Layout)

    @property
    def looks_decide(self) -> bool:
        """Whether the looks at the development collections decide the weights."""
        return self.keep == "best" or self.patience is not None

    def result(self, but: Set[str] = frozenset()) -> dict[str, Any]:
        """Values of the keys that decide a result; `eval_steps` does where the looks decide the weights."""
        if not self.looks_decide:
            return super().result(but | {"keep", "patience"})
        return {**super().result(but), "eval_steps": self.eval_steps}


class Align(Training):
    """Stage 1: sparse alignment on parallel text."""

    max_length: Count = Field(256, description="Tokens at which a text is cut.")
    warm_start_texts: Whole = Field(
        0, description="English texts for the closed-form start of the connector; 0: a random connector."
    )
    pairs_per_text: Count = Field(1, description="Pairs of one English text in a row, for which it is encoded once.")
    alignment_loss: Literal["active", "mass"] = Field(
        "active", description="The paper's mean over active terms, or the log-weight loss for short training."
    )
    pairs_per_mean: Count = Field(
        1,
        description="For active: pairs over whose active terms a mean is taken together. 1: text by text, so that "
        "every text counts as much; the authors' code: all pairs of a device's batch, so that every term does. A "
        "process's share of global_batch_size must be a multiple.",
    )
    target: Literal["clamped", "raw"] = Field(
        "clamped",
        description="What the teacher says of a term that only the student uses: clamped: 0; raw: its negative logit, "
        "as in the authors' code (for the longest texts of a batch). For raw the teacher encodes each batch during the "
        "training, beside the targets that are stored.",
    )
    contrastive_weight: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Weight of InfoNCE over stored targets: a text of another language must score its English side "
        "above contrastive_texts others. No further text is encoded.",
    )
    contrastive_texts: Count = Field(512, description="Its negatives, drawn at random for each step.")
    teacher_precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="In what the teacher computes the stored targets; tf32: float32 whose products a GPU rounds to "
        "TF32; bf16: mixed precision in bfloat16.",
    )

    @model_validator(mode="after")
    def _has_a_formula(self):
        if self.alignment_loss == "mass" and self.target == "raw":
            raise ValueError(
                "target: raw, but alignment_loss: mass has no logarithm of a negative logit; set one of them"
            )
        if self.alignment_loss == "mass" and self.pairs_per_mean > 1:
            raise ValueError("pairs_per_mean: alignment_loss: mass weighs each text by itself; leave it out")
        if self.global_batch_size % self.pairs_per_mean:
            raise ValueError(
                f"pairs_per_mean: {self.pairs_per_mean} does not divide global_batch_size, {self.global_batch_size}"
            )
        return self


class Distill(Training):
    """Stage 2: distillation with hard negatives."""

    pretrained_alignment_checkpoint: str = Field(
        "align",
        description="`align`: this experiment's Stage 1; `none`: no Stage 1; else the source of a finished model, ours "
        "or in its authors' layout, that is trained on. Then align may be left out, if distill.miner does not need it; "
        "its text is not read. The checkpoints of model may be left out, too, if no English retriever scores.",
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
    positives: Literal["judged", "scored"] = Field(
        "judged",
        description="What answers the queries of a collection of train_datasets. judged: the documents that "
        "qrels/train.tsv says; scored, where nobody judged: of the documents that the miner finds for each query of "
        "queries.jsonl the one that the scorer likes best.",
    )
    hard_negatives: Count = Field(16, description="Mined negatives per query, the miner's best wrong documents.")
    random_negatives: Whole = Field(4, description="Random negatives per query.")

    @model_validator(mode="after")
    def _learns_something(self):
        if not (self.distillation_weight or self.contrastive_weight):
            raise ValueError("distillation_weight and contrastive_weight are both 0: one of the two must teach ranking")
        return self


class Evaluate(Strict):
    """Encoding, search and what is measured."""

    test_collections: list[str] = Field(min_length=1, description="Sources: home-assistant, beir or mteb.")
    model: str | None = Field(
        None,
        description="Source of a finished sparse model that is measured in the place of one that is trained here: then "
        "align, distill and languages are left out. Pruning, index and tests of significance are its own, and BM25 has "
        "its tokenizer, unless model.multilingual_encoder_checkpoint names another.",
    )
    development_collections: list[str] = Field([], description="Sources looked at during training.")
    development_queries: Count = Field(20, description="Queries per development collection.", json_schema_extra=Layout)
    compared_collections: list[str] = Field(
        [],
        description="Sources among test_collections on which systems, budgets of pruning and experiments are compared: "
        "headline figures, tests of significance, `auto`, target `ablations`. By default the cross-lingual collections "
        "that have compared_measure, or all that have it if none of them is cross-lingual.",
    )
    compared_measure: Annotated[str, AfterValidator(a_measure)] = Field(
        "nDCG@10", description="The measure of these comparisons."
    )
    development_documents: Count = Field(
        10_000,
        description="Documents per development collection that a look searches: all that are judged for its queries, "
        "and others drawn at random up to so many.",
        json_schema_extra=Layout,
    )
    baselines: list[str] = Field(
        ["bm25", "teacher", "dense"],
        description="Systems to compare with: bm25, teacher (the English retriever), dense (the untrained encoder), "
        "and sources with finished models: MILCO models of any origin, and models of sentence-transformers, dense or "
        "sparse, as their authors meant them. A text is cut where ours is, or earlier where such a model reads less.",
    )
    batch_size: Count = Field(64, description="Texts that the encoder takes at a time.", json_schema_extra=Layout)
    encode_shards: Count = Field(
        1, description="Jobs that share the encoding of the test collections.", json_schema_extra=Layout
    )
    search_shards: Count = Field(
        1,
        description="Jobs that share the documents of the test collections in exact search, indexes and the "
        "measurement of pruning budgets. Any number finds the same, but for indexes, which have more parts.",
        json_schema_extra=Layout,
    )
    documents_at_a_time: Count = Field(
        65_536,
        description="Documents that exact search and BM25 hold in memory at a time, with 24 bytes for each of their "
        "terms. A collection of any size is searched so, and any number gives the same result.",
        json_schema_extra=Layout,
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
    examples: dict[Annotated[str, BeforeValidator(norwegian)], str] = Field(
        {},
        description="Texts by language, which looks show as weighted words; a finished training shows those it had.",
        json_schema_extra=Layout,
    )


class Export(Strict):
    """What rule `export` makes of the model."""

    prune_documents: Budget = Field(
        "none",
        description="Budget to which the exported model prunes documents by itself: `none`, `top-k 100`, `mass 0.9`, "
        "or `auto`: the smallest of evaluate that loses less than 1 % of evaluate.compared_measure on the development "
        "collections that have it (cross-lingual ones, as for compared_collections). The report says what it does on "
        "the test collections.",
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

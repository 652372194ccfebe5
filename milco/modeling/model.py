"""The MILCO model: multilingual encoder, connector, English pivot head and LexEcho head.

    model = MilcoModel.from_pretrained("results/demo/model")
    rows = model.encode_query(["Wie setze ich mein Passwort zurück?"])
    model.decode(rows)  # [{"e_password": 1.9, "e_reset": 1.7, …, "m_▁Passwort": 0.4}]

A representation is a sparse row of V_e + V_m columns: first the English vocabulary, then the source vocabulary. A model
without a connector (the paper's ablation) has the source vocabulary in place of the English one, and no LexEcho.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import scipy.sparse
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils.hub import cached_file

from .authors_layout import ROBERTA_EPS, english_tokenizer, is_theirs, read_settings, read_weights, their_name
from .checkpoints import load
from .errors import MilcoError
from .milco_config import MilcoConfig
from .pivot_head import PivotHead
from .pruning import budget_of, prune
from .rows import as_rows, as_tensor, in_text_order, padded_batches, pivot_cells
from .texts import special_and_wordless

HUB = ("revision", "token", "cache_dir", "local_files_only")  # how the Hub is asked
PIVOT_TOKENIZER = "pivot_tokenizer"  # sub-folder of a model directory; the source tokenizer lies at its top


Rows = Any  # a scipy.sparse.csr_array, a torch.Tensor or a list[dict[str, float]], as the caller asks for


@dataclass
class Views:
    """Output of the model for a batch of texts.

    pooled: B×V_e raw pooled logits, before log1p∘relu (Stage 1 works on them).
    source: B×L weights of the source tokens; 0 at pads and, as a rule, special tokens. None without LexEcho.
    """

    pooled: Tensor
    source: Tensor | None

    @property
    def pivot(self) -> Tensor:
        """B×V_e pivot view: log1p(relu(pooled))."""
        return torch.log1p(torch.relu(self.pooled.float()))


class MilcoModel(PreTrainedModel):
    """Text in any language → weighted English words, and weighted source words for what English would lose."""

    config_class = MilcoConfig
    base_model_prefix = "milco"
    main_input_name = "input_ids"
    config: MilcoConfig

    def __init__(
        self,
        config: MilcoConfig,
        encoder: PreTrainedModel | None = None,
        head: PivotHead | None = None,
        trust: bool = False,
    ):
        super().__init__(config)
        self.trust = trust
        self._find_english: Callable | None = None  # in the authors' layout the English tokenizer lies elsewhere
        if encoder is None:
            how = {"trust_remote_code": trust, "dtype": torch.get_default_dtype()}  # all weights have one precision
            encoder = AutoModel.from_config(config.encoder_config(trust), **how)
        self.encoder = _without_pooler(encoder)
        width = self.encoder.config.hidden_size
        self.connector = nn.Linear(width, config.pivot_hidden_size) if config.connector else None
        self.pivot_head = head or PivotHead(
            config.pivot_vocab_size, config.pivot_hidden_size, config.pivot_layer_norm_eps
        )
        self.echo = nn.Linear(width, 1) if config.echo else None
        trained = config.echo and config.echo_scale_trained
        self.echo_scale = nn.Parameter(torch.full((1,), float(config.echo_scale))) if trained else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise only the new layers, connector and LexEcho. LexEcho's bias starts above zero, so that every source
        token has a small weight and therefore a gradient."""
        if module is self.connector or module is self.echo:
            nn.init.normal_(module.weight, std=0.02)
            nn.init.constant_(module.bias, 0.1 if module is self.echo else 0.0)
        elif module is self and self.echo_scale is not None:
            nn.init.constant_(self.echo_scale, self.config.echo_scale)

    @classmethod
    def from_checkpoints(
        cls,
        encoder: str | Path,
        teacher: str | Path | None,
        encoder_layers: int | None = None,
        dropout: float | None = None,
        trust_encoder: bool = False,
        trust_teacher: bool = False,
        **settings,
    ) -> "MilcoModel":
        """A model that is ready for training: pretrained encoder and pivot head, random connector.

        Args:
            encoder: a transformers checkpoint of the multilingual encoder, tokenizer beside it.
            teacher: a checkpoint of the English sparse retriever (its MLM head becomes the pivot head); None: no
                connector, the pivot head is `PivotHead.from_encoder`'s.
            encoder_layers: how many layers to keep, from the bottom; all of them by default.
            dropout: dropout of the encoder; the checkpoint's own by default.
            trust_encoder, trust_teacher: whether Python files that lie in the checkpoint may be run.
            settings: further fields of `MilcoConfig`, or another `special_token_ids` than the tokenizer's.
        """
        encoder_config = load(AutoConfig, encoder, trust_encoder)
        if encoder_layers is not None:
            if encoder_layers > encoder_config.num_hidden_layers:
                raise MilcoError(
                    f"encoder_layers: {encoder_layers}, but {encoder} has {encoder_config.num_hidden_layers} layers"
                )
            encoder_config.num_hidden_layers = encoder_layers
        if dropout is not None:
            encoder_config.hidden_dropout_prob = encoder_config.attention_probs_dropout_prob = dropout
        backbone = load(AutoModel, encoder, trust_encoder, config=encoder_config)
        if teacher:
            head = PivotHead.from_teacher(teacher, trust_teacher)
        else:
            head = PivotHead.from_encoder(encoder, backbone, trust_encoder)
        tokenizer = load(AutoTokenizer, encoder, trust_encoder)
        shape = encoder_config.to_dict()
        if not backbone.is_remote_code():
            shape.pop("auto_map", None)  # names code that was not run
        config = MilcoConfig(
            encoder=shape,
            pivot_vocab_size=head.decoder.out_features,
            pivot_hidden_size=head.decoder.in_features,
            pivot_layer_norm_eps=head.norm.eps,
            connector=teacher is not None,
            **{"special_token_ids": special_and_wordless(tokenizer), **settings},
        )
        # Weights that came from a checkpoint must not be initialised again by post_init.
        for module in [*backbone.modules(), *head.modules()]:
            module._is_hf_initialized = True
        model = cls(config, backbone, head, trust_encoder)
        model.tokenizer = tokenizer
        model.pivot_tokenizer = load(AutoTokenizer, teacher, trust_teacher) if teacher else tokenizer
        return model

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *arguments,
        trust_remote_code: bool | None = None,
        encoder: str | Path | None = None,
        teacher: str | Path | None = None,
        output_loading_info: bool = False,
        **settings,
    ):
        """As in transformers, from a folder or the Hub (OWNER/NAME or OWNER/NAME@REVISION); both tokenizers come from
        there, too, when they are needed. Models in their authors' layout load like our own. Without `dtype` the weights
        are float32, however they were saved.

        Args:
            trust_remote_code: whether Python files that lie beside the weights may be run; only a model whose encoder
                transformers does not know needs them.
            encoder, teacher: for models in the authors' layout: folder or address of the encoder (its config.json) and
                of the English retriever (its tokenizer), where these lie neither beside the weights nor where the
                model's config.json says.

        Raises:
            MilcoError: a tensor is missing, has no place in the model, or has another shape than its place. Exception:
                LexEcho is initialised at random if `settings` add it to a model that was saved without it.
        """
        place = str(path)
        if "@" in place and not Path(place).exists():
            place, _, settings["revision"] = place.partition("@")
        hub = {name: settings[name] for name in HUB if name in settings}
        stored = PretrainedConfig.get_config_dict(place, **hub)[0]
        theirs = is_theirs(stored)
        dtype = settings.pop("torch_dtype", None) or settings.get("dtype") or torch.float32
        if dtype == "auto":
            dtype = getattr(torch, stored.get("dtype") or stored.get("torch_dtype") or "float32")
        settings["dtype"] = dtype
        if theirs:
            fields, tokenizer = read_settings(stored, place, encoder, hub)
            weights, roberta = read_weights(place, hub)
            if roberta:
                fields["pivot_layer_norm_eps"] = ROBERTA_EPS
            settings = {name: value for name, value in settings.items() if name not in hub}
            config, settings = MilcoConfig.from_dict(fields, return_unused_kwargs=True, **settings)
            settings |= {"config": config, "state_dict": weights}
        model, info = super().from_pretrained(
            None if theirs else place,
            *arguments,
            trust=bool(trust_remote_code),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are an error below, in our words
            **settings,
        )
        model.name_or_path = place
        model._origin = {**hub, "config": model.config}  # else it is read again, and asks whether to trust its code
        if theirs:
            model.tokenizer = tokenizer
            model._find_english = partial(english_tokenizer, stored, place, teacher, hub)
            for name in ("query_max_length", "passage_max_length"):
                length = getattr(model.config, name)
                setattr(model.config, name, min(length, model.positions or length))
        said = (fields, partial(their_name, roberta=roberta)) if theirs else (stored, str)
        _refuse_incomplete(model, info, *said)
        return (model, info) if output_loading_info else model

    @cached_property
    def tokenizer(self):
        """The multilingual tokenizer, from where the model was loaded."""
        return load(AutoTokenizer, self.name_or_path, self.trust, **self._origin)

    @cached_property
    def pivot_tokenizer(self):
        """The tokenizer whose ids are the columns of the pivot view: the English one, if there is a connector."""
        if self._find_english:
            return self._find_english()
        return load(AutoTokenizer, self.name_or_path, self.trust, subfolder=PIVOT_TOKENIZER, **self._origin)

    @property
    def folder(self) -> Path:
        """Folder of the model's files; in the Hub's cache if it was downloaded."""
        place = Path(self.name_or_path)
        hub = {name: value for name, value in self._origin.items() if name != "config"}
        return place if place.is_dir() else Path(str(cached_file(self.name_or_path, "config.json", **hub))).parent

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """Write weights (safetensors), configuration, both tokenizers, and the encoder's code if it brought some."""
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            for part in (self.encoder, self.encoder.config):
                if part._auto_class is not None:
                    custom_object_save(part, save_directory)
            _save_tokenizer(self.tokenizer, Path(save_directory))
            _save_tokenizer(self.pivot_tokenizer, Path(save_directory) / PIVOT_TOKENIZER)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        passes: list[tuple[Tensor, int]] | None = None,
        recompute: bool = False,
    ) -> Views:
        """B×L ids and mask → `Views` with raw pooled logits and source weights.

        Args:
            passes: (rows, their longest length) of texts that go through the encoder together
                (`batching.passes`); all rows at once by default. Texts must be padded on the right.
            recompute: keep only the views of each pass and encode it again in the backward pass, pass by pass (gradient
                cache, Gao et al. 2021); for losses over more texts than fit in memory.
        """
        if passes is None:
            return self._views(input_ids, attention_mask)
        parts = []
        for rows, length in passes:
            batch = input_ids[rows, :length], attention_mask[rows, :length]
            parts.append(checkpoint(self._views, *batch, use_reentrant=False) if recompute else self._views(*batch))
        back = torch.cat([rows for rows, _ in passes]).argsort()
        pooled = torch.cat([views.pooled for views in parts])[back]
        if self.echo is None:
            return Views(pooled, None)
        longest = input_ids.shape[1]
        source = [views.source for views in parts if views.source is not None]
        padded = [nn.functional.pad(weights, (0, longest - weights.shape[1])) for weights in source]
        return Views(pooled, torch.cat(padded)[back])

    def _views(self, input_ids: Tensor, attention_mask: Tensor) -> Views:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.bool()
        words = mask
        for special in self.config.special_token_ids:
            words = words & (input_ids != special)
        connected = states if self.connector is None else nn.functional.gelu(self.connector(states))
        # A text without a word is not represented by its start and end marks alone.
        pooled = self.pivot_head(connected, mask & words.any(dim=1, keepdim=True))
        if self.echo is None:
            return Views(pooled, None)
        scale = self.config.echo_scale if self.echo_scale is None else self.echo_scale
        weights = scale * torch.relu(self.echo(states).squeeze(-1).float())
        return Views(pooled, torch.where(words, weights, 0.0))

    encode = forward

    def encode_query(
        self,
        texts: str | list[str],
        batch_size: int = 64,
        language: str | None = None,
        max_length: int | None = None,
        return_dict: bool | None = None,
        source_view: bool = True,
    ) -> Rows:
        """Sparse rows of queries: N×(V_e+V_m) float32, in the order of `texts`, pruned to the model's budget.

        Args:
            max_length: tokens at which a text is cut; the model's `query_max_length` by default.
            return_dict: None: scipy CSR; False: a sparse COO tensor of torch; True: what `decode` makes of the rows.
            source_view: whether the source columns, behind V_e, have their weights; else they are empty.
        """
        rows = self._encode_texts(texts, max_length or self.config.query_max_length, batch_size)
        return self._as(prune(rows, budget_of(self.config.query_budgets, language)), return_dict, source_view)

    def encode_document(
        self,
        texts: str | list[str],
        batch_size: int = 64,
        language: str | None = None,
        max_length: int | None = None,
        return_dict: bool | None = None,
        source_view: bool = True,
    ) -> Rows:
        """The same for documents, which are cut at `passage_max_length`."""
        rows = self._encode_texts(texts, max_length or self.config.passage_max_length, batch_size)
        return self._as(prune(rows, budget_of(self.config.document_budgets, language)), return_dict, source_view)

    def encode_text(
        self,
        texts: str | list[str],
        batch_size: int = 32,
        max_length: int | None = None,
        return_dict: bool = False,
        source_view: bool = True,
    ) -> Rows:
        """Rows as the authors' models give them: a sparse COO tensor, or a dictionary for each text; not pruned, and
        cut as documents are."""
        rows = self._encode_texts(texts, max_length or self.config.passage_max_length, batch_size)
        return self._as(rows, return_dict, source_view)

    def _encode_texts(self, texts: str | list[str], max_length: int, batch_size: int) -> scipy.sparse.csr_array:
        texts = [texts] if isinstance(texts, str) else texts
        return in_text_order(self.iter_rows(texts, max_length, batch_size), self.width)

    def _as(self, rows: scipy.sparse.csr_array, return_dict: bool | None, source_view: bool) -> Rows:
        if not source_view:
            rows = rows.copy()
            rows.data[rows.indices >= self.config.pivot_vocab_size] = 0
            rows.eliminate_zeros()
        if return_dict is None:
            return rows
        return self.decode(rows) if return_dict else as_tensor(rows)

    def get_vocab(self) -> dict[int, str]:
        """Column of a representation → its name; columns that no tokenizer has a word for are left out."""
        terms = {column: f"e_{term}" for term, column in self.pivot_tokenizer.get_vocab().items()}
        first = self.config.pivot_vocab_size
        return terms | {first + column: f"m_{token}" for token, column in self.tokenizer.get_vocab().items()}

    @property
    def width(self) -> int:
        """Columns of a representation: V_e + V_m."""
        return self.config.pivot_vocab_size + self.config.source_vocab_size

    @cached_property
    def positions(self) -> int | None:
        """Number of positions of the encoder; None if it has no table of positions."""
        for name, table in self.encoder.named_modules():
            if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
                return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        return None

    def iter_rows(
        self, texts: list[str], max_length: int, batch_size: int, cut: list[int] | None = None
    ) -> Iterator[tuple[list[int], scipy.sparse.csr_array]]:
        """Encode texts in batches from short to long. Yields (positions in `texts`, sparse rows B×(V_e+V_m), not
        pruned). `cut` gets the places of texts that are longer than `max_length` tokens."""
        return self.encode_batches(padded_batches(self.tokenizer, texts, max_length, batch_size, cut))

    @torch.no_grad()
    def encode_batches(
        self, batches: Iterable[tuple[list[int], dict[str, Tensor]]]
    ) -> Iterator[tuple[list[int], scipy.sparse.csr_array]]:
        """The same of batches that `padded_batches` has made. MilcoError: a text is longer than the encoder reads."""
        was_training = self.training
        self.eval()
        try:
            for places, batch in batches:
                length = batch["input_ids"].shape[1]
                if self.positions and length > self.positions:
                    raise MilcoError(
                        f"a text has {length} tokens, but the encoder has positions for {self.positions}; that is the "
                        "largest max_length"
                    )
                batch = {name: values.to(self.device) for name, values in batch.items()}
                yield places, self.sparse_rows(self._views(**batch), batch["input_ids"])
        finally:
            self.train(was_training)

    def sparse_rows(self, views: Views, input_ids: Tensor) -> scipy.sparse.csr_array:
        """`Views` of a batch → CSR rows B×(V_e+V_m); a source id that occurs several times has its weights summed."""
        rows, columns, values = pivot_cells(views.pooled)
        if views.source is not None:
            at, position = views.source.nonzero(as_tuple=True)
            rows = torch.cat([rows, at])
            columns = torch.cat([columns, self.config.pivot_vocab_size + input_ids[at, position]])
            values = torch.cat([values, views.source[at, position]])
        return as_rows(rows, columns, values, (len(input_ids), self.width))

    def decode(self, rows: scipy.sparse.csr_array) -> list[dict[str, float]]:
        """Readable form of sparse rows: `e_` English and `m_` source tokens with their weights, heaviest first. Without
        a connector, `e_` is the prefix of the encoder's own tokens."""
        texts = []
        for row in range(rows.shape[0]):
            part = slice(rows.indptr[row], rows.indptr[row + 1])
            pairs = sorted(zip(rows.data[part], rows.indices[part], strict=True), key=lambda pair: (-pair[0], pair[1]))
            texts.append({self.column_name(int(column)): float(value) for value, column in pairs})
        return texts

    def column_name(self, column: int) -> str:
        """Name of one column of a representation, such as `e_password` or `m_▁Passwort`."""
        if column < self.config.pivot_vocab_size:
            term = self.pivot_tokenizer.convert_ids_to_tokens(column) if column < len(self.pivot_tokenizer) else None
            return f"e_{term}" if term is not None else f"unk_{column}"  # of a padded vocabulary
        return f"m_{self.tokenizer.convert_ids_to_tokens(column - self.config.pivot_vocab_size)}"


def _refuse_incomplete(model: MilcoModel, info: dict[str, Any], stored: dict[str, Any], name: Callable) -> None:
    """Raise MilcoError if weights and model do not match: missing weights would be initialised at random.

    Args:
        info: loading info from transformers.
        stored: the configuration that was saved with the weights.
        name: our name of a tensor → its name in the checkpoint.
    """
    free = {"echo_scale"} if stored.get("echo_scale_trained", False) != model.config.echo_scale_trained else set()
    if stored.get("echo", True) != model.config.echo:  # LexEcho is added, or left out
        free |= {"echo.weight", "echo.bias", "echo_scale"}
    faults = [f"{name(key)} is missing" for key in sorted(set(info["missing_keys"]) - free)]
    faults += [f"{name(key)} has no place in the model" for key in sorted(set(info["unexpected_keys"]) - free)]
    faults += [
        f"{name(key)} is {'×'.join(map(str, there))}, but its place is {'×'.join(map(str, wanted))}"
        for key, there, wanted in sorted(info["mismatched_keys"])
    ]
    faults += info["error_msgs"]
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise MilcoError(
            f"{model.name_or_path}: weights and configuration do not belong together: {faults[0]}{more}; "
            "copy or download the model again"
        )


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a tokenizer reproducibly: a fast tokenizer would also save the truncation and padding of its last call."""
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)


def _without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Drop BERT's pooler: no view reads it, and unused weights would stop distributed training."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


if __package__ == "milco.modeling":  # a published model's copy is found through its config.json
    AutoConfig.register(MilcoConfig.model_type, MilcoConfig)
    AutoModel.register(MilcoConfig, MilcoModel)

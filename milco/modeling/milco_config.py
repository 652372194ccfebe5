"""Configuration of a MILCO model, stored in its config.json."""

import copy

from transformers import AutoConfig, PretrainedConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from .checkpoints import refusal
from .errors import MilcoError


class MilcoConfig(PretrainedConfig):
    """Shape of a MILCO model.

    Args:
        encoder: configuration of the multilingual encoder, as a dictionary with its `model_type`.
        pivot_vocab_size: V_e, terms of the English vocabulary.
        pivot_hidden_size: d_e, width of the English retriever.
        pivot_layer_norm_eps: epsilon of the layer norm inside the pivot head.
        connector: whether a connector maps to an English vocabulary; else the pivot view uses the source vocabulary,
            V_e = V_m and d_e = d_m.
        echo: whether the model has a LexEcho head and so a source view.
        echo_scale: the constant `scale` of the source weights.
        echo_scale_trained: whether the scale is a trained weight that starts at `echo_scale`.
        query_max_length, passage_max_length: tokens at which `encode_query` and `encode_document` cut a text.
        special_token_ids: source ids that carry no content and so never enter the source view: those of special tokens
            and of blank pieces; none for a model that was trained with all of them in it.
        document_budgets, query_budgets: language → budget to which `encode_document` and `encode_query` prune, as
            `pruning.prune` reads it; `all`: the budget of other languages, and of texts whose language is not said.
    """

    model_type = "milco-lsr"  # `milco` is the authors' own: their code registers it in the same process

    def __init__(
        self,
        encoder: dict | None = None,
        pivot_vocab_size: int = 30522,
        pivot_hidden_size: int = 768,
        pivot_layer_norm_eps: float = 1e-12,
        connector: bool = True,
        echo: bool = True,
        echo_scale: float = 1.0,
        echo_scale_trained: bool = False,
        query_max_length: int = 64,
        passage_max_length: int = 256,
        special_token_ids: list[int] | None = None,
        document_budgets: dict[str, str] | None = None,
        query_budgets: dict[str, str] | None = None,
        **kwargs,
    ):
        self.encoder = encoder or {"model_type": "xlm-roberta"}
        self.pivot_vocab_size = pivot_vocab_size
        self.pivot_hidden_size = pivot_hidden_size
        self.pivot_layer_norm_eps = pivot_layer_norm_eps
        self.connector = connector
        self.echo = echo
        self.echo_scale = echo_scale
        self.echo_scale_trained = echo_scale_trained
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.special_token_ids = special_token_ids or []
        self.document_budgets = document_budgets or {}
        self.query_budgets = query_budgets or {}
        super().__init__(**kwargs)

    @classmethod
    def get_config_dict(cls, path, **how):
        """As in transformers.

        Raises:
            MilcoError: the configuration is that of another kind of model.
        """
        settings, unused = super().get_config_dict(path, **how)
        if "encoder" not in settings:
            known = "; MilcoModel.from_pretrained reads it" if "multilingual_encoder_checkpoint" in settings else ""
            raise MilcoError(f"{path}: config.json is not of a MILCO model of this project's layout{known}")
        return {**settings, "model_type": cls.model_type}, unused  # earlier models say milco

    def encoder_config(self, trust: bool = False) -> PretrainedConfig:
        """The encoder's own configuration object.

        Args:
            trust: whether Python files that lie in the model's folder may be run.

        Raises:
            MilcoError: the encoder needs such files, and `trust` is false.
        """
        if "auto_map" not in self.encoder:
            return AutoConfig.for_model(**copy.deepcopy(self.encoder))
        if not trust:
            raise refusal(self.name_or_path, "load it with trust_remote_code=True, or --trust-remote-code")
        kind = get_class_from_dynamic_module(self.encoder["auto_map"]["AutoConfig"], self.name_or_path)
        kind.register_for_auto_class()
        config = kind.from_dict(copy.deepcopy(self.encoder))
        config.name_or_path = self.name_or_path  # where AutoModel looks for the code
        return config

    @property
    def source_vocab_size(self) -> int:
        """V_m, ids that the multilingual encoder knows."""
        return self.encoder.get("vocab_size") or self.encoder_config().vocab_size

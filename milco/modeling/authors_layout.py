"""Read models in the layout of MILCO's authors, without running their code.

    config.json            model_type `milco`, sizes, the addresses of encoder and teacher; not the encoder's own shape
    pytorch_model.bin      or model.safetensors, each also in shards
    tokenizer.json …       the encoder's tokenizer
    encoder/config.json    the encoder's configuration, if present; else it is read from the encoder's own checkpoint
    pivot_tokenizer/       the English tokenizer, likewise; the vocabulary of BERT uncased is in this package

`MilcoModel.from_pretrained` loads one from a folder or an address on the Hub, of Stage 1 (with the frozen teacher
inside, without LexEcho) or of Stage 2.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from .checkpoints import load
from .errors import MilcoError

# Their names → ours, by what they begin with; the head is that of the BERT or of the RoBERTa family.
PLACES = {
    "m_model.": "encoder.",
    "projector.": "connector.",
    "mlm_head.predictions.transform.dense.": "pivot_head.dense.",
    "mlm_head.predictions.transform.LayerNorm.": "pivot_head.norm.",
    "mlm_head.predictions.decoder.": "pivot_head.decoder.",
    "mlm_head.dense.": "pivot_head.dense.",
    "mlm_head.layer_norm.": "pivot_head.norm.",
    "mlm_head.decoder.": "pivot_head.decoder.",
    "echo.": "echo.",
    "scale": "echo_scale",
}
TIED = {"mlm_head.predictions.bias": "mlm_head.predictions.decoder.bias", "mlm_head.bias": "mlm_head.decoder.bias"}
UNUSED = ("en_lsr.", "m_model.pooler.")  # the teacher of their Stage 1, and a layer that no view reads
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
BERT_UNCASED = Path(__file__).with_name("bert_uncased.txt")  # vocabulary of Google's BERT, Apache-2.0; a term a line
BERT_TERMS = 30522
ROBERTA_HEAD = ("mlm_head.dense.", "mlm_head.layer_norm.", "mlm_head.decoder.")
ROBERTA_EPS = 1e-5  # of the layer norm in such a head
PADDING = 128  # a vocabulary may be padded to a multiple of this, and so have fewer terms than columns


def is_theirs(settings: dict[str, Any]) -> bool:
    """Whether a config.json has this layout."""
    return settings.get("model_type") == "milco" and "multilingual_encoder_checkpoint" in settings


def read_settings(
    settings: dict[str, Any], place: str, encoder: str | Path | None, hub: dict[str, Any]
) -> tuple[dict[str, Any], PreTrainedTokenizerBase]:
    """Fields of `MilcoConfig`, and the encoder's tokenizer.

    Args:
        settings: their config.json.
        place: folder or address of the model.
        encoder: folder or address of the encoder, where its shape and tokenizer are not in `place`.
        hub: options of Hub requests: revision, token, cache_dir, local_files_only.

    Raises:
        MilcoError: a field is missing; the shape of the encoder, or its tokenizer, cannot be found, or they do not
            belong together.
    """
    for name in ("en_vocab_size", "en_hidden_size", "m_vocab_size", "m_hidden_size", "lsr_encoder_checkpoint"):
        if name not in settings:
            raise MilcoError(f"{place}/config.json: {name} is missing; download it again")
    shape = _encoder_shape(settings, place, encoder, hub)
    full = AutoConfig.for_model(**shape)
    tokenizer = _source_tokenizer(settings, place, encoder, full, hub)
    if len(tokenizer) > full.vocab_size:
        raise MilcoError(
            f"{place}: its tokenizer has {len(tokenizer):,} tokens, but its encoder {full.vocab_size:,}; put the "
            "encoder's own tokenizer beside the weights"
        )
    longest = min(tokenizer.model_max_length, shape.get("max_position_embeddings", tokenizer.model_max_length))
    echo = settings.get("echo", False)
    fields = {
        "encoder": shape,
        "pivot_vocab_size": settings["en_vocab_size"],
        "pivot_hidden_size": settings["en_hidden_size"],
        "echo": echo,
        "echo_scale_trained": echo,
        "query_max_length": longest,
        "passage_max_length": longest,
        "special_token_ids": [],  # they stand in the source view
    }
    return fields, tokenizer


def shape_within(settings: dict[str, Any]) -> dict[str, Any] | None:
    """The encoder's configuration, if their config.json holds it."""
    parts = [part for part in settings.values() if isinstance(part, dict) and part.get("model_type")]
    return next((part for part in parts if part.get("vocab_size") == settings.get("m_vocab_size")), None)


def _encoder_shape(settings: dict[str, Any], place: str, encoder: str | Path | None, hub: dict) -> dict[str, Any]:
    """The encoder's configuration: in config.json, in the folder `encoder` beside it, in the checkpoint that the user
    names, or in the one that config.json names."""
    named, width = settings["multilingual_encoder_checkpoint"], settings["m_hidden_size"]
    within, beside = shape_within(settings), Path(place) / "encoder"
    if within:
        found, origin = within, f"{place}/config.json"
    else:
        origin = str(beside if (beside / "config.json").is_file() else encoder or named)
        try:
            found = PretrainedConfig.get_config_dict(origin, **{**hub, "revision": None})[0]
        except OSError as error:
            raise MilcoError(
                f"{place}: the shape of its encoder is not in it, and {origin} does not give it "
                f"({_first_line(error)}); put the config.json of {named} into {place}/encoder/, or name a folder that "
                "has it: `milco export --encoder`, `MilcoModel.from_pretrained(…, encoder=…)`"
            ) from None
    if is_theirs(found):
        raise MilcoError(
            f"{origin}: this is a MILCO model, and not its encoder; put the encoder's config.json into {place}/encoder/"
        )
    if found.get("model_type") not in CONFIG_MAPPING:
        raise MilcoError(
            f"{place}: its encoder is of type {found.get('model_type')!r}, which transformers does not know, and "
            f"Python code of {named} is not run; take a newer transformers, or another model"
        )
    shape = {name: value for name, value in found.items() if name not in ("auto_map", "_name_or_path")}
    has = AutoConfig.for_model(**shape).hidden_size  # whatever its type calls it
    if has != width:
        raise MilcoError(
            f"{origin}: an encoder of width {has}, but {place} has one of width {width}; name the folder of {named}"
        )
    return shape


def _source_tokenizer(
    settings: dict[str, Any], place: str, encoder: str | Path | None, shape: PretrainedConfig, hub: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """The encoder's tokenizer: the one beside the weights, or else that of the encoder itself."""
    causes = []
    for tried in dict.fromkeys(filter(None, (place, encoder, settings["multilingual_encoder_checkpoint"]))):
        how = hub if tried == place else {**hub, "revision": None}
        try:  # with the encoder's configuration: AutoTokenizer does not know theirs
            found = load(AutoTokenizer, tried, False, config=shape, **how)
        except Exception as error:  # of a broken tokenizer.json the library raises no other kind
            causes.append(f"{tried}: {_first_line(error)}")
            continue
        found.pad_token = found.pad_token or found.eos_token
        return found
    raise MilcoError(f"{place}: no tokenizer of its encoder ({'; '.join(causes)}); put its files beside the weights")


def english_tokenizer(
    settings: dict[str, Any], place: str, teacher: str | Path | None, hub: dict
) -> PreTrainedTokenizerBase:
    """The tokenizer whose ids are the columns of the pivot view.

    Args:
        teacher: folder or address of the English retriever, where its tokenizer is not in `place`.

    Raises:
        MilcoError: no tokenizer with so many terms can be found.
    """
    terms, named = settings["en_vocab_size"], settings["lsr_encoder_checkpoint"]
    for folder in (Path(place) / "pivot_tokenizer", teacher, named):
        if folder and Path(folder).is_dir():
            found = load(AutoTokenizer, folder, False)
            if 0 <= terms - len(found) < PADDING:
                return found
    if terms == BERT_TERMS and BERT_UNCASED.exists():
        words = BERT_UNCASED.read_text(encoding="utf-8").split("\n")[:-1]
        return BertTokenizer(vocab={word: column for column, word in enumerate(words)}, do_lower_case=True)
    try:
        found = AutoTokenizer.from_pretrained(str(teacher or named), **{**hub, "revision": None})
        cause = f"it has {len(found):,} terms"
        if 0 <= terms - len(found) < PADDING:
            return found
    except (OSError, ValueError) as error:
        cause = _first_line(error)
    raise MilcoError(
        f"{place}: no tokenizer for its {terms:,} English terms ({teacher or named}: {cause}); put the tokenizer of "
        f"{named} into {place}/pivot_tokenizer/, or name a folder that has it: `milco export --teacher`, "
        "`MilcoModel.from_pretrained(…, teacher=…)`"
    )


def read_weights(place: str, hub: dict) -> tuple[dict[str, Tensor], bool]:
    """Tensors of a model by our names, and whether its head is of the RoBERTa family.

    Raises:
        MilcoError: a file is missing or contains something other than tensors, or a tensor has no counterpart in our
            model.
    """
    found: dict[str, Tensor] = {}
    for file in _files(place, hub):
        found |= read_tensors(file)
    return _renamed(found, place), any(name.startswith(ROBERTA_HEAD) for name in found)


def read_tensors(file: str) -> dict[str, Tensor]:
    """Tensors by name, of a file of safetensors or of torch. No code in it is run.

    Raises:
        MilcoError: it holds something other than tensors.
    """
    try:
        if file.endswith(".safetensors"):
            return load_file(file)
        mapped = is_zipfile(file)  # torch has written other files before 1.6
        found = {**torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)}
        if others := [name for name, value in found.items() if not isinstance(value, Tensor)]:
            raise TypeError(f"{others[0]} is no tensor")
        return found
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError, TypeError, ValueError) as error:
        raise MilcoError(f"{file}: no file of tensors alone ({_first_line(error)}); download it again") from None


def _files(place: str, hub: dict) -> list[str]:
    for name in WEIGHTS:
        found = cached_file(place, name, _raise_exceptions_for_missing_entries=False, **hub)
        if found is not None and name.endswith(".json"):
            try:
                return get_checkpoint_shard_files(place, found, **hub)[0]
            except (ValueError, KeyError) as error:
                raise MilcoError(f"{found}: broken ({_first_line(error)}); download it again") from None
        if found is not None:
            return [found]
    raise MilcoError(f"{place}: no weights in it, neither {WEIGHTS[0]} nor {WEIGHTS[2]}")


def _renamed(theirs: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    for name, tensor in theirs.items():
        if name.startswith(UNUSED):
            continue
        tied = TIED.get(name)
        if tied and not torch.equal(theirs.get(tied, tensor), tensor):
            raise MilcoError(f"{place}: {name} and {tied} are one vector in a model, and differ here")
        target = our_name(tied or name)
        if target is None:
            raise MilcoError(f"{place}: {name} has no place in a MILCO model; it is not in the authors' layout")
        if places.setdefault(target, name) != name and not torch.equal(theirs[places[target]], tensor):
            raise MilcoError(f"{place}: {name} and {places[target]} have one place in a model, and differ here")
        # Their code drops source weights below 0: with a negative scale none is left, as here with 0.
        single = target == "echo_scale" and tensor.numel() == 1
        ours[target] = tensor.reshape(1).clamp(min=0) if single else tensor
    return ours


def our_name(theirs: str) -> str | None:
    """Our name of one of their tensors; None if it has no counterpart."""
    for begin, ours in PLACES.items():
        if theirs == begin or (begin.endswith(".") and theirs.startswith(begin)):
            return ours + theirs.removeprefix(begin)
    return None


def their_name(ours: str, roberta: bool = False) -> str:
    """Their name of one of our tensors, for a head of the BERT or of the RoBERTa family."""
    for theirs, begin in PLACES.items():
        if theirs.startswith("mlm_head.") and (theirs in ROBERTA_HEAD) != roberta:
            continue
        if ours == begin or (begin.endswith(".") and ours.startswith(begin)):
            return theirs + ours.removeprefix(begin)
    return ours


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

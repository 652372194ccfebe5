"""Tiny random checkpoints in the shape of those that the paper's experiment starts from, as files of a repository."""

import io
import string
import tempfile
from pathlib import Path

import torch
from miniature import draw_weights
from phrases import ENGLISH_GREETINGS, GREETINGS, TEXTS, sentences
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

Files = dict[str, bytes]

ENCODER_POSITIONS = 514  # XLM-R counts from its pad token: 512 tokens
TEACHER_POSITIONS = 512
WHOLE_WORDS = ("en", "de", "es", "ru", "ar", "hi", "sw")  # the encoder reads other languages letter by letter
EVERYTHING = [*TEXTS.values(), *map("\n".join, GREETINGS.values()), *ENGLISH_GREETINGS]


def words(language: str) -> list[str]:
    """Words of a language with their punctuation, as white space parts them."""
    return sorted({word for sentence in sentences(language) for word in sentence.split()})


def source_tokenizer() -> XLMRobertaTokenizer:
    """Whole words of some languages, and every letter that occurs, so that no text is unknown."""
    letters = sorted({*"".join(EVERYTHING), *string.printable} - set(string.whitespace))
    known = {f"▁{word}": -6.0 for language in WHOLE_WORDS for word in words(language)}
    known |= {"▁": -9.0, **dict.fromkeys(letters, -10.0)}
    pieces = [(special, 0.0) for special in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces += sorted(known.items(), key=lambda piece: (-piece[1], piece[0]))
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=512)


def english_tokenizer() -> BertTokenizer:
    """Whole words of the English sentences, and the letters of Latin and Cyrillic text, as in BERT."""
    cleaned = " ".join(words("en")).lower().translate(str.maketrans(string.punctuation, " " * len(string.punctuation)))
    cyrillic = [chr(letter) for letter in range(ord("а"), ord("я") + 1)]
    letters = [*string.ascii_lowercase, *string.digits, *cyrillic]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters]
    tokens += [
        *(f"##{letter}" for letter in letters),
        *(word for word in sorted(set(cleaned.split())) if len(word) > 1),
    ]
    return BertTokenizer(vocab={token: place for place, token in enumerate(tokens)}, model_max_length=512)


def encoder(architecture: type[PreTrainedModel], seed: int, *, pickled: bool = False) -> Files:
    """A checkpoint in the shape of XLM-R: 2 layers, width 24, 514 positions, dropout .1.

    Args:
        pickled: the weights are in pytorch_model.bin, as in older repositories.
    """
    tokenizer = source_tokenizer()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=ENCODER_POSITIONS,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = architecture(config)
    draw_weights(model, seed)
    files = saved(model, tokenizer)
    if pickled:
        del files["model.safetensors"]
        stream = io.BytesIO()
        torch.save(model.state_dict(), stream)
        files["pytorch_model.bin"] = stream.getvalue()
    return files


def unsupervised_encoder() -> Files:
    """BAAI/bge-m3-unsupervised."""
    return encoder(XLMRobertaModel, seed=1, pickled=True)


def language_model() -> Files:
    """FacebookAI/xlm-roberta-large: a masked language model, with files of other libraries beside it."""
    return encoder(XLMRobertaForMaskedLM, seed=2) | {"flax_model.msgpack": b"-", "onnx/model.onnx": b"-"}


def sentence_encoder() -> Files:
    """intfloat/multilingual-e5-large, with what sentence-transformers wants to know of it."""
    modules = b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]'
    return encoder(XLMRobertaModel, seed=3) | {"modules.json": modules, "1_Pooling/config.json": b"{}"}


def teacher() -> Files:
    """naver/splade-v3: BERT with its masked language head, 1 layer, width 16, 512 positions."""
    tokenizer = english_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=TEACHER_POSITIONS,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    model = BertForMaskedLM(config)
    draw_weights(model, seed=4)
    with torch.no_grad():  # below zero, so that a text has some of the terms and not nearly all of them
        model.cls.predictions.bias.sub_(5.0)
    return saved(model, tokenizer)


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}

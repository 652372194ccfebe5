"""Tiny checkpoints and a tiny model, built offline with fixed seeds; every test of this folder works on them."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may reach for the network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Code of models: no process sees what another one has cached meanwhile.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="milco-modules-")

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels run on the processor; read when triton is first imported

import copy
import shutil
import string
from pathlib import Path

import pytest
import torch
from miniature import build_corpora, draw_weights, settings, write_data
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from milco.config import parse
from milco.data import triples
from milco.modeling.model import MilcoModel
from milco.training import mine

torch.set_num_threads(1)

MAX_LENGTH = 64  # positions of both checkpoints

ENGLISH_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ENGLISH_WORDS = [
    "the",
    "a",
    "is",
    "in",
    "on",
    "of",
    "and",
    "to",
    "no",
    "cat",
    "dog",
    "house",
    "river",
    "city",
    "water",
    "fire",
    "book",
    "door",
    "light",
    "key",
    "open",
    "close",
    "red",
    "green",
    "blue",
    "small",
    "big",
    "old",
    "new",
    "sun",
    "moon",
    "rain",
    "snow",
    "bread",
    "milk",
    "fish",
    "bird",
    "tree",
    "road",
    "car",
    "train",
    "ship",
    "king",
    "queen",
    "child",
    "day",
    "night",
    "year",
    "one",
    "two",
    "password",
    "reset",
]
ENGLISH_ENDINGS = ["##s", "##ing", "##ed"]

SOURCE_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]  # ids 0 to 3, as in XLM-R; <mask> comes last
SOURCE_WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "house",
    "river",
    "water",
    "book",
    "red",
    "big",
    "night",
    "password",
    "Katze",
    "Hund",
    "Haus",
    "Fluss",
    "Wasser",
    "Buch",
    "rot",
    "groß",
    "Nacht",
    "Passwort",
    "die",
    "der",
    "ist",
    "und",
    "chat",
    "chien",
    "maison",
    "eau",
    "livre",
    "nuit",
    "дом",
    "кот",
    "ночь",
    "猫",
    "水",
    "夜",
]
SOURCE_LETTERS = [*string.ascii_lowercase, "ß", "ü", "é", "▁"]


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer in BERT's manner."""
    vocabulary = {token: place for place, token in enumerate(ENGLISH_SPECIALS + ENGLISH_WORDS + ENGLISH_ENDINGS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer in XLM-R's manner: whole words where it knows them, else single letters."""
    pieces = [(token, 0.0) for token in SOURCE_SPECIALS]
    pieces += [(f"▁{word}", -3.0) for word in SOURCE_WORDS]
    pieces += [(letter, -8.0) for letter in SOURCE_LETTERS]
    pieces += [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def english_config(terms: int, **more) -> BertConfig:
    """Shape of the English models: 1 layer, width 16."""
    return BertConfig(
        vocab_size=terms,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_LENGTH,
        **more,
    )


@pytest.fixture(scope="session")
def english_words() -> list[str]:
    """Words that the teacher's tokenizer keeps whole."""
    return ENGLISH_WORDS


@pytest.fixture(scope="session")
def teacher_checkpoint(tmp_path_factory) -> Path:
    """Folder of an English masked language model with its WordPiece tokenizer: 1 layer, width 16."""
    folder = tmp_path_factory.mktemp("checkpoints") / "teacher"
    tokenizer = wordpiece_tokenizer()
    model = BertForMaskedLM(english_config(len(tokenizer)))
    draw_weights(model, seed=1)
    with torch.no_grad():  # below zero, so that a text has some of the terms and not nearly all of them
        model.cls.predictions.bias.sub_(5.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def cross_encoder_checkpoint(tmp_path_factory) -> Path:
    """Folder of a cross-encoder with its WordPiece tokenizer: 1 layer, width 16, one label."""
    folder = tmp_path_factory.mktemp("checkpoints") / "cross-encoder"
    tokenizer = wordpiece_tokenizer()
    model = BertForSequenceClassification(english_config(len(tokenizer), num_labels=1))
    draw_weights(model, seed=4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_checkpoint(tmp_path_factory) -> Path:
    """Folder of a multilingual encoder with its tokenizer: 2 layers, width 24, and a pooler that nothing reads."""
    folder = tmp_path_factory.mktemp("checkpoints") / "encoder"
    tokenizer = sentencepiece_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertModel(config)
    draw_weights(model, seed=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def built_model(encoder_checkpoint, teacher_checkpoint) -> MilcoModel:
    """The model that `model` is a copy of."""
    torch.manual_seed(3)
    built = MilcoModel.from_checkpoints(
        encoder_checkpoint, teacher_checkpoint, echo=True, query_max_length=8, passage_max_length=16
    )
    with torch.no_grad():  # as after training: connector and LexEcho tell texts apart, which fresh ones hardly do
        built.connector.weight.mul_(20)
        built.echo.weight.mul_(20)
    return built.eval()


@pytest.fixture
def model(built_model) -> MilcoModel:
    """A model with LexEcho in evaluation mode, fresh for each test, which may change it at will."""
    return copy.deepcopy(built_model)


@pytest.fixture(scope="session")
def model_folder(built_model, tmp_path_factory) -> Path:
    """Folder of the saved model; tests only read it."""
    folder = tmp_path_factory.mktemp("models") / "model"
    built_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def values(tmp_path_factory, teacher_checkpoint, encoder_checkpoint) -> dict:
    """Settings of the miniature experiment."""
    data = tmp_path_factory.mktemp("data")
    write_data(data, teacher_checkpoint, encoder_checkpoint)
    return settings(data, teacher_checkpoint, encoder_checkpoint)


@pytest.fixture(scope="session")
def prepared(values, encoder_checkpoint, teacher_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """What Stage 2 of the miniature reads: corpora and triples."""
    folder, config = tmp_path_factory.mktemp("prepared"), parse(values)
    sources = {name: Path(config.sources[name].uri.removeprefix("file:")) for name in config.used_datasets()}
    build_corpora(config, sources, folder / "corpora")
    mine.mine(config, folder / "corpora", teacher_checkpoint, sources, folder / "triples.parquet")
    triples.pack(config, folder / "triples.parquet", encoder_checkpoint, 1, folder / "packed")
    return folder / "corpora", folder / "packed"


def pytest_unconfigure():
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no process ends up alone with one of them."""
    longest = ["test_workflow.py", "test_recovery.py", "test_docs.py"]

    def place(item) -> int:
        name = item.path.name
        return longest.index(name) if name in longest else len(longest) + (not item.get_closest_marker("slow"))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let a failure begin with the command that repeats it alone."""
    report = yield
    if report.failed:
        report.longrepr = f"repeat:  python -m pytest '{item.nodeid}'\n\n{report.longreprtext}"
    return report

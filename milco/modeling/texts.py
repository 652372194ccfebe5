"""Tokenise texts. Queries and documents, training and encoding, encoder and teacher all use these functions."""

import re
from typing import TYPE_CHECKING
from unicodedata import normalize

import regex

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Controls that are no white space, soft hyphen, zero-width space, word joiner, invisible operators, byte order mark,
# embedded and isolated directions, and marks that choose how a sign is drawn; and the stroke that makes an Arabic word
# longer. Joiners and direction marks stay: words of some languages are spelt with them.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u0640\u200b\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0100-\U000e01ef]"
)
WIDTHS = re.compile("[\uff01-\uffee]+")  # letters in full or half width
# Persian and Urdu are often typed with the yeh and kaf of Arabic keyboards. Nearly every Persian or Urdu sentence has
# one of four letters that Arabic lacks; Uyghur and Sindhi have these as well, but are spelt with the Arabic yeh.
PERSIAN, NOT_PERSIAN = re.compile("[پچژگ]"), re.compile("[ەۇۆۈېۋڪٻڄ]")
KEYBOARDS = str.maketrans("يك", "یک")
WORD = regex.compile(r"[\p{L}\p{M}\p{N}\p{S}#%&@]")
LETTERS = 30  # of a text that are read for each token to keep; more, if they were too few


def token_ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int) -> list[list[int]]:
    """Ids of each text, cut at `max_length` tokens, special tokens included."""
    return ids_and_cut(tokenizer, texts, max_length)[0]


def ids_and_cut(
    tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int
) -> tuple[list[list[int]], list[int]]:
    """The same, and the places of the texts that were cut.

    A tokenizer processes the whole text before it truncates. Here it gets only the beginning, up to a space, so a book
    takes as long as its first page. The ids are the same.
    """
    if not texts:
        return [], []
    letters = LETTERS * max_length
    read = [_beginning(text, letters) for text in texts]
    ids, cut = _ids(tokenizer, read, max_length)
    while short := [
        place for place, text in enumerate(texts) if len(ids[place]) < max_length and len(read[place]) < len(text)
    ]:  # of much white space, or of very long words
        letters *= 8
        for place in short:
            read[place] = _beginning(texts[place], letters)
        found = _ids(tokenizer, [read[place] for place in short], max_length)
        for place, row, more in zip(short, *found, strict=True):
            ids[place], cut[place] = row, more
    return ids, [place for place, text in enumerate(texts) if cut[place] or len(read[place]) < len(text)]


def composed(text: str) -> str:
    """Normalise a text: composed letters (NFC), standard width, Persian letters in Persian text, no invisible
    characters."""
    if text.isascii() and text.isprintable():
        return text
    text = normalize("NFC", WIDTHS.sub(lambda found: normalize("NFKC", found[0]), INVISIBLE.sub("", text)))
    return text.translate(KEYBOARDS) if PERSIAN.search(text) and not NOT_PERSIAN.search(text) else text


def as_text(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[str]:
    """Make special tokens in texts ordinary text: `<mask>` (for instance on a page about SVG) becomes `< mask>`. A
    blank text becomes empty, because some tokenizers return a token for white space.

    A blank separates the first letter from the others. `split_special_tokens` would not do: the tokenizer still finds
    the string among the pieces of its vocabulary, under the same id.
    """
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = {name for name in (*tokenizer.all_special_tokens, *added) if len(name) > 1}
    special = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")

    def parted(text: str) -> str:
        if not text.isascii() and special.search(plain := normalize("NFKC", text)):  # as tokenizers read ＜s＞
            text = plain
        return special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) if text.strip() else ""

    return [parted(text) for text in texts]


def wordless_pieces(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Pieces that carry no word: white space, such as the bare word boundary ▁ of nearly every Chinese or Japanese
    text, and punctuation. # % & and @ count as words, as letters, digits and symbols do."""
    texts = tokenizer.batch_decode([[piece] for piece in range(len(tokenizer))])
    return [piece for piece, text in enumerate(texts) if not WORD.search(text.removeprefix("##"))]  # of WordPiece


def special_and_wordless(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids of special tokens and of pieces without a word."""
    return sorted({*tokenizer.all_special_ids, *wordless_pieces(tokenizer)})


def _ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
    """Ids, and whether each text was cut; if a tokenizer does not say, a text that fills all tokens counts as cut."""
    texts = as_text(tokenizer, [composed(text) for text in texts])
    found = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
    ids, read = found["input_ids"], found.encodings  # None: a tokenizer in Python does not say what it cut
    return ids, [len(row) == max_length and (read is None or bool(read[n].overflowing)) for n, row in enumerate(ids)]


def _beginning(text: str, letters: int) -> str:
    """About the first `letters` letters of a text, up to a blank if there is one near."""
    if len(text) <= letters:
        return text
    blank = text.rfind(" ", letters // 2, letters)
    return text[: blank if blank > 0 else letters]

"""From texts to token ids: the one way of queries and documents, in training and encoding, for encoder and teacher."""

from transformers import PreTrainedTokenizerBase

LETTERS = 30  # that are read of a text for each token that is kept of it; more, if they were too few


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    """Ids of each text, cut at `max_length` tokens, special tokens included."""
    return ids_and_cut(tokenizer, texts, max_length)[0]


def ids_and_cut(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int
) -> tuple[list[list[int]], list[int]]:
    """The same, and the places of those texts of which something was cut off.

    A tokenizer reads all of a text before it cuts it. Here a text is cut before, at a blank, so that a book costs as
    much as its first page; the ids are the same.
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
        for place, *found in zip(short, *_ids(tokenizer, [read[place] for place in short], max_length), strict=True):
            ids[place], cut[place] = found
    return ids, [place for place, text in enumerate(texts) if cut[place] or len(read[place]) < len(text)]


def _ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int
) -> tuple[list[list[int]], list[bool]]:
    """Ids, and whether something is left of each text; of one that fills all tokens, where a tokenizer does not say."""
    found = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
    ids, read = found["input_ids"], found.encodings  # none: a tokenizer in Python does not say what it left
    return ids, [len(row) == max_length and (read is None or bool(read[n].overflowing)) for n, row in enumerate(ids)]


def _beginning(text: str, letters: int) -> str:
    """About so many letters of a text, up to a blank if there is one near."""
    if len(text) <= letters:
        return text
    blank = text.rfind(" ", letters // 2, letters)
    return text[: blank if blank > 0 else letters]

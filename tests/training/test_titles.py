"""Documents alone: which titles become queries, what answers them, and what is counted."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ENGLISH_WORDS, SOURCE_WORDS
from test_mine import HARD, RANDOM, alone, assert_best, model_settings, sentences

from milco.data.held_out import HeldOut
from milco.modeling.model import MilcoModel
from milco.training.titles import COPIED, EMPTY, SHARED, UNTITLED, without

PLAIN = 12  # documents with nothing to count
TITLES, TEXTS = sentences(SOURCE_WORDS, 22, 3, 21), sentences(ENGLISH_WORDS, 22, 6, 22)


@pytest.fixture
def call(tmp_path, model_folder, cross_encoder_checkpoint):
    """Rule `mine` on (title, text) of documents: the process, and the file that it writes."""

    def call(documents: list, held_out=(), **changes) -> tuple[subprocess.CompletedProcess, Path]:
        folder, output = tmp_path / "new", tmp_path / "triples.parquet"
        folder.mkdir()
        rows = [{"_id": f"d{n}", "title": title, "text": text} for n, (title, text) in enumerate(documents)]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / "corpora").mkdir()
        HeldOut(held_out).write(tmp_path / "corpora")
        values = model_settings(positives="titles", **changes).model_dump(mode="json")
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        words = ["--config", tmp_path / "config.yaml", "--corpora", tmp_path / "corpora", "--source", f"new={folder}"]
        words += ["--miner", model_folder, "--scorer", cross_encoder_checkpoint, "--output", output]
        command = [sys.executable, "-m", "milco.stages", "mine", *map(str, words)]
        bars = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}  # they count the texts
        return subprocess.run(command, capture_output=True, text=True, env=bars), output

    return call


def test_titles_ask_for_texts_without_them(call, model_folder, cross_encoder_checkpoint):
    documents = list(zip(TITLES, TEXTS, strict=True))
    for place, heading in ((1, "{}\n"), (2, "{}. "), (3, "{}\n\n{} ")):
        documents[place] = TITLES[place], heading.format(TITLES[place], TITLES[place].title()) + TEXTS[place]
    documents[PLAIN] = None, TEXTS[PLAIN]
    documents[13] = " ", TEXTS[13]
    documents[15] = f"  {TITLES[14].upper()} ", TEXTS[15]  # the title of 14
    documents[16:18] = (TITLES[16], ""), (TITLES[17], TITLES[17])
    other = " ".join(reversed(TEXTS[19].split()))
    documents += [documents[0], (TITLES[19], other)]  # nor does the title of a text that is held out ask for another
    documents[19] = TITLES[19], f"{TITLES[19]}\n{TEXTS[19]}"
    done, output = call(documents, [TITLES[18].upper(), TEXTS[19]])
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(output)
    asked = [*range(PLAIN), 20, 21]
    assert found["query"].tolist() == [TITLES[n] for n in asked]
    assert [list(texts) for texts in found.pos] == [[TEXTS[n]] for n in asked]
    counts = {"kept": len(asked), UNTITLED: 2, EMPTY: 2, SHARED: 2, COPIED: 1, "held out": 3}
    assert sum(counts.values()) == len(documents)
    assert json.loads(pq.read_metadata(output).metadata[b"statistics"]) == {"datasets": {"new": counts}, "warnings": []}
    pool = [text for n, text in enumerate(TEXTS) if n not in (16, 17)] + [other]
    encoded = re.findall(r"documents: 100%\S* (\d+)/", done.stderr)
    assert encoded == [str(len(pool))]
    model = MilcoModel.from_pretrained(model_folder, query_max_length=48, passage_max_length=96)
    for triple in found.itertuples():
        wrong = [text for text in pool if text != triple.pos[0]]
        assert len({*triple.neg}) == HARD + RANDOM and {*triple.neg} <= {*wrong}
        assert_best(model, triple.query, list(triple.neg[:HARD]), wrong)
    first = found.iloc[0]
    scores = [alone(cross_encoder_checkpoint, TITLES[0], text) for text in (*first.pos, *first.neg)]
    assert [*first.pos_scores, *first.neg_scores] == pytest.approx(scores, abs=1e-5)


def test_documents_of_which_no_title_is_left_are_refused_with_what_took_them(call, tmp_path):
    done, output = call([("", TEXTS[0]), *((TITLES[0], text) for text in TEXTS[1:4]), (TITLES[1], "")], [])
    assert re.search(
        rf"sources\.new\.uri: {tmp_path}/new/corpus\.jsonl: no title is left to ask \({UNTITLED} 1, {EMPTY} 1, "
        rf"{SHARED} 3\); distill\.positives: titles needs ",
        done.stderr,
    )
    assert done.returncode == 1 and not output.exists()


def test_too_few_documents_are_named(call):
    done, output = call(list(zip(TITLES[:4], TEXTS[:4], strict=True)), train_group_size=5)
    assert "distill.train_group_size: 5, but new has only 4 documents" in done.stderr
    assert done.returncode == 1 and not output.exists()


def test_most_documents_without_a_title_cause_a_warning(call):
    done, output = call([("", text) for text in TEXTS[:12]] + list(zip(TITLES[12:], TEXTS[12:], strict=True)))
    said = f"new: {UNTITLED}: 12 of 22 documents"
    assert json.loads(pq.read_metadata(output).metadata[b"statistics"])["warnings"] == [said]
    assert f"warning: {said}\n" in done.stdout


@pytest.mark.parametrize(
    ("title", "text", "left"),
    [
        ("Cat", "Cats purr", "Cats purr"),
        ("Cat", "A cat purrs", "A cat purrs"),
        ("Cat", "CAT\nCat cat purrs", "purrs"),
        ("C++", "C++ is a language", "is a language"),
        ("北京", "北京是首都", "是首都"),
        ("Cat", "Cat (animal) purrs", "(animal) purrs"),
        ("北京", "北京：北京是首都", "是首都"),
        ("Cat", "Cat", ""),
        ("", "Cat", "Cat"),
    ],
)
def test_a_title_is_taken_from_the_beginning_of_its_text_as_whole_words(title, text, left):
    assert without(title, text) == left

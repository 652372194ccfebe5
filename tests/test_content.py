"""What counts as a change of files."""

import json
import os
import shutil
from pathlib import Path

import pytest

from milco import content
from milco.content import content_of, sample_of


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A collection of the user's own, in a folder with a space."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my data" / "collection"
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text('{"_id": "d1", "text": "a lamp"}')
    (path / "qrels" / "test.tsv").write_text("q1\td1\t1")
    return path


@pytest.mark.parametrize("digest", [content_of, sample_of])
def test_an_edit_in_place_is_a_change_and_a_touch_a_copy_or_a_stray_file_is_none(folder, digest):
    before = digest(folder)
    os.utime(folder)
    os.utime(folder / "corpus.jsonl")
    for stray in (
        ".nfs000",
        "README.md",
        ".git/HEAD",
        "qrels/.DS_Store",
        "corpus.jsonl~",
        "Thumbs.db",
        "environment.json",
    ):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("stray")
    assert digest(folder) == before
    assert digest(Path(shutil.copytree(folder, folder.with_name("copy")))) == before
    status = (folder / "qrels" / "test.tsv").stat()
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t0")
    os.utime(folder / "qrels" / "test.tsv", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digest(folder) != before


def test_a_file_counts_by_what_it_holds_and_its_name_only_in_a_folder(folder):
    one, other = folder / "corpus.jsonl", folder / "other.jsonl"
    shutil.copy(one, other)
    assert content_of(one) == content_of(other)
    before = content_of(folder)
    other.rename(folder / "another.jsonl")
    assert content_of(folder) != before
    assert content_of(folder / "nothing") is None


def test_a_large_file_of_the_user_is_read_once_and_again_when_it_is_written(folder, monkeypatch):
    monkeypatch.setattr(content, "LARGE", 4)
    path, before = folder / "corpus.jsonl", content_of(folder)
    content._known.cache_clear()
    known = json.loads(content.KNOWN.read_text())
    assert len(known) == 2
    known[str(path)][2] = "as it is written down"
    content.KNOWN.write_text(json.dumps(known))
    assert content_of(path) == "as it is written down"
    path.write_text('{"_id": "d1", "text": "a lump"}')
    os.utime(path, ns=(0, 0))
    assert content_of(path) not in (before, "as it is written down")


def test_of_a_large_file_of_our_own_size_ends_and_places_between_count(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "PIECE", 10)
    path = tmp_path / "tokens.arrow"
    path.write_bytes(bytes(10_000))
    before = sample_of(path)
    for place in (0, 4998, 9999):  # 16 pieces of 10 bytes, 666 bytes apart
        with path.open("r+b") as file:
            file.seek(place // 9990 * 9999 or (place * 15 // 9990) * 9990 // 15)
            file.write(b"x")
        assert sample_of(path) != before
        path.write_bytes(bytes(10_000))
    path.write_bytes(bytes(10_001))
    assert sample_of(path) != before


@pytest.mark.parametrize("digest", [content_of, sample_of])
def test_folders_that_a_folder_links_to_are_a_part_of_it(folder, digest):
    elsewhere = folder.parent / "elsewhere"
    (folder / "qrels").rename(elsewhere)
    whole = digest(folder)
    (folder / "qrels").symlink_to(elsewhere)
    linked = digest(folder)
    (elsewhere / "dev.tsv").write_text("q2\td1\t1")
    assert len({whole, linked, digest(folder)}) == 3
    before = digest(folder)
    (elsewhere / "back").symlink_to(folder)  # in a circle
    assert digest(folder) == before

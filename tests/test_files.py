"""Files and folders that appear whole: cut off anywhere, and wanted by two processes at once."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from milco import files
from milco.files import finished_folder

# Writes a folder: part by part, slowly, and says which it had to make.
PROGRAM = """
import sys, time
from pathlib import Path
from milco.files import finished_file, finished_folder

output, made_by, seconds = Path(sys.argv[1]), sys.argv[2] or None, float(sys.argv[3])
with finished_folder(output, made_by) as folder:
    for part in "abcdefgh":
        if not (folder / part).exists():
            with finished_file(folder / part) as draft:
                draft.write_text(f"{made_by} {part}")
                time.sleep(seconds)
            print(part, end="", flush=True)
"""


def start(output: Path, made_by: str, seconds: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(output), made_by, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_after_parts(output: Path, made_by: str, parts: int) -> str:
    """What a process had made when it was killed in its next part."""
    process = start(output, made_by, 0.2)
    assert process.stdout
    made = process.stdout.read(parts)
    process.kill()
    process.wait()
    assert (output.with_name(f".{output.name}.part")).is_dir() and not output.exists()
    return made


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_run_goes_on_with_the_parts_of_a_killed_one(tmp_path):
    made = kill_after_parts(tmp_path / "out", "x", 3)
    rest, _ = start(tmp_path / "out", "x").communicate()
    assert made == "abc" and rest in ("defgh", "efgh")  # the fourth may have been finished
    assert contents(tmp_path / "out") == {part: f"x {part}" for part in "abcdefgh"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("made_by", ["y", ""])
def test_parts_of_other_settings_or_of_what_takes_nothing_over_are_made_again(tmp_path, made_by):
    kill_after_parts(tmp_path / "out", "x", 3)
    made, _ = start(tmp_path / "out", made_by).communicate()
    assert made == "abcdefgh"
    assert contents(tmp_path / "out")["a"] == f"{made_by or None} a"


def test_a_second_process_waits_and_takes_what_the_first_finished(tmp_path):
    first = start(tmp_path / "out", "x", 0.3)
    assert first.stdout and first.stdout.read(1) == "a"
    second = start(tmp_path / "out", "x")
    assert first.communicate()[0] == "bcdefgh"
    made, said = second.communicate()
    assert (made, second.returncode) == ("", 0)
    assert said.strip() == f"{tmp_path}/out: another process still writes here; waiting for it to end"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_process_goes_on_where_the_first_was_killed(tmp_path):
    first = start(tmp_path / "out", "x", 1.0)
    assert first.stdout and first.stdout.read(2) == "ab"
    second = start(tmp_path / "out", "x")
    assert second.stderr and "waiting for it to end" in second.stderr.readline()
    first.kill()
    made = second.communicate()[0]  # while it started, the first went on
    assert made and "cdefgh".endswith(made)
    assert contents(tmp_path / "out") == {part: f"x {part}" for part in "abcdefgh"}


def test_two_processes_that_take_nothing_over_make_it_one_after_the_other(tmp_path):
    both = [start(tmp_path / "out", "", 0.05) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == 2 * ["abcdefgh"]
    assert [process.returncode for process in both] == [0, 0]
    assert contents(tmp_path / "out") == {part: f"None {part}" for part in "abcdefgh"}


def test_two_processes_that_write_one_file_leave_the_whole_one_of_the_last(tmp_path):
    program = """
import sys, time
from pathlib import Path
from milco.files import finished_file
for _ in range(40):
    with finished_file(Path(sys.argv[1])) as draft, draft.open("w") as file:
        for _ in range(10):
            file.write(sys.argv[2])
            file.flush()
            time.sleep(0.0005)
"""
    both = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "file", name]) for name in "xy"]
    seen = set()
    while any(process.poll() is None for process in both):
        if (tmp_path / "file").exists():
            seen.add((tmp_path / "file").read_text())
        time.sleep(0.001)
    assert [process.returncode for process in both] == [0, 0]
    assert seen <= {10 * "x", 10 * "y"} and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_system_without_locks_is_told_and_written(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with finished_folder(tmp_path / "out", made_by="x") as folder:
        (folder / "a").write_text("1")
    assert contents(tmp_path / "out") == {"a": "1"}
    assert "no lock" in (said := capsys.readouterr().err) and "take care that nothing else writes there" in said


def test_the_folder_before_stays_until_the_new_one_is_there(tmp_path, monkeypatch):
    with finished_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    there, remove = [], files.shutil.rmtree

    def watch(path, **options):
        there.append((tmp_path / "out" / "a").read_text())
        remove(path, **options)

    with finished_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("2")
        monkeypatch.setattr(files.shutil, "rmtree", watch)
    assert there == ["1", "2"]  # what an earlier run may have left, then the folder before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_parts_to_those_that_take_them_over(tmp_path):
    for made_by, left in (("x", [".out.lock", ".out.part"]), (None, [])):
        with pytest.raises(ZeroDivisionError), finished_folder(tmp_path / "out", made_by):
            1 / 0  # noqa: B018
        assert sorted(path.name for path in tmp_path.iterdir()) == left

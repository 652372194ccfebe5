"""What a program may be given to write to, and what it may not harm there."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from milco.errors import MilcoError
from milco.files import finished_file, finished_folder
from milco.outputs import check_output

WRITE = """
import sys
from pathlib import Path
from milco.files import finished_file
with finished_file(Path(sys.argv[1])) as draft:
    draft.write_text("new\\n")
"""


def written(path: Path, text: str = "new\n") -> None:
    with finished_file(path) as draft:
        draft.write_text(text)


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "run").write_text("old\n")
    for link, target in (("run", "disk/run"), ("fresh", "disk/fresh")):
        (tmp_path / link).symlink_to(target)
        written(tmp_path / link)
        assert (tmp_path / link).is_symlink() and (tmp_path / target).read_text() == "new\n"
    (tmp_path / "folder").symlink_to("disk")
    with finished_folder(tmp_path / "folder") as draft:
        (draft / "file").write_text("new\n")
    assert (tmp_path / "folder").is_symlink() and [path.name for path in (tmp_path / "disk").iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "folder", "fresh", "run"]


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    written(tmp_path / "pipe")
    reader.join()
    assert read == ["new\n"] and (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_a_device_is_written_to(tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o666 | 0o020000, os.makedev(1, 3))  # a null device of our own
        (tmp_path / "null").write_text("")
    except OSError:
        pytest.skip("only root makes devices, and not everywhere")
    written(tmp_path / "null")
    assert (tmp_path / "null").is_char_device() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_stands_in_a_log_before_and_after_stays(tmp_path, name):
    log = tmp_path / "log"
    log.write_text("earlier\n")
    command = 'echo before; "$0" -c "$1" "$2"; echo after'
    with log.open("a") as file:
        subprocess.run(["bash", "-c", command, sys.executable, WRITE, name], stdout=file, cwd=tmp_path, check=True)
    assert log.read_text() == "earlier\nbefore\nnew\nafter\n" and len(list(tmp_path.iterdir())) == 1


def test_any_other_open_descriptor_is_written_to(tmp_path):
    program = ["bash", "-c", '"$0" -c "$1" >(sed s/new/through/)', sys.executable, WRITE]
    assert subprocess.run(program, stdout=subprocess.PIPE, text=True, cwd=tmp_path).stdout == "through\n"
    (tmp_path / "log").write_text("earlier\n")
    program = ["bash", "-c", '"$0" -c "$1" /dev/fd/9 9>>log', sys.executable, WRITE]
    subprocess.run(program, check=True, cwd=tmp_path)
    assert (tmp_path / "log").read_text() == "earlier\nnew\n"


def test_only_what_is_ours_or_empty_is_replaced(tmp_path):
    for name in ("mine", "yours", "empty"):
        (tmp_path / f"{name}.txt").write_text("" if name == "empty" else name)
        (tmp_path / name).mkdir()
    (tmp_path / "yours" / "letter").touch()
    (tmp_path / "mine" / "part").touch()

    def ours(path: Path) -> bool:
        return path.stem == "mine"

    for name in ("mine.txt", "empty.txt", "new.txt", "new/new.txt"):
        check_output(tmp_path / name, "a run", ours)
    for name in ("mine", "empty", "new", "new/new"):
        check_output(tmp_path / name, "a run", ours, folder=True)
    for name, folder in (("yours.txt", False), ("yours", True), ("mine", False), ("mine.txt", True), ("empty", False)):
        with pytest.raises(MilcoError, match=f"{name}: holds something other than a run"):
            check_output(tmp_path / name, "a run", ours, folder)


@pytest.mark.parametrize("path", ["/proc/vectors.jsonl", "/sys/kernel/mine/vectors.jsonl"])
def test_the_kernel_s_own_folders_take_no_files(path):
    with pytest.raises(MilcoError, match=rf"{path}: cannot be written in /(proc|sys/kernel); give another name"):
        check_output(Path(path), "vectors")


def test_what_cannot_be_written_is_said_before(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MilcoError, match=r"file/output: cannot be written in .*/file;"):
        check_output(tmp_path / "file" / "output", "a run")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MilcoError, match="pipe: a run cannot be written"):
        check_output(tmp_path / "pipe", "a run", folder=True)
    if os.getuid():
        tmp_path.chmod(0o500)
    else:
        tmp_path = Path("/proc/self")  # where root cannot write either
    with pytest.raises(MilcoError, match="new: cannot be written in"):
        check_output(tmp_path / "new", "a run")


@pytest.mark.parametrize("left", [".output.part", ".output.old"])
def test_what_a_user_keeps_under_the_name_of_a_draft_is_refused(tmp_path, left):
    (tmp_path / left).mkdir()
    (tmp_path / left / "thesis.tex").touch()
    with pytest.raises(
        MilcoError, match=r"\.output\.part or .*\.output\.old is in the way, and milco did not write it"
    ):
        check_output(tmp_path / "output", "vectors", folder=True)


@pytest.mark.parametrize("sign", [".output.lock", ".output.part/windows.txt"])
def test_what_a_killed_run_left_is_not(tmp_path, sign):
    for left in (".output.part", ".output.old"):
        (tmp_path / left).mkdir()
    (tmp_path / sign).touch()
    check_output(tmp_path / "output", "vectors", folder=True)


def test_an_old_folder_of_its_kind_is_not(tmp_path):
    (tmp_path / ".output.old").mkdir()
    check_output(tmp_path / "output", "vectors", lambda there: True, folder=True)


def test_a_file_under_the_name_of_a_draft_is_refused(tmp_path):
    (tmp_path / ".run.part").write_text("mine")
    with pytest.raises(MilcoError, match=r"\.run\.part or"):
        check_output(tmp_path / "run", "a run")

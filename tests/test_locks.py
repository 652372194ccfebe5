"""What is locked, and goes on where a file system has no locks."""

import errno
import fcntl
import json
from pathlib import Path

import pytest

from milco.data import hub
from milco.errors import MilcoError
from milco.files import lock


def test_a_lock_is_kept_by_one_and_missed_where_there_is_none(tmp_path, monkeypatch, capsys):
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        assert lock(first) and not lock(second, 0.2)

        def refuse(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
        assert lock(second, 60)
    assert "lock: no lock ([Errno 38] Function not implemented); take care that" in capsys.readouterr().err


def test_a_commit_of_the_hub_is_written_down_without_locks_and_not_waited_for_ever(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "LOCKED_FOR", 0.2)
    with (tmp_path / ".hub.lock").open("w") as other:
        assert lock(other)
        with pytest.raises(MilcoError, match=r"\.hub\.lock: another process has locked it for 0\.2 s"):
            hub._pin("models/x/y", "0" * 40)
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
        assert hub._pin("models/x/y", "0" * 40) == "0" * 40
    assert json.loads(Path(hub.LOCK).read_text()) == {"models/x/y": "0" * 40}

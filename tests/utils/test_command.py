"""What the commands share: a password that stands in the wrong place of a command line is in no message."""

import importlib

import pytest
from command import outcome

URL = "mongodb://me:S3cret@host:27017"
WRONG = [
    [URL],
    [f"--config={URL}"],
    [f"--workers={URL}"],
    ["x", f"--more={URL}"],
    [f"mongo_url={URL}", "mongo_db=runs"],
]


@pytest.mark.parametrize("command", ["main", "sync", "doctor", "sweep", "report", "plugin"])
@pytest.mark.parametrize("argv", WRONG, ids=["first", "config", "workers", "more", "without the word with"])
def test_no_message_holds_a_password(command, argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = outcome(importlib.import_module(command).main, capsys, argv)
    assert done.code == 2 and "error:" in done.err and "S3cret" not in done.out + done.err

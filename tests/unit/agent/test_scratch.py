"""A temporary directory and who may remove it."""

import subprocess
import sys

from fleetmark_agent.backends.scratch import Scratch

KILLED = (
    "import os, sys; from pathlib import Path;"
    "from fleetmark_agent.backends.scratch import Scratch;"
    "made = Scratch('mine-', Path(sys.argv[1])); (made.path / 'large').touch();"
    "os.kill(os.getpid(), 9)"
)


def test_it_is_gone_once_removed(tmp_path):
    scratch = Scratch("mine-", tmp_path)
    (scratch.path / "file").touch()
    scratch.remove()
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_one_in_use_stays_and_one_whose_user_was_killed_goes(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    (left,) = tmp_path.iterdir()
    used = Scratch("mine-", tmp_path)
    assert not left.exists()
    other = Scratch("mine-", tmp_path)
    assert used.path.exists()
    assert other.path != used.path


def test_what_only_looks_like_one_is_left_alone(tmp_path):
    (tmp_path / "mine-notes").mkdir()
    target = tmp_path / "precious"
    target.mkdir()
    (target / "in-use").touch()
    (tmp_path / "mine-link").symlink_to(target)
    Scratch("mine-", tmp_path).remove()
    assert (tmp_path / "mine-notes").is_dir()
    assert target.is_dir()

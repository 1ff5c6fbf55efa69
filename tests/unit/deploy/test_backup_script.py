"""deploy/backup.sh, and the commands by which docs/operate.md puts its parts back."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess

import pytest

from deployed import DEPLOY, ROOT
from fakes import fake_docker


@pytest.fixture
def project(tmp_path):
    """A copy of deploy/'s script with secrets beside it, and a docker that runs things here."""
    deploy = tmp_path / "deploy"
    (deploy / "secrets").mkdir(parents=True)
    (deploy / "secrets" / "influxdb-token").write_text("secret")
    (deploy / ".env").write_text("FLEETMARK_SECRETS_GID=1\n")
    shutil.copy(DEPLOY / "backup.sh", deploy)
    outside, database = fake_docker.install(tmp_path / "docker")
    (database / "points").write_text("all records")
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    db = sqlite3.connect(data_dir / "state.db")
    db.execute("CREATE TABLE t (value)")
    db.execute("INSERT INTO t VALUES ('a campaign')")
    db.commit()
    db.close()
    environment = {
        **os.environ,
        "PATH": f"{outside}{os.pathsep}{os.environ['PATH']}",
        "FLEETMARK_DATA_DIR": str(data_dir),
    }
    return deploy, environment


def run(script, environment, cwd, *args):
    return subprocess.run(
        ["sh", *map(str, script), *map(str, args)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=60,
        check=False,
    )


def made(deploy):
    (directory,) = (deploy / "backups").iterdir()
    return directory


def restore_commands():
    """The two `docker compose` commands of the document that take a part as their input."""
    text = (ROOT / "docs" / "operate.md").read_text("utf-8")
    found = re.findall(
        r"^docker compose (?:exec|run) .*\\\n.*<\$from/\w+\.tar$", text, re.MULTILINE
    )
    assert len(found) == 2
    return "set -eu\n" + "\n".join(found)


def test_a_backup_holds_every_part_and_nobody_else_can_read_it(project):
    deploy, environment = project
    done = run([deploy / "backup.sh"], environment, deploy)
    assert done.returncode == 0, done.stderr
    directory = made(deploy)
    assert f"backups/{directory.name}" in done.stdout
    assert {file.name for file in directory.iterdir()} == {
        "collector.tar",
        "influxdb.tar",
        "secrets.tar",
    }
    for path in (directory, *directory.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_what_was_backed_up_comes_back_by_the_commands_of_the_document(project, tmp_path):
    deploy, environment = project
    assert run([deploy / "backup.sh"], environment, deploy).returncode == 0
    state, points = tmp_path / "data" / "state.db", tmp_path / "docker" / "influxdb" / "points"
    state.unlink()
    points.write_text("something else")
    environment["from"] = f"backups/{made(deploy).name}"
    done = run(["-c", restore_commands()], environment, deploy)
    assert done.returncode == 0, done.stderr
    db = sqlite3.connect(state)
    assert db.execute("SELECT value FROM t").fetchone() == ("a campaign",)
    db.close()
    assert points.read_text() == "all records"


def test_a_part_that_fails_fails_the_backup(project, tmp_path):
    deploy, environment = project
    shutil.rmtree(tmp_path / "docker" / "influxdb")
    done = run([deploy / "backup.sh"], environment, deploy)
    assert done.returncode != 0
    assert "backups/" not in done.stdout

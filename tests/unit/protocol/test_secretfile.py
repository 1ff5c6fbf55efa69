"""Secrets in files: what is refused, and that no message says what a file holds."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.secretfile import check_private, check_readable, read_secret

FIELD = "broker.password_file"


@pytest.fixture
def open_way():
    """A directory that everybody may enter; those of pytest are for their user alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def write(directory, content, mode=0o600):
    file = directory / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def refusal(file):
    with pytest.raises(ConfigError) as caught:
        read_secret(FIELD, file)
    assert str(caught.value).startswith(f"{FIELD}: ")
    assert str(file) in str(caught.value)
    return caught.value


def test_the_line_is_read_without_white_space_around_it(tmp_path):
    assert read_secret(FIELD, write(tmp_path, b" sesame \n")).get_secret_value() == "sesame"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"sesame\nopen\n", "more than one line"),
        (b"sesame\x00open", "unprintable"),
        (b"sesame\xff", "not UTF-8"),
        (b"sesame" * 10_000, "too long"),
    ],
)
def test_a_file_without_one_line_of_text_is_refused_and_not_quoted(tmp_path, content, says):
    error = refusal(write(tmp_path, content))
    assert says in error.message
    assert "sesame" not in str(error)


def test_a_file_that_is_not_there_and_a_directory_are_told_apart(tmp_path):
    assert "No such file" in refusal(tmp_path / "nowhere").message
    assert "is a directory" in refusal(tmp_path).message


def test_a_link_in_circles_is_a_mistake_like_others(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refusal(tmp_path / "a")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o444, 0o666])
def test_a_secret_that_everybody_may_read_is_refused_with_what_to_run(open_way, mode):
    file = write(open_way, b"sesame", mode)
    error = refusal(file)
    assert "every user of this machine may read" in error.message
    assert error.hint == f"chmod o= {file}"
    subprocess.run(error.hint.split(), check=True)
    assert read_secret(FIELD, file).get_secret_value() == "sesame"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_the_owner_and_a_group_may_read_it(open_way, mode):
    check_private(FIELD, write(open_way, b"sesame", mode))


def test_behind_a_directory_that_others_cannot_enter_nobody_else_reads_it(open_way):
    closed = open_way / "closed"
    closed.mkdir()
    closed.chmod(0o750)
    file = write(closed, b"sesame", 0o644)
    assert read_secret(FIELD, file).get_secret_value() == "sesame"
    # What counts is where the file lies, not the link that leads there.
    link = open_way / "link"
    link.symlink_to(file)
    check_private(FIELD, link)
    away = write(open_way, b"sesame", 0o644)
    back = closed / "back"
    back.symlink_to(away)
    with pytest.raises(ConfigError, match="every user"):
        check_private(FIELD, back)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_who_may_not_read_it_learns_who_he_is(open_way):
    file = write(open_way, b"sesame", 0o600)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from fleetmark_protocol import secretfile\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "getattr(secretfile, sys.argv[2])('f', Path(sys.argv[1]))\n"
    )
    for name in ("read_secret", "check_readable"):
        done = subprocess.run(
            [sys.executable, "-c", code, file, name], capture_output=True, text=True
        )
        assert "Permission denied" in done.stderr
        assert "runs as user 65534" in done.stderr


def test_a_file_that_is_no_secret_may_be_open_but_must_be_readable(open_way):
    check_readable("broker.ca_file", write(open_way, b"x", 0o644))
    with pytest.raises(ConfigError, match=r"broker\.ca_file: .*No such file"):
        check_readable("broker.ca_file", open_way / "nowhere")

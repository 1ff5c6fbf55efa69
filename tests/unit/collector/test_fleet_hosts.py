"""HOSTS name each device once, and no word of theirs can become an option or a command."""

import pytest

from fleetmark_collector.fleet.hosts import Target, read_targets
from fleetmark_protocol.errors import ConfigError


@pytest.mark.parametrize(
    "word",
    [
        "pi4",
        "pi@10.0.0.5",
        "pi_2@board-7.lan.example.",
        "fe80::1%eth0",
        "pi@2001:db8::7",
        "ssh://pi@10.0.0.5:2222",
        "ssh://[2001:db8::7]:22",
        "ssh://board",
    ],
)
def test_a_destination_is_what_ssh_calls_one(word):
    assert read_targets([word]) == (Target(word, None, (), "HOSTS"),)


@pytest.mark.parametrize(
    "word",
    [
        "-oProxyCommand=id",
        "-l",
        "pi@-oProxyCommand=id",
        "-pi@board",
        "ssh://-oProxyCommand=id",
        "board;reboot",
        "$(reboot)",
        "`reboot`",
        "pi@board name",
        "board\n",
        "board'",
        "",
        "pi@",
        "@board@",
        "http://board",
    ],
)
def test_nothing_else_is_one_least_of_all_an_option(word):
    with pytest.raises(ConfigError):
        read_targets([word])


def test_a_port_is_written_as_ssh_wants_it():
    with pytest.raises(ConfigError, match=r"hint: .*ssh://pi@board:2222"):
        read_targets(["pi@board:2222"])


def test_a_file_names_devices_with_ids_and_tags_between_comments(tmp_path):
    file = tmp_path / "hosts"
    file.write_text(
        "# attic\n\npi@10.0.0.5   pi-attic  pi4,cooled # left\n  pi@10.0.0.6 pi-cellar\nec2-1\n",
        "utf-8",
    )
    assert read_targets(["first", f"@{file}"]) == (
        Target("first", None, (), "HOSTS"),
        Target("pi@10.0.0.5", "pi-attic", ("pi4", "cooled"), f"{file}:3"),
        Target("pi@10.0.0.6", "pi-cellar", (), f"{file}:4"),
        Target("ec2-1", None, (), f"{file}:5"),
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a\nb one two three", r"hosts:2: 4 words\n  hint: a line is"),
        ("a\nb Pi", r"hosts:2: 'Pi' is no device id"),
        ("a\nb pi-1 four,", r"hosts:2: '' is no tag"),
        ("a\n-oX=y", r"hosts:2: '-oX=y' is no destination"),
        ("a\na", r"hosts:2: a is named before, by .*hosts:1"),
        ("a pi-1\nb pi-1", r"hosts:2: pi-1 is named before, by .*hosts:1"),
        ("# nobody\n", "no device is named"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path, lines, words):
    file = tmp_path / "hosts"
    file.write_text(lines, "utf-8")
    with pytest.raises(ConfigError, match=words):
        read_targets([f"@{file}"])


@pytest.mark.parametrize("content", [None, b"\xff\xfe board"])
def test_a_file_that_cannot_be_read_is_the_users_mistake(tmp_path, content):
    file = tmp_path / "hosts"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="hosts"):
        read_targets([f"@{file}"])

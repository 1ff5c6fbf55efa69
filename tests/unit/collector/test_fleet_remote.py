"""What ssh is called with can be no option, holds no secret; and what comes back is bounded."""

import asyncio

import pytest

from fakes.fake_ssh_program import fake_ssh_program
from fleetmark_collector.fleet.remote import SAID_BYTES, Ssh, find_ssh, last_words
from fleetmark_protocol.errors import ConfigError, FleetmarkError

SECRET = b"a secret\n"


@pytest.fixture
def run(tmp_path):
    """Return what runs a script on `pi@board` by a program that does as told."""

    def call(then, *, limit_s=30, given=SECRET, config=None):
        ssh = Ssh(str(fake_ssh_program(tmp_path, then)), config)
        return asyncio.run(ssh.run("pi@board", "echo it", given, limit_s=limit_s))

    return call


def test_the_destination_stands_after_the_options_and_before_one_command(run, tmp_path):
    assert run(f"cat >{tmp_path}/stdin; echo said", config=tmp_path / "mine") == "said\n"
    words = (tmp_path / "argv").read_text("utf-8").split("\n")
    at = words.index("--")
    assert words[at + 1] == "pi@board"
    assert words[:2] == ["-F", str(tmp_path / "mine")]
    options = set(words[2:at]) - {"-o"}
    assert {"BatchMode=yes", "ForwardAgent=no", "ClearAllForwardings=yes"} <= options
    assert not any("HostKey" in option or "KnownHosts" in option for option in options)
    command = "\n".join(words[at + 2 :])
    assert command.startswith("sh -c ")
    assert command.endswith("fleetmark 'echo it'\n")
    assert (tmp_path / "stdin").read_bytes() == SECRET
    assert "a secret" not in (tmp_path / "argv").read_text("utf-8")


def test_a_file_is_sent_as_it_is(run, tmp_path):
    (tmp_path / "package.deb").write_bytes(bytes(range(256)) * 4096)
    run(f"cat >{tmp_path}/stdin", given=tmp_path / "package.deb")
    assert (tmp_path / "stdin").read_bytes() == bytes(range(256)) * 4096


@pytest.mark.parametrize("missing", ["package.deb", "ssh"])
def test_what_cannot_be_opened_here_is_the_failure_of_one_device(tmp_path, missing):
    given = tmp_path / "package.deb"
    given.touch()
    ssh = Ssh(str(fake_ssh_program(tmp_path, "true")))
    (tmp_path / missing).unlink()
    with pytest.raises(FleetmarkError, match=f"here, not on the device: .*{missing}"):
        asyncio.run(ssh.run("pi@board", "echo it", given, limit_s=30))


def test_a_device_that_hangs_up_early_is_judged_by_its_exit_code(run):
    big = b"x" * 2**22
    assert run("exec <&-; echo enough", given=big) == "enough\n"
    with pytest.raises(FleetmarkError, match=r"^no room$"):
        run("exec <&-; echo no room >&2; exit 3", given=big)


def test_what_a_device_says_beyond_all_measure_is_dropped(run):
    assert run("head -c 3000000 /dev/zero | tr '\\0' x") == "x" * SAID_BYTES
    with pytest.raises(FleetmarkError) as caught:
        run("head -c 3000000 /dev/zero | tr '\\0' y >&2; echo ' the end' >&2; exit 1")
    assert len(caught.value.message) <= 400
    assert caught.value.message.endswith("y the end")


def test_a_device_that_never_answers_is_given_up_and_its_ssh_ended(run, new_children):
    with pytest.raises(FleetmarkError, match=r"no answer within 0\.2 s"):
        run("exec sleep 600", limit_s=0.2)
    assert new_children() == []


@pytest.mark.parametrize(
    ("then", "message", "hint"),
    [
        ("echo 'Host key verification failed.' >&2; exit 255", "the host's key", "ssh pi@board"),
        (
            "echo 'pi@board: Permission denied (publickey).' >&2; exit 255",
            "without a password",
            "ssh-copy-id pi@board",
        ),
        ("echo 'ssh: Could not resolve hostname board' >&2; exit 255", "resolved", None),
        ("echo 'connect to host board: Connection refused' >&2; exit 255", "listens", "sshd"),
        ("echo 'connect to host board: Connection timed out' >&2; exit 255", "nothing", "firewall"),
        ("echo 'connect to host board: No route to host' >&2; exit 255", "no way", "network"),
        ("echo 'Something new' >&2; exit 255", "ssh: Something new", None),
        ("exit 255", "the connection broke", None),
        ("exit 92", "sudo is missing", "come as root"),
        ("exit 93", "sudo asks for a password", "NOPASSWD"),
        # What a script says is no word of ssh's.
        ("echo 'cat: x: Permission denied' >&2; exit 1", "^cat: x: Permission denied$", None),
        ("echo 'on standard output'; exit 1", "^on standard output$", None),
        ("exit 7", "ended with 7 and said nothing", None),
    ],
)
def test_a_failure_says_what_it_is_and_what_may_be_done(run, then, message, hint):
    with pytest.raises(FleetmarkError, match=message) as caught:
        run(then)
    assert (hint is None) == (caught.value.hint is None)
    assert (hint or "") in (caught.value.hint or "")


def test_a_device_cannot_write_on_the_operators_terminal():
    assert last_words("a\x1b[2J\nb\r\x07 \u202e c\n") == "a [2J b c"


def test_without_ssh_nothing_begins(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ssh is missing"):
        find_ssh(None)
    fake_ssh_program(tmp_path, "true")
    assert find_ssh(None) == Ssh(str(tmp_path / "ssh"))
    with pytest.raises(ConfigError, match="--ssh-config"):
        find_ssh(tmp_path / "nowhere")

"""`fleetmark fleet install` over real ssh: a device comes online as itself, or it says why not."""

import json
import subprocess

import pytest

from commands import fleetmark
from servers import free_port
from sshservers import SshServer, why_not

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

SETTINGS = """\
device_id = "{device}"
state_dir = "/var/lib/fleetmark-agent"

[broker]
host = "centre.example"
port = 8883
username = "{device}"
ca_file = "/etc/fleetmark/agent-ca.crt"
password_file = "/etc/fleetmark/agent-password"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = SshServer(tmp_path_factory.mktemp("sshd")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Return what makes a package of a version."""
    directory = tmp_path_factory.mktemp("packages")

    def make(version, architecture="amd64"):
        control = directory / version / "DEBIAN" / "control"
        control.parent.mkdir(parents=True, exist_ok=True)
        control.write_text(
            f"Package: fleetmark-agent\nVersion: {version}\nArchitecture: {architecture}\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: a test\n",
            "utf-8",
        )
        file = directory / f"fleetmark-agent_{version}_{architecture}.deb"
        command = ["dpkg-deb", "--build", "--root-owner-group", directory / version, file]
        subprocess.run(command, check=True, capture_output=True)
        return file

    return make


@pytest.fixture
def kits(tmp_path):
    """Return what makes a kit, with a secret to look for; `.directory` has them all."""

    def make(device):
        directory = make.directory / device
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "agent.toml").write_text(SETTINGS.format(device=device), "utf-8")
        (directory / "agent-password").write_text(f"secret-of-{device}\n", "utf-8")
        (directory / "agent-ca.crt").write_text("a certificate\n", "utf-8")

    make.directory = tmp_path / "kits"
    make.directory.mkdir()
    return make


@pytest.fixture
def install(server, kits, tmp_path):
    """Return what runs the command: exit code, its JSON by host, and all it said."""

    def run(*args, identities=("--kits", kits.directory)):
        log = tmp_path / "log"
        command = fleetmark(
            *("fleet", "install", "--json", "--ssh-config", server.config, *identities, *args),
            log=log,
            env={"FLEETMARK_DATA_DIR": str(tmp_path / "data")},
        )
        code = command.process.wait(120)
        said = command.output()
        log.unlink()
        begin = said.find("\n[\n") if not said.startswith("[") else -1
        rows = json.loads(said[begin + 1 :]) if "[\n" in said else []
        return code, {row["host"]: row for row in rows}, said

    return run


def test_a_bare_device_gets_identity_and_package_and_is_online_and_a_second_run_changes_nothing(
    server, package, kits, install
):
    board = server.device("bare", user="pi")
    board.let_sudo()
    kits("bare")
    given = ("--package", package("1.2.0"), "bare")
    code, rows, said = install(*given)
    assert code == 0, said
    assert rows["bare"]["state"] == "done"
    assert rows["bare"]["steps"] == ["identity", "package 1.2.0"]
    # The identity was there before the package started the agent.
    assert board.said == ["install 1.2.0 with agent-ca.crt agent-password agent.toml "]
    assert board.read("etc/fleetmark/agent.toml") == SETTINGS.format(device="bare")
    assert board.read("etc/fleetmark/agent-password") == "secret-of-bare\n"
    group = board.group("fleetmark-agent")
    assert set(board.modes().values()) == {("-rw-r-----", 0, group)}
    assert "secret-of-bare" not in said

    code, rows, said = install(*given)
    assert (code, rows["bare"]["state"], rows["bare"]["steps"]) == (0, "unchanged", [])
    assert len(board.said) == 1
    # Nothing is left of what was copied.
    assert list((board.root / "var" / "tmp").iterdir()) == []


def test_settings_that_somebody_has_made_stay_and_credentials_are_brought_up_to_date(
    server, package, kits, install
):
    board = server.device("kept")
    kits("kept")
    given = ("--package", package("1.2.0"), "kept")
    assert install(*given)[0] == 0
    mine = board.read("etc/fleetmark/agent.toml").replace(
        "state_dir", 'tags = ["attic"]\nstate_dir'
    )
    board.write("etc/fleetmark/agent.toml", mine)
    (kits.directory / "kept" / "agent-password").write_text("renewed\n", "utf-8")
    code, rows, said = install(*given)
    assert (code, rows["kept"]["steps"]) == (0, ["identity", "start"]), said
    assert board.read("etc/fleetmark/agent.toml") == mine
    assert board.read("etc/fleetmark/agent-password") == "renewed\n"
    assert board.said[1:] == ["restart"]


def test_settings_that_came_with_a_package_give_way_and_are_kept_aside(server, kits, install):
    board = server.device("preset")
    board.command("fleetmark-agent", (board.root / "local" / "agent").read_text("utf-8"))
    board.write("etc/fleetmark/agent.toml", '# as delivered\n[broker]\nhost = "127.0.0.1"\n')
    kits("preset")
    code, rows, said = install("preset")
    assert (code, rows["preset"]["steps"]) == (0, ["identity", "start"]), said
    assert board.read("etc/fleetmark/agent.toml") == SETTINGS.format(device="preset")
    assert "as delivered" in board.read("etc/fleetmark/agent.toml.old")


def test_devices_that_fail_are_told_apart_and_hold_up_none_of_the_others(
    server, package, kits, install, tmp_path
):
    good = server.device("good")
    server.device("no-sudo", user="pi")
    server.device("old-arm", machine="armv7l")
    server.device("old-python").command("python3", "echo python=3.9")
    server.device("no-systemd").root.joinpath("run/systemd/system").rmdir()
    server.device("apt-broken").write("etc/apt-fails", "E: Unmet dependencies\x1b[31m\n")
    server.device("offline").write("etc/offline", "it refused us: bad user name or password")
    server.device("foreign").write("etc/fleetmark/agent.toml", 'device_id = "somebody"\n')
    other = '[broker]\nhost = "other.example"\n'
    server.device("elsewhere").write(
        "etc/fleetmark/agent.toml", 'device_id = "elsewhere"\n' + other
    )
    server.device("arm-64", machine="aarch64")
    server.host("stranger")
    server.host("off", port=free_port())
    (tmp_path / "empty").touch()
    server.host("new-key", known=tmp_path / "empty")
    for device in server.devices:
        kits(device)
    hosts = tmp_path / "hosts"
    names = [*(name for name in server.devices if name not in ("bare", "kept", "preset")), "off"]
    lines = [f"{name} {name}" for name in (*names, "stranger", "new-key", "no.such.invalid")[:-1]]
    hosts.write_text("\n".join(lines) + "\nno.such.invalid nobody\n", "utf-8")
    code, rows, said = install("--package", package("1.2.0"), "--wait", 1, f"@{hosts}")
    assert code == 1, said
    assert [name for name, row in rows.items() if row["state"] == "done"] == ["good"]
    assert len(good.said) == 1
    problems = {name: row["problem"] for name, row in rows.items() if row["problem"]}
    assert problems == {
        "no-sudo": "sudo asks for a password, or lets this user do nothing",
        "old-arm": "armv7l is not supported",
        "old-python": "Python 3.11 or newer is needed; it has 3.9",
        "no-systemd": "it is not run by systemd",
        "apt-broken": "E: Unmet dependencies [31m",
        "offline": "not online within 1 s: it refused us: bad user name or password",
        "foreign": "it is somebody already, not foreign",
        "elsewhere": "its settings of [broker] (host other.example) are not those of its kit",
        "arm-64": "there is no agent on it, and no --package for arm64",
        "stranger": "ssh is not let in without a password",
        "off": "nothing listens on its ssh port",
        "new-key": "ssh does not know, or no longer knows, the host's key",
        "no.such.invalid": "the name cannot be resolved",
    }
    assert "secret-of" not in said


def test_two_devices_of_one_host_name_are_not_given_one_identity(server, kits, install):
    boards = [server.device(f"twin-{number}", node="raspberrypi") for number in (1, 2)]
    kits("raspberrypi")
    code, rows, _ = install("twin-1", "twin-2")
    assert code == 1
    assert {row["problem"] for row in rows.values()} == {"2 of the devices would be raspberrypi"}
    assert not any((board.root / "etc" / "fleetmark").exists() for board in boards)


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(server, package, install):
    board = server.device("dry")
    code, rows, said = install(
        *("--dry-run", "--package", package("1.2.0"), "dry"),
        identities=("--host", "centre.example"),
    )
    assert code == 0, said
    assert rows["dry"]["state"] == "planned"
    assert rows["dry"]["steps"] == ["enroll", "identity", "package 1.2.0"]
    assert board.said == []
    assert not (board.root / "etc" / "fleetmark").exists()


def test_a_device_without_identity_is_enrolled_and_one_that_lost_it_gets_a_new_one(
    server, package, install, tmp_path
):
    board = server.device("enrolled")
    hosts = tmp_path / "hosts"
    hosts.write_text("enrolled  pi-attic  pi4,cooled\n", "utf-8")
    given = ("--package", package("1.2.0"))
    centre = ("--host", "centre.example")
    code, rows, said = install(*given, f"@{hosts}", identities=centre)
    assert (code, rows["enrolled"]["steps"]) == (0, ["enroll", "identity", "package 1.2.0"]), said
    settings = board.read("etc/fleetmark/agent.toml")
    assert 'device_id = "pi-attic"' in settings
    assert 'tags = ["pi4", "cooled"]' in settings
    first = board.read("etc/fleetmark/agent.key")
    assert first.splitlines()[1] not in said

    # It knows who it is, and need not be named any more.
    code, rows, said = install(*given, "enrolled", identities=centre)
    assert (code, rows["enrolled"]["state"], rows["enrolled"]["device"]) == (
        *(0, "unchanged", "pi-attic"),
    ), said

    # The card is replaced. Another board could have this host name: only a list says which it is.
    board.write("etc/hostname", "pi-attic\n")
    for file in (board.root / "etc" / "fleetmark").iterdir():
        file.unlink()
    code, rows, _ = install(*given, "enrolled", identities=centre)
    assert (code, rows["enrolled"]["problem"]) == (
        *(1, "pi-attic is enrolled already, and this device has no identity"),
    )
    code, rows, said = install(*given, f"@{hosts}", identities=centre)
    assert (code, rows["enrolled"]["steps"]) == (0, ["identity", "start"]), said
    assert board.read("etc/fleetmark/agent.key") == first


def test_what_the_user_wrote_wrong_ends_it_with_2_before_any_device_is_touched(server, install):
    board = server.device("untouched")
    code, _, said = install("untouched", "--", "-oProxyCommand=x")
    assert code == 2
    assert "error: HOSTS: '-oProxyCommand=x' is no destination for ssh" in said
    assert "Traceback" not in said
    assert not (board.root / "etc" / "fleetmark").exists()

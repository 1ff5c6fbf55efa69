"""What a device needs is decided by what it is and has; nothing that somebody has set is lost."""

import base64
from dataclasses import replace

import pytest

from fakes.fake_kits import FakeKits
from fleetkits import DIGEST, KIT, SETTINGS
from fleetmark_collector.fleet.hosts import Target
from fleetmark_collector.fleet.kits import Kit
from fleetmark_collector.fleet.plan import make_plan, name_device, read_packages
from fleetmark_collector.fleet.probe import Facts, read_facts
from fleetmark_protocol.errors import ConfigError, FleetmarkError

THERE = Facts(
    machine="aarch64",
    node="pi-1",
    python=(3, 11),
    systemd=True,
    apt=True,
    package="1.2",
    agent=True,
    active=True,
    settings=SETTINGS,
    credentials=DIGEST,
)
IN_LAB = 'fleet = "lab"\n' + SETTINGS
LAB_KIT = Kit("pi-1", {**KIT.files, "agent.toml": IN_LAB.encode()})
TARGET = Target("pi@pi-1", None, (), "HOSTS")


def facts(**changes):
    return replace(THERE, **changes)


@pytest.fixture
def packages(tmp_path):
    files = [tmp_path / f"fleetmark-agent_1.2_{one}.deb" for one in ("arm64", "amd64")]
    for file in files:
        file.touch()
    return read_packages(files)


def steps(packages, kits, target=TARGET, **changes):
    return make_plan(target, "pi-1", facts(**changes), kits, packages).steps


BARE = {"settings": None, "credentials": {}, "package": None, "agent": False, "active": False}


@pytest.mark.parametrize(
    ("kits", "changes", "expected"),
    [
        (FakeKits(KIT, taken=True), {}, ()),
        (FakeKits(KIT), BARE, ("identity", "package 1.2")),
        (FakeKits(), BARE, ("enroll", "identity", "package 1.2")),
        (FakeKits(KIT), {"package": "1.1"}, ("package 1.2",)),
        # Installed by the script: the package takes over.
        (FakeKits(KIT), {"package": None}, ("package 1.2",)),
        (FakeKits(KIT), {"active": False}, ("start",)),
        (FakeKits(KIT), {"credentials": {"agent-password": "0" * 64}}, ("identity", "start")),
        (FakeKits(KIT), {"credentials": {}}, ("identity", "start")),
        # Somebody's own settings, which go with the kit.
        (FakeKits(KIT), {"settings": SETTINGS + "keepalive_s = 60\n"}, ()),
        # A kit of before identities had a fleet is for any.
        (FakeKits(KIT), {"settings": IN_LAB}, ()),
        (FakeKits(LAB_KIT), {"settings": IN_LAB}, ()),
        (FakeKits(LAB_KIT), BARE, ("identity", "package 1.2")),
        # The kit was taken away after it was copied, as it may be.
        (FakeKits(taken=True), {}, ()),
        (FakeKits(KIT, taken=True, due=True), {}, ("enroll", "identity", "start")),
    ],
)
def test_a_device_gets_what_it_lacks_and_no_more(packages, kits, changes, expected):
    assert steps(packages, kits, **changes) == expected


def test_settings_go_there_only_where_there_are_none_or_those_of_a_package(packages):
    delivered = '[broker]\nhost = "127.0.0.1"\n'
    for settings, put in ((None, True), (delivered, True), ("", True), (SETTINGS, False)):
        changed = facts(settings=settings, credentials={})
        plan = make_plan(TARGET, "pi-1", changed, FakeKits(KIT), packages)
        assert (plan.put_kit, plan.put_settings) == (True, put), settings


@pytest.mark.parametrize(
    ("kits", "changes", "words"),
    [
        (FakeKits(KIT), {"machine": "armv7l"}, "armv7l is not supported"),
        (FakeKits(KIT), {"machine": ""}, "its processor is not supported"),
        (FakeKits(KIT), {"python": None}, "it has none"),
        (FakeKits(KIT), {"python": (3, 10)}, r"it has 3\.10"),
        (FakeKits(KIT), {"systemd": False}, "systemd"),
        (FakeKits(KIT), {"apt": False, "package": "1.1"}, "no apt"),
        (FakeKits(KIT), {"settings": "not = [toml"}, "cannot be read as TOML"),
        (FakeKits(KIT), {"settings": SETTINGS.replace("centre", "old")}, r"host old\.example"),
        # A broker on the device itself, but somebody has named the device.
        (FakeKits(KIT), {"settings": 'device_id = "pi-1"\n'}, "not those of its kit"),
        # Somebody has set it up by hand, and left its name to the host's.
        (FakeKits(KIT), {"settings": '[broker]\nhost = "192.0.2.1"\n'}, r"host 192\.0\.2\.1"),
        (FakeKits(LAB_KIT), {}, "settings say fleet default, its identity is for lab"),
        (
            FakeKits(LAB_KIT),
            {"settings": IN_LAB.replace("lab", "field")},
            "settings say fleet field, its identity is for lab",
        ),
        (FakeKits(), {}, "set up by other means"),
        (FakeKits(taken=True), {"credentials": {}}, "set up by other means"),
        (FakeKits(KIT, taken=True), BARE, "pi-1 is enrolled already"),
    ],
)
def test_what_cannot_be_done_or_would_overwrite_something_is_refused(
    packages, kits, changes, words
):
    with pytest.raises(FleetmarkError, match=words):
        steps(packages, kits, **changes)


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize(
    ("kit", "due", "changes"),
    [
        (KIT, False, {"credentials": {"agent-password": "0" * 64}}),
        (KIT, False, {"credentials": {}}),
        (KIT, False, BARE),
        (KIT, True, {"credentials": {"agent-password": "0" * 64}}),
        # What it has cannot be compared with anything.
        (None, True, {}),
        # The CA's certificate is no secret.
        (replace(KIT, files={"agent.toml": SETTINGS.encode()}), True, {"credentials": {}}),
    ],
)
def test_whoever_only_says_that_he_is_a_device_gets_nothing_of_it(
    packages, taken, kit, due, changes
):
    kits = FakeKits(kit, taken=taken or kit is None, due=due)
    with pytest.raises(FleetmarkError, match="and this device") as caught:
        steps(packages, kits, Target("root@board", None, (), "HOSTS"), **changes)
    assert "`root@board pi-1`" in caught.value.hint
    assert steps(packages, kits, Target("root@board", "pi-1", (), "hosts:1"), **changes)


@pytest.mark.parametrize("destination", ["pi@pi-1", "ssh://pi@pi-1:2222", "fe80::1", "pi-1"])
def test_an_id_that_the_centre_gave_away_is_not_proven_by_a_name_in_the_network(
    packages, destination
):
    target = Target(destination, None, (), "HOSTS")
    with pytest.raises(FleetmarkError, match="pi-1 is enrolled already"):
        steps(packages, FakeKits(KIT, taken=True), target, **BARE)
    if destination != "fe80::1":
        assert steps(packages, FakeKits(KIT), target, **BARE)[0] == "identity"


@pytest.mark.parametrize("device", ["../pi-2", "Pi", "", "pi 1"])
def test_what_settings_call_a_device_must_be_an_id(device):
    with pytest.raises(FleetmarkError, match="no device id"):
        name_device(TARGET, facts(settings=f'device_id = "{device}"\n'))


def test_an_id_that_is_taken_is_given_again_to_whom_the_list_names(packages):
    listed = Target("board", "pi-1", (), "hosts:1")
    assert steps(packages, FakeKits(KIT, taken=True), listed, **BARE)[0] == "identity"


def test_without_a_package_a_device_needs_an_agent_of_its_own():
    assert steps({}, FakeKits(KIT), settings=None) == ("identity", "start")
    with pytest.raises(FleetmarkError, match=r"no --package for arm64"):
        steps({}, FakeKits(KIT), **BARE)


@pytest.mark.parametrize(
    ("listed", "set_there", "node", "expected"),
    [
        ("fleetmark-simulator", None, "fleetmark-simulator", "fleetmark-simulator"),
        ("pi-9", "pi-9", "x", "pi-9"),
        (None, "pi-7", "x", "pi-7"),
        (None, None, "Raspberry Pi.local", "raspberry-pi-local"),
    ],
)
def test_a_device_is_called_as_listed_else_as_it_is_else_as_its_host(
    listed, set_there, node, expected
):
    settings = None if set_there is None else f'device_id = "{set_there}"\n'
    target = Target("board", listed, (), "hosts:1")
    assert name_device(target, facts(settings=settings, node=node)) == expected


def test_a_host_name_that_is_a_user_of_the_centre_makes_no_device_unless_somebody_says_so():
    for user in ("fleetmark-simulator", "fleetmark-collector"):
        with pytest.raises(FleetmarkError, match=f"the centre's own user {user}"):
            name_device(TARGET, facts(settings=None, node=user))


def test_a_device_keeps_its_name_whatever_a_list_says():
    with pytest.raises(FleetmarkError, match="it is pi-1 already, not pi-2"):
        name_device(Target("board", "pi-2", (), "hosts:1"), facts())
    with pytest.raises(FleetmarkError, match="makes no device id"):
        name_device(TARGET, facts(settings=None, node="---"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["fleetmark-agent_1.2_armhf.deb"], "is no package of the agent"),
        (["other_1.2_arm64.deb"], "is no package of the agent"),
        (["fleetmark-agent_1.2_arm64.deb", "fleetmark-agent_1.3_arm64.deb"], "both for arm64"),
    ],
)
def test_a_package_is_one_of_ours_and_one_for_an_architecture(tmp_path, names, words):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=words):
        read_packages([tmp_path / name for name in names])
    with pytest.raises(ConfigError, match="--package"):
        read_packages([tmp_path / "fleetmark-agent_9_arm64.deb"])


def test_facts_are_read_after_whatever_a_login_shell_says():
    settings = base64.b64encode(SETTINGS.encode()).decode()
    said = (
        "Welcome!\nmachine=toaster\nfleetmark-facts\nmachine=aarch64\nnode=pi-1\npython=3.11\n"
        "systemd=yes\napt=yes\npackage=ii  1.2\nagent=yes\nservice=active\n"
        f"agent-password={DIGEST['agent-password']}\nsettings={settings}\n"
    )
    assert read_facts(said) == facts()


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("package=rc  1.2", "package", None),
        ("package=", "package", None),
        ("service=failed", "active", False),
        ("python=3.x", "python", None),
        ("settings=%%%", "settings_readable", False),
        ("settings=//8=", "settings_readable", False),
    ],
)
def test_what_is_half_there_or_makes_no_sense_is_not_there(line, field, expected):
    assert getattr(read_facts(f"fleetmark-facts\n{line}\n"), field) == expected


def test_who_answers_without_our_facts_is_no_device():
    with pytest.raises(FleetmarkError, match="not with a shell"):
        read_facts("This account is for file transfer only.\n")

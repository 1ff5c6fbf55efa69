"""The time zone of a device, as its files tell it."""

import zoneinfo

import pytest

from fleetmark_agent.config import AgentSettings
from fleetmark_agent.timezones import check_name, device_time_zone


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"),
        ("../usr/share/zoneinfo/America/Argentina/Ushuaia", "America/Argentina/Ushuaia"),
        ("/usr/share/zoneinfo/posix/Asia/Kolkata", "Asia/Kolkata"),
        ("/usr/share/zoneinfo/Etc/GMT+5", "Etc/GMT+5"),
        ("/usr/share/zoneinfo/UTC", "UTC"),
    ],
)
def test_the_link_of_local_time_names_the_zone(root, target, name):
    (root / "etc/localtime").symlink_to(target)
    assert device_time_zone(root) == name


def test_where_local_time_is_a_copy_its_name_may_stand_beside_it(root):
    (root / "etc/localtime").write_bytes(b"TZif2")
    assert device_time_zone(root) is None
    (root / "etc/timezone").write_text("Europe/Vienna\n")
    assert device_time_zone(root) == "Europe/Vienna"


def test_programs_go_by_local_time_and_so_does_the_name(root):
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    (root / "etc/timezone").write_text("Etc/UTC\n")
    assert device_time_zone(root) == "Europe/Berlin"


@pytest.mark.parametrize("text", ["", "\n\n", "../../etc/passwd\n", "Europe/", "a b\n", "\0\n"])
def test_what_is_no_name_is_absent(root, text):
    (root / "etc/timezone").write_text(text)
    assert device_time_zone(root) is None


def test_a_device_that_says_nothing_has_none(tmp_path):
    assert device_time_zone(tmp_path) is None


def test_the_settings_take_a_zone_that_exists():
    assert AgentSettings(device_id="d", time_zone="Europe/Berlin").time_zone == "Europe/Berlin"
    with pytest.raises(ValueError, match=r"Europe/Berln.*no time zone"):
        AgentSettings(device_id="d", time_zone="Europe/Berln")


def test_a_system_that_knows_no_zones_takes_what_could_be_one(monkeypatch):
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert check_name("Mars/Olympus") == "Mars/Olympus"
    with pytest.raises(ValueError):
        check_name("no zone")

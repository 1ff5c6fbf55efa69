"""A kit is whole, its device's own, and never printed."""

import pytest

from fleetkits import DIGEST, KIT, SETTINGS
from fleetmark_collector.fleet.kits import Kit, KitDirectory, read_kit, with_tags
from fleetmark_protocol.errors import ConfigError


@pytest.fixture
def kit(tmp_path):
    directory = tmp_path / "kits" / "pi-1"
    directory.mkdir(parents=True)
    for name, content in KIT.files.items():
        (directory / name).write_bytes(content)
    return directory


def test_a_kit_is_read_from_its_directory_and_never_printed(kit):
    found = KitDirectory(kit.parent).find("pi-1")
    assert found == KIT
    assert found.digests() == DIGEST
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("agent.toml", None, "there is no agent.toml"),
        ("agent.toml", "x = [", "agent.toml in"),
        ("agent.toml", 'device_id = "pi-2"\n', "is that of 'pi-2'"),
        ("agent-password", None, "password_file is /etc/fleetmark/agent-password, which"),
        (
            "agent.toml",
            SETTINGS.replace("/etc/fleetmark/", "/etc/"),
            "password_file is /etc/agent-password, which",
        ),
        ("agent-ca.crt", "x" * (2**20 + 1), "larger than"),
    ],
)
def test_a_kit_that_is_not_whole_or_anothers_is_refused(kit, name, content, words):
    if content is None:
        (kit / name).unlink()
    else:
        (kit / name).write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=words):
        read_kit(kit, "pi-1")


@pytest.mark.parametrize(
    "before", [SETTINGS, 'tags = ["old"]\n' + SETTINGS, 'device_id = "pi-1"\n']
)
def test_tags_of_a_list_take_the_place_of_the_kits(before):
    kit = Kit("pi-1", {**KIT.files, "agent.toml": before.encode()})
    text = with_tags(kit, ("pi4", "cooled")).files["agent.toml"].decode()
    assert text.count("tags") == 1
    assert 'tags = ["pi4", "cooled"]\n' in text.split("[broker]")[0]
    assert with_tags(kit, ()) is kit


def test_tags_that_cannot_be_replaced_are_refused():
    kit = Kit("pi-1", {"agent.toml": b'device_id = "pi-1"\ntags = [\n  "old",\n]\n'})
    with pytest.raises(ConfigError, match="with tags"):
        with_tags(kit, ("pi4",))

"""Where downloads connect: never into a private network, by whatever name or redirect."""

import ipaddress

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_raw_server import FakeRawServer
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.addresses import Guard, is_public, own_networks
from fleetmark_agent.models.download import Downloader, Order
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import (
    ConfigError,
    DownloadFailed,
    ModelNotFound,
    SourceNotAllowed,
)
from fleetmark_protocol.messages import ModelSpec
from fleetmark_protocol.settings import Settings, load

SHA256 = "ab" * 32

INSIDE = (
    "127.0.0.1",
    "127.8.9.10",
    "2130706433",
    "0177.0.0.1",
    "0x7f.1",
    "127.1",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.251",
    "255.255.255.255",
    "localhost",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::a00:1]",
    "[2002:a00:1::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::fb]",
)


def nowhere_near():
    return []


@pytest.mark.parametrize("host", INSIDE)
def test_every_form_of_a_private_address_is_known_for_one(host):
    with pytest.raises(SourceNotAllowed, match="private network"):
        Guard(near=nowhere_near).addresses(host.strip("[]"), 443)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0177.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_form_of_this_machines_address_is_connected_to(tmp_path, host):
    store = ModelStore(tmp_path / "store", ModelSettings())
    with FakeRawServer() as service:
        ref = f"https://{host}:{service.port}/m.gguf"
        with pytest.raises((SourceNotAllowed, ConfigError)) as caught:
            store.ensure(ModelSpec(name="m", ref=ref, sha256=SHA256))
        assert service.heard == []
    # Some forms are no address to the HTTP library, and get no further than that.
    told = "Invalid IPv4" if host == "0177.0.0.1" else "models.allow_private_hosts"
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1", "64:ff9b::808:808"]
)
def test_the_internet_is_let_in(address):
    assert is_public(ipaddress.ip_address(address))
    guard = Guard(resolve=lambda host: [address], near=nowhere_near)
    assert guard.addresses("hub.org", 443) == [address]


def test_one_private_address_among_public_ones_is_enough_to_refuse():
    guard = Guard(resolve=lambda host: ["8.8.8.8", "10.0.0.1"], near=nowhere_near)
    with pytest.raises(SourceNotAllowed, match=r"hub\.org \(10\.0\.0\.1\) is in a private network"):
        guard.addresses("hub.org", 443)


def test_a_public_address_of_the_devices_own_network_is_refused_too():
    near = [ipaddress.ip_network("2001:4860:1:2::/64"), ipaddress.ip_network("8.8.8.0/24")]
    for address in ("2001:4860:1:2::99", "8.8.8.77", "::ffff:8.8.8.77"):
        guard = Guard(resolve=lambda host, found=address: [found], near=lambda: near)
        with pytest.raises(SourceNotAllowed, match="this device's own network"):
            guard.addresses("printer.example", 443)


def test_this_devices_networks_are_known():
    assert any(ipaddress.ip_address("127.0.0.1") in network for network in own_networks())


@pytest.mark.parametrize(
    ("word", "host", "address"),
    [
        ("mirror.lan", "Mirror.LAN", "10.0.0.5"),
        ("10.0.0.5", "mirror.lan", "10.0.0.5"),
        ("10.0.0.0/8", "10.0.0.5", "10.0.0.5"),
        ("10.0.0.0/8", "mirror.lan", "::ffff:10.0.0.5"),
        ("fd00::/8", "mirror.lan", "fd00::1"),
        ("mirror.lan:8443", "mirror.lan", "10.0.0.5"),
        ("10.0.0.5:8443", "mirror.lan", "10.0.0.5"),
        ("[fd00::1]:8443", "fd00::1", "fd00::1"),
    ],
)
def test_what_the_owner_names_is_let_in_and_nothing_beside_it(word, host, address):
    guard = Guard((word,), resolve=lambda name: [address], near=nowhere_near)
    assert guard.addresses(host, 8443) == [address]
    for other in ("192.168.1.1", "127.0.0.1", "fe80::1"):
        beside = Guard((word,), resolve=lambda name, found=other: [found], near=nowhere_near)
        with pytest.raises(SourceNotAllowed):
            beside.addresses("elsewhere.lan", 8443)


@pytest.mark.parametrize("word", ["mirror.lan:8443", "10.0.0.5:8443"])
def test_another_port_than_the_one_that_is_named_is_not_let_in(word):
    guard = Guard((word,), resolve=lambda name: ["10.0.0.5"], near=nowhere_near)
    with pytest.raises(SourceNotAllowed):
        guard.addresses("mirror.lan", 6379)


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("https://hub.lan:8443/x", "hub.lan:8443"),
        ("https://hub.lan", "hub.lan:443"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("https://[fd00::1]:8443", "[fd00::1]:8443"),
    ],
)
def test_a_hub_that_the_owner_sets_is_let_in_at_its_port_and_the_default_is_not_private(
    endpoint, place
):
    assert ModelSettings().private_places == ()
    mine = ModelSettings(hf_endpoint=endpoint, allow_private_hosts=("10.1.2.3",))
    assert mine.private_places == ("10.1.2.3", place)


class _Models(Settings):
    models: ModelSettings = ModelSettings()


@pytest.mark.parametrize("word", ["https://mirror.lan", "10.0.0.0/64", "a b", "", "mirror.lan/x"])
def test_what_is_no_host_and_no_network_is_the_owners_mistake(word):
    with pytest.raises(ConfigError, match="allow_private_hosts"):
        load(_Models, None, {"models": {"allow_private_hosts": (word,)}}, environ={})


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://mirror:99999",
        "https://mirror:x",
        "https://mirror:0",
        "https://[fd00::1",
        "https://",
        "mirror.lan",
        "ftp://mirror.lan",
        "",
    ],
)
def test_a_hub_that_is_no_place_is_the_owners_mistake(endpoint):
    with pytest.raises(ConfigError, match=r"models\.hf_endpoint"):
        load(_Models, None, {"models": {"hf_endpoint": endpoint}}, environ={})


def test_a_name_is_asked_for_once_and_what_was_checked_is_connected_to(tmp_path):
    """Whoever answers a second question otherwise (DNS rebinding) is not asked it."""
    answers = [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]]
    reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with (
        FakeRawServer([reply], host="127.0.0.2") as first,
        FakeRawServer([reply], port=first.port) as victim,
    ):
        guard = Guard(("127.0.0.2",), resolve=lambda host: answers.pop(0))
        order = Order(f"http://localhost:{first.port}/m", tmp_path / "part", SHA256)
        with pytest.raises(ModelNotFound, match="404"):
            Downloader(lambda more: None, guard=guard, tries=1).fetch(order)
        assert len(first.heard) == 1
        assert b"Host: localhost" in first.heard[0]
        assert victim.heard == []
    assert len(answers) == 2


def test_a_redirect_into_a_private_network_is_not_connected_to(tmp_path):
    with FakeHub() as hub, FakeRawServer(host="127.0.0.2") as victim:
        hub.serve("/m", location=f"http://127.0.0.2:{victim.port}/secret")
        store = ModelStore(
            tmp_path / "store",
            ModelSettings(allow_sources=("http://",), allow_private_hosts=("127.0.0.1",)),
        )
        with pytest.raises(SourceNotAllowed, match=r"127\.0\.0\.2 is in a private network"):
            store.ensure(ModelSpec(name="m", ref=f"{hub.base}/m", sha256=SHA256))
        assert victim.heard == []


def test_an_owner_who_names_servers_is_not_led_to_others(tmp_path):
    with FakeHub() as hub, FakeHub() as other:
        hub.serve("/models/m", location=other.serve("/m", b"GGUF"))
        settings = ModelSettings(
            allow_sources=(f"{hub.base}/models",), allow_private_hosts=("127.0.0.1",)
        )
        with pytest.raises(SourceNotAllowed, match="which is not allowed on this device"):
            ModelStore(tmp_path / "store", settings).ensure(
                ModelSpec(name="m", ref=f"{hub.base}/models/m", sha256=SHA256)
            )
        assert other.requests == []


def test_behind_a_proxy_a_private_address_is_refused_as_well(tmp_path, monkeypatch):
    with FakeRawServer() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        store = ModelStore(tmp_path / "store", ModelSettings())
        with pytest.raises(SourceNotAllowed, match="private network"):
            store.ensure(ModelSpec(name="m", ref="https://10.0.0.1/m.gguf", sha256=SHA256))
        assert proxy.heard == []


def test_a_proxy_that_the_owner_set_is_used_for_the_outside(tmp_path, monkeypatch):
    refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with FakeRawServer([refused]) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        guard = Guard(resolve=lambda host: [])
        order = Order("https://hub.example/m.gguf", tmp_path / "part", SHA256)
        with pytest.raises(DownloadFailed, match="403"):
            Downloader(lambda more: None, guard=guard, tries=1).fetch(order)
        assert proxy.heard[0].startswith(b"CONNECT hub.example:443 ")

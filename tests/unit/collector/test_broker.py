"""What `fleetmark broker` refuses before it starts anything, and what it hands to Mosquitto."""

import os
import socket
import stat

import pytest

from fleetmark_collector import broker
from fleetmark_collector.broker import BrokerOptions
from fleetmark_collector.broker_amqtt import check_embedded
from fleetmark_protocol.errors import BrokerFailed, ConfigError
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES
from servers import free_port


@pytest.fixture
def options(tmp_path):
    def make(host="127.0.0.1", **more) -> BrokerOptions:
        return BrokerOptions(**{"host": host, "port": free_port(), "data_dir": tmp_path, **more})

    return make


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "some file"
    file.write_text("x")
    return file


def directives(text: str) -> dict[str, str]:
    return dict(
        line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "broker.example"])
def test_a_broker_open_to_the_network_without_passwords_is_refused(options, host):
    with pytest.raises(ConfigError, match="open to everybody") as caught:
        broker.check(options(host))
    assert "--password-file" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_broker_on_this_machine_alone_needs_no_passwords(options, host):
    broker.check(options(host))


def test_with_passwords_and_tls_it_may_listen_on_the_network(options, file):
    broker.check(options("0.0.0.0", password_file=file, cert_file=file, key_file=file))


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.5"])
def test_without_tls_it_does_not_listen_on_the_network(options, file, host):
    with pytest.raises(ConfigError, match="without TLS") as caught:
        broker.check(options(host, password_file=file))
    assert "fleetmark enroll" in caught.value.hint


def test_a_port_in_use_is_named_with_a_way_out(options):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"port {port}") as caught:
            broker.check(options(port=port))
    assert "--port" in caught.value.hint


def test_a_host_that_does_not_exist_is_the_user_s_mistake(options, file):
    with pytest.raises(ConfigError, match="--host"):
        broker.check(options("nowhere.invalid", password_file=file, cert_file=file, key_file=file))


@pytest.mark.parametrize("name", ["password_file", "acl_file"])
def test_a_file_that_cannot_be_read_is_named(options, tmp_path, name):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
        broker.check(options(**{name: tmp_path / "missing"}))


def test_a_certificate_without_its_key_is_refused(options, file):
    with pytest.raises(ConfigError, match="go together"):
        broker.check(options(cert_file=file))


def test_a_file_name_cannot_smuggle_a_directive_in(options, tmp_path):
    odd = tmp_path / "x\nallow_anonymous true"
    odd.write_text("")
    with pytest.raises(ConfigError, match="line break"):
        broker.check(options(password_file=odd))


def test_mosquitto_queues_so_much_and_takes_what_the_contract_allows(options):
    given = options()
    lines = directives(broker.mosquitto_config(given))
    assert lines["listener"] == f"{given.port} 127.0.0.1"
    assert lines["max_inflight_messages"] == lines["max_queued_messages"] == "0"
    # Without a limit in flight Mosquitto does not come to the other. What waits it has twice, and
    # somebody who reads nothing must leave room for the collector.
    flight, queue = int(lines["max_inflight_bytes"]), int(lines["max_queued_bytes"])
    assert 0 < flight < queue
    assert 2 * 2 * (flight + queue) < int(lines["memory_limit"]) < 2**30
    assert int(lines["message_size_limit"]) >= MAX_PAYLOAD_BYTES
    assert lines["persistence"] == "true"
    assert lines["allow_anonymous"] == "true"


def test_with_a_password_file_nobody_is_anonymous_even_on_loopback(options, file):
    lines = directives(broker.mosquitto_config(options(password_file=file, acl_file=file)))
    assert lines["allow_anonymous"] == "false"
    assert lines["password_file"] == str(file)
    assert lines["acl_file"] == str(file)


def test_where_there_are_passwords_our_rules_keep_each_device_to_its_topics(options, file):
    lines = directives(broker.mosquitto_config(options(password_file=file)))
    assert lines["acl_file"] == str(broker.ACL)
    assert "acl_file" not in directives(broker.mosquitto_config(options()))


def test_devices_with_certificates_have_a_listener_of_their_own(options, file):
    given = options(
        "",
        password_file=file,
        cert_file=file,
        key_file=file,
        ca_file=file,
        revoked_file=file,
        certificates_port=free_port(),
    )
    first, second = broker.mosquitto_config(given).split("\nlistener ")[1:]
    assert first.startswith(f"{given.port}\n")
    assert "require_certificate" not in first
    lines = directives("listener " + second)
    assert lines["listener"] == str(given.certificates_port)
    assert lines["require_certificate"] == lines["use_identity_as_username"] == "true"
    assert lines["cafile"] == lines["crlfile"] == str(file)


def test_no_placeholder_of_the_template_is_left(options):
    assert "@" not in broker.mosquitto_config(options())


def test_two_brokers_in_one_data_directory_share_no_file(options):
    first, second = options(), options()
    assert broker.broker_dir(first) != broker.broker_dir(second)


def test_a_mosquitto_outside_of_path_is_found_and_asked_for_its_version(tmp_path, monkeypatch):
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho 'mosquitto version 2.0.99'\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(broker, "_SBIN", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    assert broker.find_mosquitto() is None
    monkeypatch.setattr(broker, "_SBIN", (str(tmp_path),))
    found = broker.find_mosquitto()
    assert (found.program, found.version) == (program, "2.0.99")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5"])
def test_the_embedded_broker_serves_this_machine_alone(options, host):
    with pytest.raises(ConfigError, match="this machine alone") as caught:
        check_embedded(options(host))
    assert "mosquitto" in caught.value.hint


def test_the_embedded_broker_does_not_pretend_to_check_passwords(options, file):
    with pytest.raises(ConfigError):
        check_embedded(options(password_file=file))

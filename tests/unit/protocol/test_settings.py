"""Settings: which source wins, and that a mistake is named with its place."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import BrokerSettings, Section, Settings, is_loopback, load


class Store(Section):
    kind: str = "sqlite"
    age_s: Annotated[float, Field(gt=0)] = 1.0


class Sample(Settings):
    data_dir: Path = Path("data")
    tags: tuple[str, ...] = ()
    broker: BrokerSettings = BrokerSettings()
    store: Store = Store()


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("FLEETMARK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path):
    def write(text, name="fleetmark.toml"):
        file = tmp_path / name
        file.write_text(text, "utf-8")
        return file

    return write


def test_flags_win_over_environment_over_file_over_defaults(toml, monkeypatch):
    file = toml('data_dir = "f"\n[broker]\nhost = "127.0.0.2"\nport = 1\nkeepalive_s = 10\n')
    monkeypatch.setenv("FLEETMARK_BROKER__PORT", "2")
    monkeypatch.setenv("FLEETMARK_BROKER__KEEPALIVE_S", "20")
    settings = load(Sample, file, {"broker": {"keepalive_s": 30}})
    assert settings.data_dir == Path("f")
    assert settings.store == Store()
    broker = settings.broker
    assert (broker.host, broker.port, broker.keepalive_s) == ("127.0.0.2", 2, 30)


def test_a_flag_not_given_hides_nothing(toml):
    file = toml('data_dir = "f"\n[broker]\nport = 1\n')
    settings = load(Sample, file, {"data_dir": None, "broker": {"port": None, "host": None}})
    assert (settings.data_dir, settings.broker.port) == (Path("f"), 1)


def test_one_load_leaves_nothing_behind_for_the_next(toml):
    assert load(Sample, toml('data_dir = "f"')).data_dir == Path("f")
    assert load(Sample, None).data_dir == Path("data")


def test_an_unknown_key_is_named_with_file_table_and_suggestion(toml):
    file = toml('[broker]\nhots = "x"\n')
    with pytest.raises(ConfigError) as caught:
        load(Sample, file)
    assert f"{file}: broker.hots: unknown key (did you mean 'host'?)" in str(caught.value)


def test_an_unknown_table_lists_the_known_ones_when_nothing_is_close(toml):
    with pytest.raises(ConfigError, match=r"zzz: unknown key \(known: broker, data_dir, store"):
        load(Sample, toml("[zzz]\n"))


def test_an_unknown_key_in_the_environment_is_a_mistake_too(monkeypatch):
    monkeypatch.setenv("FLEETMARK_BROKER__HOTS", "x")
    with pytest.raises(ConfigError, match="did you mean 'host'"):
        load(Sample, None)


def test_a_wrong_value_is_named_with_what_was_given(toml):
    with pytest.raises(ConfigError, match=r"broker\.port: .*65535.*got 70000"):
        load(Sample, toml("[broker]\nport = 70000\n"))


def test_several_mistakes_are_told_at_once(toml):
    with pytest.raises(ConfigError) as caught:
        load(Sample, toml("[broker]\nport = 0\n[store]\nage_s = -1\nkid = 1\n"))
    assert all(part in str(caught.value) for part in ("broker.port", "store.age_s", "store.kid"))


def test_a_mistake_is_named_with_the_source_it_came_from(toml, monkeypatch):
    file = toml("[broker]\nport = 0\n")
    with pytest.raises(ConfigError, match=rf"^{file}: broker\.port:"):
        load(Sample, file)
    monkeypatch.setenv("FLEETMARK_BROKER__PORT", "-1")
    with pytest.raises(ConfigError, match=r"^FLEETMARK_BROKER__PORT: broker\.port: .*'-1'"):
        load(Sample, file)
    with pytest.raises(ConfigError, match=r"^--broker-port: broker\.port: .*-2"):
        load(Sample, file, {"broker": {"port": -2}})


def test_a_table_that_does_not_fit_together_names_all_its_sources(toml):
    file = toml('[broker]\nusername = "u"\ntls = false\n')
    with pytest.raises(ConfigError) as caught:
        load(Sample, file, environ={"FLEETMARK_BROKER__HOST": "broker.example"})
    assert str(caught.value).startswith(f"FLEETMARK_BROKER__HOST, {file}: broker: would send")


def test_a_whole_table_in_the_environment_is_json_and_one_value_of_it_counts_more(toml):
    environ = {
        "FLEETMARK_BROKER__PORT": "3",
        "FLEETMARK_BROKER": '{"port": 2, "keepalive_s": 20}',
    }
    broker = load(Sample, toml('[broker]\nhost = "127.0.0.9"\n'), environ=environ).broker
    assert (broker.host, broker.port, broker.keepalive_s) == ("127.0.0.9", 3, 20)


def test_a_table_in_the_environment_names_its_variable_when_a_value_is_wrong():
    with pytest.raises(ConfigError, match=r"^FLEETMARK_BROKER: broker\.port:"):
        load(Sample, None, environ={"FLEETMARK_BROKER": '{"port": 0}'})


def test_text_in_the_environment_is_taken_as_it_is(monkeypatch):
    assert load(Sample, None, environ={"FLEETMARK_DATA_DIR": "5"}).data_dir == Path("5")
    assert load(Sample, None, environ={"FLEETMARK_STORE__KIND": "[x]"}).store.kind == "[x]"


def test_variables_of_somebody_else_are_left_alone():
    environ = {"FLEETMARK_DEVICE_ID": "pi", "FLEETMARK_CONFIG": "x.toml", "BROKER__PORT": "0"}
    assert load(Sample, None, environ=environ) == Sample()


def test_a_list_in_the_environment_that_is_no_json_is_the_users_mistake(monkeypatch):
    monkeypatch.setenv("FLEETMARK_TAGS", "a,b")
    with pytest.raises(ConfigError, match="tags"):
        load(Sample, None)


def test_a_list_in_the_environment_is_json(monkeypatch):
    monkeypatch.setenv("FLEETMARK_TAGS", '["a", "b"]')
    assert load(Sample, None).tags == ("a", "b")


def test_a_file_that_is_no_toml_is_named_with_the_line(toml):
    with pytest.raises(ConfigError, match=r"fleetmark\.toml: not TOML: .*line 2"):
        load(Sample, toml('data_dir = "x"\nport = = 1\n'))


def test_a_file_that_is_not_there_or_no_text_is_the_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load(Sample, tmp_path / "missing.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(Sample, binary)
    with pytest.raises(ConfigError):
        load(Sample, tmp_path)


def test_the_password_is_read_from_its_file_and_never_shown(tmp_path):
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    broker = BrokerSettings(username="u", password_file=file)
    assert broker.password().get_secret_value() == "s3cret"
    assert "s3cret" not in repr(broker) + repr(broker.password())
    assert BrokerSettings().password() is None
    with pytest.raises(ConfigError, match=r"broker\.password_file"):
        BrokerSettings(username="u", password_file=tmp_path / "missing").password()


def test_a_password_written_into_the_file_is_not_repeated_in_the_message(toml):
    with pytest.raises(ConfigError) as caught:
        load(Sample, toml('[broker]\npassword = "s3cret"\n'))
    assert "broker.password: unknown key" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_password_goes_in_clear_to_this_machine_only(toml):
    load(Sample, toml('[broker]\nhost = "localhost"\nusername = "u"\n'))
    with pytest.raises(ConfigError, match=r"broker: would send a password .* ca_file") as caught:
        load(Sample, toml('[broker]\nhost = "broker.example"\nusername = "u"\ntls = false\n'))
    assert "{" not in str(caught.value), "the whole table says nothing to the user"
    load(Sample, toml('[broker]\nhost = "broker.example"\nusername = "u"\nca_file = "ca.pem"\n'))


@pytest.mark.parametrize(
    ("lines", "tls", "port"),
    [
        ("", False, 1883),
        ("tls = true", True, 8883),
        ('ca_file = "ca.pem"', True, 8883),
        ('host = "broker.example"', True, 8883),
        ('host = "192.0.2.7"\nport = 1', True, 1),
        ('host = "broker.example"\ntls = false', False, 1883),
        ('host = "localhost"\nport = 8883', False, 8883),
    ],
)
def test_tls_is_the_default_off_this_machine_and_brings_its_usual_port(toml, lines, tls, port):
    broker = load(Sample, toml(f"[broker]\n{lines}\n")).broker
    assert (broker.uses_tls, broker.port) == (tls, port)


def test_tls_may_be_turned_off_by_a_variable():
    environ = {"FLEETMARK_BROKER__HOST": "broker.example", "FLEETMARK_BROKER__TLS": "false"}
    broker = load(Sample, None, environ=environ).broker
    assert (broker.uses_tls, broker.port) == (False, 1883)


@pytest.mark.parametrize("lines", ['tls = false\nca_file = "c"', 'cert_file = "c"\nkey_file = "k"'])
def test_certificates_without_tls_are_a_mistake(toml, lines):
    with pytest.raises(ConfigError, match="are for TLS, which is off"):
        load(Sample, toml(f"[broker]\n{lines}\n"))


def test_a_certificate_needs_its_key(toml):
    with pytest.raises(ConfigError, match="key_file"):
        load(Sample, toml('[broker]\nca_file = "ca.pem"\ncert_file = "c.pem"\n'))


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_only_loopback_is_this_machine(host, ours):
    assert is_loopback(host) is ours

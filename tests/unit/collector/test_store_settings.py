"""The `[store]` block: what fits together, and that no secret goes where it must not."""

from pathlib import Path

import pytest

from fleetmark_collector.config import CollectorSettings, load_settings
from fleetmark_protocol.errors import ConfigError


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("FLEETMARK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path):
    def load(block: str):
        file = tmp_path / "collector.toml"
        file.write_text(f"[store]\n{block}", "utf-8")
        return load_settings(file).store

    return load


def test_without_a_block_it_is_the_embedded_store():
    assert CollectorSettings().store.kind == "sqlite"


def test_its_kind_alone_means_the_server_that_a_package_of_the_system_starts(store):
    settings = store('kind = "influxdb"').influxdb()
    assert settings.url == "http://127.0.0.1:8086"
    assert settings.database == "fleetmark"
    assert settings.retention_policy == ""
    assert settings.on_loopback
    assert (settings.token, settings.username, settings.password) == (None, None, None)


def test_secrets_are_read_from_their_files_and_shown_nowhere(store, tmp_path):
    (tmp_path / "token").write_text("sesame\n")
    (tmp_path / "password").write_text(" open \n")
    by_token = store(f'kind = "influxdb"\ntoken_file = "{tmp_path / "token"}"').influxdb()
    assert by_token.token.get_secret_value() == "sesame"
    by_name = store(
        f'kind = "influxdb"\nusername = "bob"\npassword_file = "{tmp_path / "password"}"'
    ).influxdb()
    assert by_name.password.get_secret_value() == "open"
    assert "sesame" not in repr(by_token) + str(by_token)
    assert "open" not in repr(by_name).replace("on_loopback", "")


@pytest.mark.parametrize(
    ("bucket", "database", "policy"),
    [("fleet", "fleet", ""), ("fleet/two_years", "fleet", "two_years"), ("my data", "my data", "")],
)
def test_a_bucket_is_a_database_and_may_name_a_retention_policy(store, bucket, database, policy):
    settings = store(f'kind = "influxdb"\nbucket = "{bucket}"').influxdb()
    assert (settings.database, settings.retention_policy) == (database, policy)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ('kind = "postgres"', "store.kind"),
        ('kind = "influxdb"\ntoken = "sesame"', "did you mean 'token_file'?"),
        ('kind = "influxdb"\nurl = "127.0.0.1:8086"', "store.url"),
        ('kind = "influxdb"\nurl = "ftp://h"', "store.url"),
        ('kind = "influxdb"\nurl = "http://h:99999"', "store.url"),
        ('kind = "influxdb"\nurl = "http://h/?db=x"', "store.url"),
        ('kind = "influxdb"\nurl = "http://bob:sesame@127.0.0.1"', "password_file"),
        ('kind = "influxdb"\nbucket = ""', "store.bucket"),
        ('kind = "influxdb"\nbucket = "a/b/c"', "store.bucket"),
        ('kind = "influxdb"\nbucket = "a/"', "store.bucket"),
        ('kind = "influxdb"\nbucket = "a\\nb"', "store.bucket"),
        ('kind = "influxdb"\nusername = "bob"', "go together"),
        ('kind = "influxdb"\npassword_file = "/x"', "go together"),
        ('kind = "influxdb"\nusername = "b"\npassword_file = "/x"\ntoken_file = "/y"', "not both"),
        ('kind = "influxdb"\nca_file = "/x"', "https"),
        ('kind = "influxdb"\ntimeout_s = 0', "store.timeout_s"),
        ('url = "http://127.0.0.1:8086"', 'url: for kind = "influxdb" only'),
    ],
)
def test_a_mistake_is_named_with_its_place_and_without_secrets(store, block, says):
    with pytest.raises(ConfigError) as caught:
        store(block)
    assert says in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ('token_file = "/etc/fleetmark/token"', "a token to influx.example in clear"),
        ('username = "b"\npassword_file = "/x"', "a password to influx.example in clear"),
    ],
)
def test_a_secret_never_goes_to_another_machine_in_clear(store, secret, says):
    with pytest.raises(ConfigError, match=says):
        store(f'kind = "influxdb"\nurl = "http://influx.example:8086"\n{secret}')
    assert store(f'kind = "influxdb"\nurl = "https://influx.example:8086"\n{secret}')
    assert store(f'kind = "influxdb"\nurl = "http://127.0.0.1:8086"\n{secret}')
    assert store(f'kind = "influxdb"\nurl = "http://[::1]:8086"\n{secret}')


def test_without_a_secret_http_to_another_machine_is_the_users_own_choice(store):
    settings = store('kind = "influxdb"\nurl = "http://influx.example:8086/"').influxdb()
    assert settings.url == "http://influx.example:8086"
    assert not settings.on_loopback


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), ("", "is empty"), (" \n", "is empty"), ("a\nb\n", "one line")],
    ids=["missing", "empty", "blank", "two lines"],
)
def test_a_file_that_holds_no_secret_is_named(store, tmp_path, content, says):
    file: Path = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    settings = store(f'kind = "influxdb"\ntoken_file = "{file}"')
    with pytest.raises(ConfigError) as caught:
        settings.influxdb()
    assert "store.token_file" in str(caught.value)
    assert says in str(caught.value)


def test_the_block_comes_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("FLEETMARK_STORE__KIND", "influxdb")
    monkeypatch.setenv("FLEETMARK_STORE__BUCKET", "lab")
    assert load_settings(None).store.influxdb().database == "lab"

"""deploy/compose.yaml and its image: pinned, limited, secrets from files, paths that exist."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deployed import DEPLOY, ROOT, mosquitto_config, setup_centre
from fleetmark_collector.broker import TEMPLATE
from fleetmark_collector.config import load_settings
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES
from fleetmark_protocol.version import __version__

COMPOSE = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
ONE_SHOT = {"store-init"}

EXACT = re.compile(r"[a-z./-]+:v?\d+\.\d+\.\d+(-[a-z]+)?(@sha256:[0-9a-f]{64})?")
"""A tag that says the whole version; `2`, `2.9` and `latest` move."""

each_service = pytest.mark.parametrize("name", SERVICES)


def mounts(name):
    """(source, target, read only?) of each volume and bind mount of a service."""
    for text in SERVICES[name].get("volumes", ()):
        source, target, *mode = text.split(":")
        yield source, target, mode == ["ro"]


def secret_names():
    return [(name, secret) for name in SERVICES for secret in SERVICES[name].get("secrets", ())]


@each_service
def test_every_image_is_pinned_to_one_version(name):
    assert EXACT.fullmatch(SERVICES[name]["image"])


def test_the_image_that_is_built_has_the_version_of_this_fleetmark():
    for name in ("collector", "store-init"):
        assert SERVICES[name]["image"] == f"fleetmark-collector:{__version__}"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_every_service_has_a_health_check_and_comes_back(name):
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


@each_service
def test_every_service_has_limits_and_no_more_rights_than_it_needs(name):
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", ["collector", "store-init", "mosquitto"])
def test_what_was_tried_with_it_has_a_read_only_root(name):
    assert SERVICES[name]["read_only"] is True


@each_service
def test_every_secret_comes_from_a_file_and_no_variable_holds_one(name):
    service = SERVICES[name]
    for variable, value in (service.get("environment") or {}).items():
        if re.search(r"PASSWORD|TOKEN|SECRET|_KEY", variable):
            assert value.startswith("/run/secrets/"), variable
    for secret in service.get("secrets", ()):
        assert COMPOSE["secrets"][secret]["file"].startswith("./secrets/")


def test_every_secret_is_used_and_every_use_is_of_a_secret_that_is_there():
    assert {secret for _, secret in secret_names()} == set(COMPOSE["secrets"])
    text = (DEPLOY / "compose.yaml").read_text() + (DEPLOY / "collector/collector.toml").read_text()
    for file in set(re.findall(r"/run/secrets/([\w.-]+)", text)):
        assert file in COMPOSE["secrets"], file


def test_the_setup_script_makes_every_secret_and_directory_that_is_mounted(tmp_path):
    keep = tmp_path / "secrets"
    assert setup_centre(keep, "init", "centre.example").returncode == 0
    for secret in COMPOSE["secrets"].values():
        assert (keep / secret["file"].removeprefix("./secrets/")).is_file()
    for name in SERVICES:
        for source, _, read_only in mounts(name):
            if source.startswith("./secrets"):
                assert read_only
                assert (keep / source.removeprefix("./secrets/")).is_dir()


def test_every_file_that_is_mounted_is_in_the_repository_and_cannot_be_written():
    for name in SERVICES:
        for source, _, read_only in mounts(name):
            if source.startswith(".") and not source.startswith("./secrets"):
                assert (DEPLOY / source).exists(), source
                assert read_only, source


def test_every_volume_is_named_and_used():
    used = {s for name in SERVICES for s, _, _ in mounts(name) if not s.startswith(".")}
    assert used == set(COMPOSE["volumes"])


def test_only_the_broker_listens_to_the_network():
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            address = port.removeprefix("${").split(":-")[-1]
            if name == "mosquitto":
                assert address in ("0.0.0.0}:8883:8883", "0.0.0.0}:8884:8884")
            else:
                assert address.startswith(("127.0.0.1:", "127.0.0.1}:")), port


def test_the_broker_does_not_reach_the_database():
    assert SERVICES["mosquitto"]["networks"] == ["broker"]
    assert SERVICES["influxdb"]["networks"] == SERVICES["grafana"]["networks"] == ["store"]


def test_a_service_starts_when_what_it_needs_is_well():
    assert SERVICES["collector"]["depends_on"] == {
        "mosquitto": {"condition": "service_healthy"},
        "store-init": {"condition": "service_completed_successfully"},
    }
    assert SERVICES["store-init"]["depends_on"] == {"influxdb": {"condition": "service_healthy"}}
    assert SERVICES["grafana"]["depends_on"] == {"influxdb": {"condition": "service_healthy"}}


def test_the_collectors_settings_are_understood_and_fit_the_other_services(tmp_path):
    file = DEPLOY / "collector" / "collector.toml"
    settings = load_settings(file)
    assert settings.broker.host in SERVICES
    assert settings.store.url == "https://influxdb:8086"
    init = SERVICES["influxdb"]["environment"]
    assert settings.store.bucket == init["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert settings.store.org == init["DOCKER_INFLUXDB_INIT_ORG"]
    port = tomllib.loads(file.read_text("utf-8"))["http"]["listen"].rpartition(":")[2]
    assert f"127.0.0.1:{port}:{port}" in SERVICES["collector"]["ports"]
    assert f":{port}/healthz" in " ".join(SERVICES["collector"]["healthcheck"]["test"])
    assert str(settings.data_dir) in {target for _, target, _ in mounts("collector")}
    given = {f"/run/secrets/{name}" for name in SERVICES["collector"]["secrets"]}
    files = (
        settings.broker.password_file,
        settings.broker.ca_file,
        settings.store.token_file,
        settings.store.ca_file,
    )
    assert {str(file) for file in files} <= given


def test_the_brokers_configuration_is_what_fleetmark_asks_of_a_mosquitto(tmp_path):
    """Where `fleetmark broker` has a line, the deployment has the same."""
    ours = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text("utf-8").splitlines()
    common = TEMPLATE.read_text("utf-8").replace("@MAX_PAYLOAD_BYTES@", str(MAX_PAYLOAD_BYTES))
    for line in common.splitlines():
        assert line in ours or line.startswith("#") or not line
    assert "allow_anonymous false" in ours
    assert "listener 1 127.0.0.1\n" in mosquitto_config(tmp_path, 1, 2)


# --- the image -------------------------------------------------------------------------------

DOCKERFILE = (DEPLOY / "collector" / "Dockerfile").read_text("utf-8")


def test_the_image_is_built_from_a_pinned_python_and_pinned_packages():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base) for base in bases)
    assert "-c constraints.txt '.[collector]'" in DOCKERFILE


def test_the_image_runs_as_a_user_of_its_own_who_owns_the_data_directory():
    settings = load_settings(DEPLOY / "collector/collector.toml")
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert f"-o fleetmark -g fleetmark -m 0750 {settings.data_dir}" in DOCKERFILE


def test_everything_that_is_copied_into_the_image_is_there_and_not_ignored():
    ignore = (DEPLOY / "collector" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        part
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for part in shlex.split(line)[:-1]
    ]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignore
    assert "*" in ignore
    assert not any("deploy" in line for line in ignore), "secrets lie there"


# --- what Docker itself says -----------------------------------------------------------------


def compose_command() -> list[str] | None:
    """Docker's own reader of compose files; it needs no daemon."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker is None:
        return None
    tried = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return [docker, "compose"] if tried.returncode == 0 else None


def compose(command, **variables):
    return subprocess.run(
        [*command, "-f", str(DEPLOY / "compose.yaml"), "--env-file", "/dev/null", "config", "-q"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(Path.home()), **variables},
        check=False,
    )


def test_docker_compose_understands_the_file_and_asks_for_the_setup_first():
    command = compose_command()
    if command is None:
        pytest.skip("docker compose is not installed here")
    done = compose(command, FLEETMARK_SECRETS_GID="1000")
    assert done.returncode == 0, done.stderr
    refused = compose(command)
    assert refused.returncode != 0
    assert "setup_centre.py init" in refused.stderr

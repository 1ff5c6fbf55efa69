"""deploy/cloud-init: user data is lawful, and an instance becomes the device that it is to be."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from ruamel.yaml import YAML

from deployed import DEPLOY, ROOT
from fakes.fake_imds import FakeImds

USER_DATA = DEPLOY / "cloud-init" / "agent.yaml"
SCRIPT = DEPLOY / "cloud-init" / "ec2.py"
INSTANCE = "i-0123456789abcdef0"
KIT = {
    "agent.toml": 'tags = ["cooled"]\n[broker]\nhost = "centre"\n',
    "agent-ca.crt": "a CA\n",
    "agent-password": "a password\n",
}


@pytest.fixture
def imds():
    values = {
        "meta-data/instance-id": INSTANCE,
        "meta-data/instance-type": "t3.large",
        "meta-data/placement/region": "eu-central-1",
    }
    fake = FakeImds(values)
    yield fake
    fake.close()


class Ec2:
    """An instance on which the package is installed."""

    def __init__(self, tmp_path, imds):
        self.etc = tmp_path / "etc"
        self.restarts = tmp_path / "restarts"
        self.programs = tmp_path / "programs"
        self.programs.mkdir()
        self.aws = tmp_path / "aws.json"
        self.holds()
        self.program("systemctl", f'echo "$*" >>{self.restarts}')
        self.env = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}/tests/fakes/fake_boto3",
            "FAKE_AWS": str(self.aws),
            "FLEETMARK_EC2_ETC": str(self.etc),
            # Of this machine, so that whoever tests may give a file to it.
            "FLEETMARK_EC2_GROUP": str(os.getgid()),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url,
            # Whoever asked a proxy for metadata would tell it of himself.
            "http_proxy": "http://127.0.0.1:9",
        }

    def program(self, name, body):
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        file.chmod(0o755)

    def holds(self, ssm=None, secrets=None, s3=None, fails=()):
        held = {"ssm": ssm or {}, "secretsmanager": secrets or {}, "s3": s3 or {}}
        held["fails"] = list(fails)
        self.aws.write_text(json.dumps(held), "utf-8")

    def run(self, *words, file=SCRIPT, **env):
        command = [sys.executable, file] if file == SCRIPT else [file]
        return subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**self.env, **env},
        )

    def settings(self):
        return tomllib.loads((self.etc / "agent.toml").read_text("utf-8"))


@pytest.fixture
def ec2(tmp_path, imds):
    return Ec2(tmp_path, imds)


def parameters(kit, device=INSTANCE):
    return {f"/fleetmark/kits/{device}/{name}": text for name, text in kit.items()}


def test_a_kit_out_of_the_parameter_store_makes_the_device(ec2):
    ec2.holds(ssm=parameters(KIT))
    done = ec2.run("--kit", "ssm:/fleetmark/kits")
    assert done.returncode == 0, done.stderr
    settings = ec2.settings()
    assert settings["device_id"] == INSTANCE
    assert settings["tags"] == ["cooled", "t3-large"]
    assert settings["broker"] == {"host": "centre"}
    assert (ec2.etc / "agent-password").read_text("utf-8") == "a password\n"
    for name in KIT:
        assert (ec2.etc / name).stat().st_mode & 0o777 == 0o640
    assert ec2.restarts.read_text("utf-8") == "restart fleetmark-agent.service\n"
    assert "a password" not in done.stdout + done.stderr


def test_settings_may_end_with_their_tags_and_no_new_line(ec2):
    ec2.holds(ssm=parameters({"agent.toml": 'tags = ["cooled"]'}))
    done = ec2.run("--kit", "ssm:/fleetmark/kits")
    assert done.returncode == 0, done.stderr
    assert ec2.settings()["tags"] == ["cooled", "t3-large"]


def test_a_types_tag_is_what_the_study_of_17_types_asks_for(ec2, imds):
    study = YAML(typ="safe").load(ROOT / "campaigns" / "cloud-quantized-vs-foundation.yaml")
    ec2.holds(ssm=parameters(KIT))
    for wanted in study["targets"]["tags"][::5]:
        imds.values["meta-data/instance-type"] = wanted.replace("-", ".", 1)
        assert ec2.run("--kit", "ssm:/fleetmark/kits").returncode == 0
        assert ec2.settings()["tags"] == ["cooled", wanted]


def test_a_secret_may_hold_the_kit_and_the_instances_tags_name_the_device(ec2, imds):
    imds.values["meta-data/tags/instance/fleetmark-device"] = "node-7"
    imds.values["meta-data/tags/instance/fleetmark-tags"] = "study, Not Lawful,  spot"
    ec2.holds(secrets={"fleet/node-7": json.dumps(KIT)})
    done = ec2.run("--kit", "secret:fleet")
    assert done.returncode == 0, done.stderr
    assert ec2.settings()["device_id"] == "node-7"
    assert ec2.settings()["tags"] == ["cooled", "t3-large", "study", "spot"]


def test_a_kit_may_lie_in_a_directory_and_come_late(ec2, tmp_path):
    place = tmp_path / "kits"
    later = f"sleep 0.5; mkdir -p {place}/{INSTANCE}; echo >{place}/{INSTANCE}/agent.toml"
    with subprocess.Popen(["sh", "-c", later]):
        done = ec2.run("--kit", f"file:{place}", "--wait-s", "20")
    assert done.returncode == 0, done.stderr
    assert f"waiting for the kit of {INSTANCE}" in done.stderr
    assert ec2.settings() == {"device_id": INSTANCE, "tags": ["t3-large"]}


DENIED = "AccessDeniedException: no identity-based policy\nallows ssm:GetParametersByPath"


def test_a_role_that_is_not_known_everywhere_yet_is_waited_for(ec2):
    fails = [
        ("NoCredentialsError", "Unable to locate credentials"),
        ("EndpointConnectionError", "Could not connect to the endpoint URL"),
        ("ClientError", DENIED),
    ]
    ec2.holds(ssm=parameters(KIT), fails=fails)
    done = ec2.run("--kit", "ssm:/fleetmark/kits", "--wait-s", "5")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("waiting for the kit") == len(fails)
    assert ec2.settings()["device_id"] == INSTANCE


def test_what_aws_refuses_to_the_end_is_its_last_word_in_one_line(ec2):
    ec2.holds(secrets={f"fleet/{INSTANCE}": json.dumps(KIT)}, fails=[("ClientError", DENIED)] * 99)
    done = ec2.run("--kit", "secret:fleet", "--wait-s", "0.1")
    assert done.returncode == 1
    *waited, last = done.stderr.splitlines()
    assert waited
    assert all(line.startswith("waiting for the kit") for line in waited)
    assert "policy allows ssm:GetParametersByPath; the kit of" in last


def test_at_a_later_boot_a_new_type_takes_the_place_of_the_old_one(ec2, imds):
    ec2.holds(ssm=parameters(KIT))
    assert ec2.run("--kit", "ssm:/fleetmark/kits").returncode == 0
    assert ec2.run().returncode == 0
    imds.values["meta-data/instance-type"] = "m7g.2xlarge"
    assert ec2.run().returncode == 0
    assert ec2.settings()["tags"] == ["cooled", "m7g-2xlarge"]
    # Where nothing is new the service is left in peace.
    assert ec2.restarts.read_text("utf-8").count("restart") == 2


@pytest.mark.parametrize(
    ("kit", "said"),
    [
        ({**KIT, "agent.toml": 'device_id = "other"'}, "the kit is that of 'other'"),
        ({**KIT, "agent.toml": "tags = ["}, "agent.toml: "),
        ({**KIT, "authorized_keys": "x"}, "not authorized_keys"),
    ],
)
def test_a_kit_that_is_not_ours_is_refused_whole(ec2, kit, said):
    ec2.holds(ssm=parameters(kit))
    done = ec2.run("--kit", "ssm:/fleetmark/kits")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not ec2.etc.exists() or not list(ec2.etc.iterdir())


def test_without_a_kit_or_metadata_it_says_so_in_a_line(ec2, imds):
    done = ec2.run("--kit", "ssm:/fleetmark/kits", "--wait-s", "0")
    assert done.returncode == 1
    assert f"no parameter /fleetmark/kits/{INSTANCE}/agent.toml" in done.stderr
    gone = ec2.run(AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    assert ec2.run("--kit", "http://x").returncode == 2


def user_data():
    return YAML(typ="safe").load(USER_DATA)


def written(path):
    (file,) = (each for each in user_data()["write_files"] if each["path"] == path)
    return file["content"]


def test_cloud_init_takes_the_user_data_for_such():
    assert USER_DATA.read_text("utf-8").startswith("#cloud-config\n")
    # What EC2 takes, in bytes.
    assert USER_DATA.stat().st_size < 16384
    data = user_data()
    assert set(data) == {"write_files", "package_update", "packages", "runcmd"}
    assert data["runcmd"] == ["/usr/local/sbin/fleetmark-ec2-install"]
    for file in data["write_files"]:
        # As a number YAML would take it for an octal one, or not.
        assert isinstance(file["permissions"], str)
        if file["content"].startswith("#!/bin/sh"):
            assert file["permissions"] == "0755"
            checked = subprocess.run(["sh", "-n"], input=file["content"], text=True, check=False)
            assert checked.returncode == 0


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="cloud-init is not installed here")
def test_cloud_inits_own_schema_allows_the_user_data():
    command = ["cloud-init", "schema", "--config-file", USER_DATA]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def boot(ec2, tmp_path):
    """Runs the script that the user data have cloud-init write and run, with other settings."""
    package = tmp_path / "fleetmark-agent_1.0_arm64.deb"
    package.write_bytes(b"a package")
    script = tmp_path / "install"
    text = written("/usr/local/sbin/fleetmark-ec2-install")
    script.write_text(text.replace("/usr/lib/fleetmark-agent/ec2.py", "made-a-device"), "utf-8")
    script.chmod(0o755)
    ec2.program("dpkg", "echo arm64")
    ec2.program("apt-get", 'for word; do :; done; cp "$word" "$HOME/installed"')
    ec2.program("made-a-device", 'echo "$*" >"$HOME/device"')

    def run(**changes):
        conf = tmp_path / "conf"
        settings = {
            "PACKAGE": f"file://{tmp_path}/fleetmark-agent_1.0_ARCH.deb",
            "SHA256_amd64": "0" * 64,
            "SHA256_arm64": hashlib.sha256(b"a package").hexdigest(),
            "KIT": "ssm:/fleetmark/kits",
            **changes,
        }
        names = [line.split("=")[0] for line in written("/etc/fleetmark-ec2.conf").splitlines()]
        assert set(settings) == {name for name in names if not name.startswith("#")}
        conf.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), "utf-8")
        return ec2.run(file=script, FLEETMARK_EC2_CONF=str(conf), HOME=str(tmp_path))

    return run


@pytest.mark.parametrize("way", ["file://{}", "{}", "s3://bucket/a/{}"])
def test_the_package_of_this_architecture_is_fetched_checked_and_installed(
    boot, ec2, tmp_path, way
):
    here = str(tmp_path / "fleetmark-agent_1.0_arm64.deb")
    ec2.holds(s3={f"bucket/a/{here}": here})
    ec2.program("python3", f'exec {sys.executable} "$@"')
    done = boot(PACKAGE=way.format(tmp_path / "fleetmark-agent_1.0_ARCH.deb"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed").read_bytes() == b"a package"
    assert (tmp_path / "device").read_text("utf-8") == "--kit ssm:/fleetmark/kits\n"


def test_a_bucket_that_the_role_may_not_read_yet_is_asked_again(boot, ec2, tmp_path):
    here = str(tmp_path / "fleetmark-agent_1.0_arm64.deb")
    refused = ("ClientError", "AccessDenied")
    ec2.holds(s3={f"bucket/a/{here}": here}, fails=[refused, refused])
    ec2.program("python3", f'exec {sys.executable} "$@"')
    ec2.env["FLEETMARK_EC2_RETRY_S"] = "0"
    done = boot(PACKAGE=f"s3://bucket/a/{tmp_path}/fleetmark-agent_1.0_ARCH.deb")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed").read_bytes() == b"a package"


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"SHA256_arm64": "1" * 64}, 1, "is not what SHA256_arm64 says"),
        ({"SHA256_arm64": ""}, 2, "SHA256_arm64 is not set"),
        ({"PACKAGE": "/gone/ARCH.deb"}, 1, "/gone/arm64.deb"),
    ],
)
def test_what_is_not_the_package_is_not_installed(boot, tmp_path, changes, code, said):
    done = boot(**changes)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "installed").exists()

#!/usr/bin/env python3
"""Gives the agent on an EC2 instance its identity: who it is, its kit, its type as a tag.

    ec2.py [--kit ssm:/PATH | secret:NAME | file:DIRECTORY] [--wait-s N]

A kit is what `fleetmark enroll DEVICE` makes. DEVICE is the instance's tag `fleetmark-device` where
metadata show tags, else the instance's id. The kit of DEVICE is looked for

    ssm:/PATH         in SSM Parameter Store, a parameter for each file: /PATH/DEVICE/agent.toml ...
    secret:NAME       in Secrets Manager, NAME/DEVICE: a JSON object, file name -> content
    file:DIRECTORY    in DIRECTORY/DEVICE, else in DIRECTORY itself

by the rights of the instance's role (python3-boto3), again and again for N seconds (1800): it may
be made after the instance. Without --kit only the tags are brought up to date, as at each boot.

Exit codes: 0 done, 1 it failed, 2 wrong options or a kit that cannot be taken.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

SETTINGS = Path(os.environ.get("FLEETMARK_EC2_ETC", "/etc/fleetmark"))
METADATA = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
GROUP = os.environ.get("FLEETMARK_EC2_GROUP", "fleetmark-agent")
FILES = ("agent-ca.crt", "agent-password", "agent.crt", "agent.key", "agent.toml")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Wrong(Exception):
    """What the operator has to put right."""


class NotThere(Exception):
    """It may come: try again."""


class Instance:
    """What the instance's metadata tell (IMDSv2: with a token)."""

    def __init__(self) -> None:
        # Never through a proxy: it would tell of itself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        self._token = self._ask("PUT", "/latest/api/token", headers)

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(METADATA + path, method=method, headers=headers)  # noqa: S310 - http alone
        with self._opener.open(request, timeout=5) as answer:
            return str(answer.read().decode())

    def get(self, path: str, default: str | None = None) -> str:
        """Return a value; where there is none, the default."""
        try:
            headers = {"X-aws-ec2-metadata-token": self._token}
            return self._ask("GET", f"/latest/meta-data/{path}", headers)
        except urllib.error.HTTPError as error:
            if error.code != 404 or default is None:
                raise
            return default

    def device(self) -> str:
        """Return the device's id."""
        name = self.get("tags/instance/fleetmark-device", "") or self.get("instance-id")
        if not NAME.fullmatch(name):
            raise Wrong(f"{name!r} is no device id: a-z, 0-9, _ and -, at most 63")
        return name

    def tags(self) -> list[str]:
        """Return the type (`t3.large` becomes `t3-large`) and the tag `fleetmark-tags`."""
        own = self.get("tags/instance/fleetmark-tags", "").split(",")
        kind = self.get("instance-type").replace(".", "-")
        return [kind, *(tag.strip() for tag in own if NAME.fullmatch(tag.strip()))]


def from_parameters(path: str, device: str, region: str) -> dict[str, str]:
    """Read a kit from SSM Parameter Store."""
    import boto3

    pages = boto3.client("ssm", region_name=region).get_paginator("get_parameters_by_path")
    found = {
        each["Name"].rsplit("/", 1)[-1]: each["Value"]
        for page in pages.paginate(Path=f"{path.rstrip('/')}/{device}", WithDecryption=True)
        for each in page["Parameters"]
    }
    if "agent.toml" not in found:
        raise NotThere(f"no parameter {path.rstrip('/')}/{device}/agent.toml")
    return found


def from_secret(name: str, device: str, region: str) -> dict[str, str]:
    """Read a kit from Secrets Manager."""
    import boto3

    client = boto3.client("secretsmanager", region_name=region)
    try:
        text = client.get_secret_value(SecretId=f"{name}/{device}")["SecretString"]
    except client.exceptions.ResourceNotFoundException:
        raise NotThere(f"no secret {name}/{device}") from None
    return dict(json.loads(text))


def from_directory(directory: str, device: str) -> dict[str, str]:
    """Read a kit from files that are here."""
    own = Path(directory) / device
    place = own if own.is_dir() else Path(directory)
    found = {name: place / name for name in FILES if (place / name).is_file()}
    if "agent.toml" not in found:
        raise NotThere(f"no {place}/agent.toml")
    return {name: file.read_text("utf-8") for name, file in found.items()}


def may_pass() -> tuple[type[Exception], ...]:
    """Return what AWS' library raises: a role takes minutes until it is known everywhere."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError:
        return ()
    return (BotoCoreError, ClientError)


def fetch(kit: str, device: str, region: str, wait_s: float) -> dict[str, str]:
    """Read a kit, waiting until there is one."""
    kind, _, place = kit.partition(":")
    end = time.monotonic() + wait_s
    while True:
        try:
            if kind == "file":
                return from_directory(place, device)
            read = {"ssm": from_parameters, "secret": from_secret}[kind]
            return read(place, device, region)
        except (NotThere, OSError, *may_pass()) as error:
            # Some of AWS' words have several lines.
            said = " ".join(str(error).split())
            if time.monotonic() >= end:
                raise NotThere(
                    f"{said}; the kit of {device} is made by `fleetmark enroll`"
                ) from None
            print(f"waiting for the kit of {device}: {said}", file=sys.stderr, flush=True)
            time.sleep(min(20.0, max(0.1, wait_s / 10)))


def tagged(text: str, device: str, tags: list[str]) -> str:
    """Return settings with these tags added, for this device and no other."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Wrong(f"agent.toml: {error}") from None
    named = settings.get("device_id", device)
    if named != device:
        raise Wrong(f"the kit is that of {named!r}, this is {device!r}: each device has its own")
    # Of the type that the instance had before nothing shall stay.
    marked = re.search(r"^tags = .*# of this instance: (\[.*\])$", text, re.MULTILINE)
    former = json.loads(marked[1]) if marked else []
    kept = [tag for tag in settings.get("tags", []) if tag not in former]
    merged = list(dict.fromkeys([*kept, *tags]))
    if (settings.get("device_id"), settings.get("tags")) == (device, merged):
        return text
    head = f"tags = {json.dumps(merged)}  # of this instance: {json.dumps(tags)}\n"
    if "device_id" not in settings:
        head = f"device_id = {json.dumps(device)}\n{head}"
    new = head + re.sub(r"(?ms)^tags\s*=\s*\[.*?\][^\n]*(?:\n|\Z)", "", text, count=1)
    if tomllib.loads(new).get("tags") != merged:
        raise Wrong("agent.toml: its tags cannot be told apart from the rest")
    return new


def put(name: str, text: str) -> None:
    """Write a file for the agent's eyes alone, whole or not at all."""
    part = SETTINGS / f"{name}.part"
    part.touch(mode=0o600)
    part.chmod(0o640)
    part.write_text(text, "utf-8")
    shutil.chown(part, group=int(GROUP) if GROUP.isdigit() else GROUP)
    part.replace(SETTINGS / name)


def main() -> None:
    """Do it; what goes wrong is one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kit",
        type=lambda text: (
            text
            if re.match("(ssm|secret|file):.", text)
            else parser.error("--kit: ssm:/PATH, secret:NAME or file:DIRECTORY")
        ),
    )
    parser.add_argument("--wait-s", type=float, default=1800)
    options = parser.parse_args()
    try:
        instance = Instance()
        device, tags = instance.device(), instance.tags()
        if options.kit:
            region = instance.get("placement/region")
            files = fetch(options.kit, device, region, options.wait_s)
            if strange := sorted(set(files) - set(FILES)):
                raise Wrong(f"a kit holds {', '.join(FILES)}; not {', '.join(strange)}")
        else:
            files = {"agent.toml": (SETTINGS / "agent.toml").read_text("utf-8")}
        before = files["agent.toml"] if not options.kit else ""
        files["agent.toml"] = tagged(files["agent.toml"], device, tags)
        if files["agent.toml"] == before:
            return
        SETTINGS.mkdir(exist_ok=True)
        # The settings last: they name the others.
        for name in sorted(files):
            put(name, files[name])
        subprocess.run(["systemctl", "restart", "fleetmark-agent.service"], check=True)  # noqa: S607 - PATH of a boot
        print(f"fleetmark: {device}, tags {', '.join(tags)}")
    except Wrong as error:
        print(f"fleetmark: {error}", file=sys.stderr)
        sys.exit(2)
    except NotThere as error:
        print(f"fleetmark: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        print(f"fleetmark: {error.name} is missing: apt install python3-boto3", file=sys.stderr)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - a boot's log wants a line, not a traceback
        print(f"fleetmark: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

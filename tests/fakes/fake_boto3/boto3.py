"""AWS' library for Python: what a role may read stands in the file that FAKE_AWS names."""

import json
import os
from pathlib import Path

from botocore import exceptions


class ResourceNotFoundException(exceptions.ClientError):
    """No such secret."""


class _Exceptions:
    ResourceNotFoundException = ResourceNotFoundException


class _Client:
    exceptions = _Exceptions

    def __init__(self, service: str) -> None:
        file = Path(os.environ["FAKE_AWS"])
        held = json.loads(file.read_text("utf-8"))
        self._held = held[service]
        if held["fails"]:
            # One of them at each attempt.
            (name, said), *held["fails"] = held["fails"]
            file.write_text(json.dumps(held), "utf-8")
            raise getattr(exceptions, name)(said)

    def get_paginator(self, name: str) -> "_Client":
        assert name == "get_parameters_by_path"
        return self

    def paginate(self, *, Path: str, WithDecryption: bool) -> list[dict[str, object]]:  # noqa: N803
        found = [
            {"Name": name, "Value": value if WithDecryption else "encrypted"}
            for name, value in self._held.items()
            if name.startswith(f"{Path}/")
        ]
        # A page may be empty, and one kit may come on several.
        return [{"Parameters": []}, *({"Parameters": [each]} for each in found)]

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803
        if SecretId not in self._held:
            raise ResourceNotFoundException
        return {"SecretString": self._held[SecretId]}

    def download_file(self, bucket: str, key: str, file: str) -> None:
        Path(file).write_bytes(Path(self._held[f"{bucket}/{key}"]).read_bytes())


def client(service: str, region_name: str | None = None) -> _Client:
    """Return the client of a service."""
    assert service == "s3" or region_name
    return _Client(service)

"""A small CA and the certificates of the centre's servers, made with openssl.

Devices get theirs from `fleetmark enroll`, which signs with the same CA.
"""

import ipaddress
import json
import secrets
import subprocess
import tempfile
from pathlib import Path

from centre.telling import Wrong, say
from fleetmark_collector.enrolment.keep import Keep

CA_DAYS = 7300
SERVER_DAYS = 825
RENEW_DAYS = 30
"""A certificate that ends sooner is made anew."""

BROKERS_CA = "broker/ca.crt"
REVOKED = "broker/revoked.crl"

_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""

_REVOCATIONS = """\
[ca]
default_ca = own
[own]
database = {index}
default_md = sha256
"""

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def make_ca(keep: Keep) -> None:
    """Make ca.crt and ca.key, if there is no CA yet; its key may lie in a safe place.

    Raises:
        Wrong: openssl failed.
    """
    if keep.has("ca.crt"):
        return
    with tempfile.TemporaryDirectory() as work:
        config, key, cert = (Path(work) / name for name in ("cnf", "key", "crt"))
        config.write_text(_CONFIG.format(name="fleetmark CA", names="DNS:none"), "ascii")
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-config", config, "-extensions", "ca"),
            *("-days", CA_DAYS, "-keyout", key, "-out", cert),
        )
        keep.write("ca.key", key.read_text("ascii"), 0o600)
        keep.write("ca.crt", cert.read_text("ascii"), 0o644)
    say(f"made {keep.path('ca.crt')}: every device needs a copy; ca.key never leaves this machine")


def make_revocations(keep: Keep) -> None:
    """Give the broker the CA of client certificates, and the list of revoked ones: still empty.

    Raises:
        Wrong: openssl failed, or the list is lost and would have to name some.
    """
    ca = keep.read("ca.crt") + "\n"
    there = keep.has(BROKERS_CA) and keep.has(REVOKED)
    if there and keep.path(BROKERS_CA).read_text("ascii") == ca:
        return
    # With another CA those of the old one count no more anyhow.
    if not there and _revoked_some(keep):
        raise Wrong(
            f"{keep.path(REVOKED)} or {keep.path(BROKERS_CA)} is lost, and certificates have "
            "been revoked: the next `fleetmark enroll` makes both from identities.json; then run "
            "this again"
        )
    _need_key(keep)
    with tempfile.TemporaryDirectory() as work:
        config, index, made = (Path(work) / name for name in ("cnf", "index", "crl"))
        config.write_text(_REVOCATIONS.format(index=index), "ascii")
        index.touch()
        _openssl(
            *("ca", "-config", config, "-gencrl", "-crldays", CA_DAYS, "-out", made),
            *("-cert", keep.path("ca.crt"), "-keyfile", keep.path("ca.key")),
        )
        keep.write(REVOKED, made.read_text("ascii"))
    keep.write(BROKERS_CA, ca)


def make_server(keep: Keep, directory: str, names: list[str]) -> None:
    """Make DIRECTORY/server.crt and server.key, if they are missing, old, or for other names.

    Raises:
        Wrong: openssl failed.
    """
    kinds = [f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in dict.fromkeys(names)]
    if _still_good(keep, directory, kinds):
        return
    _need_key(keep)
    with tempfile.TemporaryDirectory() as work:
        config, key, request, cert = (Path(work) / name for name in ("cnf", "key", "csr", "crt"))
        text = _CONFIG.format(name=f"fleetmark {directory}", names=",".join(kinds))
        config.write_text(text, "ascii")
        _openssl("req", "-new", *_NEW_KEY, "-config", config, "-keyout", key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-out", cert, "-days", SERVER_DAYS, "-sha256"),
            *("-CA", keep.path("ca.crt"), "-CAkey", keep.path("ca.key")),
            *("-set_serial", f"0x{secrets.token_hex(16)}"),
            *("-extfile", config, "-extensions", "server"),
        )
        keep.write(f"{directory}/server.key", key.read_text("ascii"))
        keep.write(f"{directory}/server.crt", cert.read_text("ascii"))
        keep.write(f"{directory}/server.names", "\n".join(kinds) + "\n")
    say(f"made {keep.path(directory)}/server.crt for {', '.join(kinds)}")


def _revoked_some(keep: Keep) -> bool:
    try:
        return keep.has("identities.json") and bool(
            json.loads(keep.read("identities.json"))["revoked"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Wrong(
            f"{keep.path('identities.json')} is damaged: put it back from a backup"
        ) from error


def _need_key(keep: Keep) -> None:
    if not keep.has("ca.key"):
        raise Wrong(f"{keep.path('ca.key')} is needed: put it back for as long as this takes")


def _still_good(keep: Keep, directory: str, kinds: list[str]) -> bool:
    files = [f"{directory}/server.{end}" for end in ("crt", "key", "names")]
    if not all(keep.has(file) for file in files) or keep.read(files[2]).split() != kinds:
        return False
    cert = keep.path(files[0])
    fresh = ("x509", "-noout", "-checkend", RENEW_DAYS * 86400, "-in", cert)
    signed = ("verify", "-CAfile", keep.path("ca.crt"), cert)
    return all(_try_openssl(*args).returncode == 0 for args in (fresh, signed))


def _try_openssl(*args: object) -> "subprocess.CompletedProcess[str]":
    command = ["openssl", *map(str, args)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Wrong("there is no openssl here: install it") from error


def _openssl(*args: object) -> None:
    done = _try_openssl(*args)
    if done.returncode != 0:
        raise Wrong(f"openssl {args[0]}: {done.stderr.strip()}")

"""TLS towards the broker as the settings say, and what is wrong with the files that they name."""

import ssl
from pathlib import Path

from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.secretfile import check_private, check_readable
from fleetmark_protocol.settings import BrokerSettings


def client_context(broker: BrokerSettings) -> ssl.SSLContext | None:
    """Return how to speak TLS with the broker; None where none is spoken.

    Whether a certificate counts today is left to the handshake: a clock may become right.

    Raises:
        ConfigError: a file cannot be used; names it.
    """
    if not broker.uses_tls:
        return None
    if broker.ca_file is not None:
        check_readable("broker.ca_file", broker.ca_file)
    try:
        # Without a file, whoever the system believes in.
        context = ssl.create_default_context(cafile=broker.ca_file)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"broker.ca_file: {broker.ca_file} holds no certificate in PEM",
            hint="it is the CA's certificate (ca.crt) that the collector made",
        ) from error
    # Python 3.13 sets it: it refuses CAs without the extensions that RFC 5280 asks for, as many
    # make them by hand. What a certificate is trusted for hangs on who signed it, not on this.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if broker.cert_file is not None and broker.key_file is not None:
        check_readable("broker.cert_file", broker.cert_file)
        check_readable("broker.key_file", broker.key_file)
        check_private("broker.key_file", broker.key_file)
        _load(context, broker.cert_file, broker.key_file)
    return context


def _load(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    asked = []

    def no_passphrase() -> str:
        # Without this, OpenSSL would ask for one on the terminal.
        asked.append(key_file)
        return ""

    try:
        context.load_cert_chain(cert_file, key_file, no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            said = f"broker.key_file: {key_file} is locked with a passphrase"
            hint = "nobody is there to type it: give a key without one, readable by the service"
        elif getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            said = f"broker.key_file: {key_file} is not the key of {cert_file}"
            hint = "copy both again: they are made together"
        elif not _has(cert_file, b"CERTIFICATE-----"):
            said, hint = f"broker.cert_file: {cert_file} holds no certificate in PEM", None
        elif not _has(key_file, b"PRIVATE KEY-----"):
            said, hint = f"broker.key_file: {key_file} holds no private key in PEM", None
        else:
            reason = getattr(error, "reason", None) or str(error)
            said = f"broker.cert_file, key_file: {reason.replace('_', ' ').lower()}"
            hint = f"is one of {cert_file} and {key_file} damaged?"
        raise ConfigError(said, hint=hint) from error


def _has(file: Path, mark: bytes) -> bool:
    return mark in file.read_bytes()

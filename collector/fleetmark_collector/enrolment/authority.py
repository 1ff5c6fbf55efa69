"""The small CA: certificates of the broker and of devices, and the list of those that are revoked.

`deploy/setup_centre.py` makes the same CA with openssl, for hosts of containers, which have no
library for it; either is good for the other.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetmark_collector.enrolment.keep import Keep
from fleetmark_protocol.errors import ConfigError

CA_DAYS = 7300
"""Twice the longest identity, so that one can be had until the CA is half way."""
SERVER_DAYS = 825
RENEW_DAYS = 30
"""A server's certificate that ends sooner is made anew."""
BACKDATED = timedelta(days=1)
"""Certificates begin so long ago: clocks of devices are not exact."""

CERTIFICATE, KEY = "ca.crt", "ca.key"
BROKERS_COPY = "broker/ca.crt"
REVOKED = "broker/revoked.crl"
SERVER = "broker/server"

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, as PEM.

    Attributes:
        serial: in hexadecimal.
        ends: when it counts no more.
    """

    certificate: str
    key: str
    serial: str
    ends: datetime


class Authority:
    """Signs with the key that lies in a directory of secrets."""

    def __init__(self, keep: Keep, clock: Clock) -> None:
        """Make nothing yet.

        Args:
            keep: where the CA lies.
            clock: now, with a time zone.
        """
        self._keep = keep
        self._clock = clock

    @property
    def can_sign(self) -> bool:
        """Whether the CA's key is here; its owner may have put it in a safe place."""
        return self._keep.has(KEY)

    def make(self) -> None:
        """Make the CA, if there is none."""
        if self._keep.has(CERTIFICATE):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("fleetmark CA")
        usage = _usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            self._unsigned(name, name, key, self._clock() + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        self._keep.write(KEY, _pem(key), 0o600)
        self._keep.write(CERTIFICATE, _pem(certificate), 0o644)
        self._keep.say(f"made a CA: {self._keep.path(CERTIFICATE)}")

    def prepare_broker(self, names: Iterable[str], revoked: Mapping[str, datetime]) -> None:
        """Make what the broker needs, where it is missing, ends soon, or is for other names.

        Without the CA's key, what still serves is left as it is.

        Args:
            names: that clients reach the broker by.
            revoked: serial number -> when it was revoked, of those that the list must hold.

        Raises:
            ConfigError: what the broker cannot do without must be made, and the key is not here.
        """
        names = list(dict.fromkeys(names))
        ca = self._keep.read(CERTIFICATE) + "\n"
        if not self._keep.has(BROKERS_COPY) or self._keep.read(BROKERS_COPY) + "\n" != ca:
            self._keep.write(BROKERS_COPY, ca)
        incomplete = self.can_sign and not set(revoked) <= self.listed()
        if incomplete or not self._keep.has(REVOKED):
            self.revoke(revoked)
        until = self._serves_until(names)
        # With the CA's own end nothing is won by another one.
        due = until is not None and until - self._clock() <= timedelta(days=RENEW_DAYS)
        renew = until is not None and due and until < self.ends
        if until is not None and due and not (renew and self.can_sign):
            self._keep.say(
                f"{self._keep.path(SERVER)}.crt ends on {until:%Y-%m-%d}"
                + (": put ca.key back, to have it made anew" if renew else ", as the CA does")
            )
        elif until is None or renew:
            issued = self._issue(
                "fleetmark broker",
                ExtendedKeyUsageOID.SERVER_AUTH,
                min(self._clock() + timedelta(days=SERVER_DAYS), self.ends),
                x509.SubjectAlternativeName([_general(name) for name in names]),
            )
            self._keep.write(f"{SERVER}.key", issued.key)
            self._keep.write(f"{SERVER}.crt", issued.certificate)
            self._keep.say(f"made {self._keep.path(SERVER)}.crt for {', '.join(names)}")

    def issue(self, device: str, ends: datetime) -> Issued:
        """Return a client certificate for a device: its name is the device's id.

        Raises:
            ConfigError: the CA ends before, or its key is not here.
        """
        if ends > self.ends:
            raise ConfigError(
                f"--days: the CA itself ends on {self.ends:%Y-%m-%d}",
                hint="docs/operate.md tells how to change the CA",
            )
        return self._issue(device, ExtendedKeyUsageOID.CLIENT_AUTH, ends)

    def revoke(self, serials: Mapping[str, datetime]) -> None:
        """Say which certificates count no more: all of them, each time.

        Args:
            serials: serial number -> when it was revoked.

        Raises:
            ConfigError: the CA's key is not here.
        """
        # Whoever reads the list reads it from this disk; an end would only lock everybody out.
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._ca().subject)
            .last_update(self._clock() - BACKDATED)
            .next_update(self.ends)
        )
        for serial, when in sorted(serials.items()):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(serial, 16))
                .revocation_date(when)
                .build()
            )
        self._keep.write(REVOKED, _pem(builder.sign(self._key(), hashes.SHA256())))

    def listed(self) -> set[str]:
        """Return the serial numbers on the list that the broker reads, if it is this CA's."""
        try:
            crl = x509.load_pem_x509_crl(self._keep.path(REVOKED).read_bytes())
        except (FileNotFoundError, ValueError):
            return set()
        key = self._ca().public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not crl.is_signature_valid(key):
            return set()
        return {f"{one.serial_number:x}" for one in crl}

    @property
    def ends(self) -> datetime:
        """When the CA ends."""
        return self._ca().not_valid_after_utc

    def _serves_until(self, names: list[str]) -> datetime | None:
        """Return the end of the broker's certificate; None where it needs another one."""
        if not (self._keep.has(f"{SERVER}.crt") and self._keep.has(f"{SERVER}.key")):
            return None
        try:
            mine = x509.load_pem_x509_certificate(self._keep.read(f"{SERVER}.crt").encode())
            mine.verify_directly_issued_by(self._ca())
            found = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # noqa: BLE001 - whatever is wrong with it, another one mends it
            return None
        wanted = {_general(name) for name in names}
        ends = mine.not_valid_after_utc
        return ends if wanted <= set(found) and ends > self._clock() else None

    def _issue(
        self,
        name: str,
        purpose: x509.ObjectIdentifier,
        ends: datetime,
        names: x509.SubjectAlternativeName | None = None,
    ) -> Issued:
        ca, ca_key = self._ca(), self._key()
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._unsigned(_name(name), ca.subject, key, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        made = builder.sign(ca_key, hashes.SHA256())
        return Issued(_pem(made), _pem(key), f"{made.serial_number:x}", made.not_valid_after_utc)

    def _unsigned(
        self, name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, ends: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._clock() - BACKDATED)
            .not_valid_after(ends)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )

    def _ca(self) -> x509.Certificate:
        file = self._keep.path(CERTIFICATE)
        try:
            return x509.load_pem_x509_certificate(file.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{file}: no certificate") from error

    def _key(self) -> ec.EllipticCurvePrivateKey:
        file = self._keep.path(KEY)
        try:
            key = serialization.load_pem_private_key(file.read_bytes(), None)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{file} is not there, and nothing can be signed without it",
                hint="put it back from its safe place, for as long as this takes",
            ) from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{file}: no private key, or one with a passphrase") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{file}: not a key on an elliptic curve, as fleetmark makes them")
        return key


def now_utc() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(
    made: x509.Certificate | x509.CertificateRevocationList | ec.EllipticCurvePrivateKey,
) -> str:
    if isinstance(made, ec.EllipticCurvePrivateKey):
        return made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii")
    return made.public_bytes(serialization.Encoding.PEM).decode("ascii")

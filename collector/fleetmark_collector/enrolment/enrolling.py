"""Lets devices in, and out again: what belongs to an identity is made and removed together."""

import errno
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from fleetmark_collector.enrolment import brokeracl, brokerusers, kit, place, registry
from fleetmark_collector.enrolment.authority import Authority, Clock, now_utc
from fleetmark_collector.enrolment.directories import default_directory
from fleetmark_collector.enrolment.keep import Keep
from fleetmark_collector.enrolment.kit import Kit
from fleetmark_collector.enrolment.registry import Identity, Registry
from fleetmark_collector.enrolment.wish import USUAL, Wish, check_device, check_wish
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import is_name

__all__ = ["Enrolment", "Wish"]


class Enrolment:
    """The identities in one directory."""

    def __init__(self, keep: Keep, clock: Clock) -> None:
        """Change nothing yet; see `open`."""
        self.keep = keep
        self._clock = clock
        self._authority = Authority(keep, clock)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        directory: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        clock: Clock = now_utc,
    ) -> "Enrolment":
        """Return the identities of this machine's centre; makes nothing yet.

        Args:
            data_dir: the collector's.
            directory: where they lie; None: where `default_directory` says.
            say: is told what was made; never a secret.
            clock: now.
        """
        there = (directory or default_directory(data_dir)).absolute()
        try:
            found = there.stat()
        except OSError:
            return cls(Keep(there, None, say), clock)
        shared = found.st_mode & (stat.S_IRGRP | stat.S_IXGRP)
        return cls(Keep(there, found.st_gid if shared else None, say), clock)

    def identities(self) -> list[Identity]:
        """Return who is enrolled, by name.

        Raises:
            ConfigError: the directory cannot be read.
        """
        with self._told():
            known = self._registry().identities
        return [known[device] for device in sorted(known)]

    def find(self, device: str) -> Identity | None:
        """Return a device's identity; None for who is not enrolled.

        Raises:
            ConfigError: the directory cannot be read.
        """
        with self._told():
            return self._registry().identities.get(device)

    def expired(self) -> list[str]:
        """Return whose identities have ended."""
        now = self._clock()
        return [one.device for one in self.identities() if one.state(now) == "ended"]

    def check(
        self,
        devices: Iterable[str],
        renew: bool = False,
        wish: Wish = USUAL,
        hosts: Sequence[str] = (),
    ) -> None:
        """Refuse what `enroll` would refuse of any of them, before anything is made.

        Raises:
            ConfigError: no device id; enrolled already, or not, for a renewal; a wish or a host
                that cannot be.
        """
        check_wish(wish)
        place.check_hosts(hosts)
        with self._told():
            known = self._registry()
            for device in devices:
                check_device(device)
                self._check_enrolled(device, known, renew)

    def prepare(self, hosts: Sequence[str] = ()) -> None:
        """Make what a broker needs before the first device comes; renew what ends soon.

        Raises:
            ConfigError: see `place.prepare`; or the directory cannot be written.
        """
        with self._changing():
            self._prepare(hosts)

    def enroll(
        self, device: str, wish: Wish = USUAL, renew: bool = False, out: Path | None = None
    ) -> Kit:
        """Give a device an identity, and return what is to be copied to it.

        A renewal leaves an old certificate as it is until its own end, so that the device need not
        be without one; an old password ends at once.

        Args:
            device: its device id.
            wish: of what kind.
            renew: it has one already.
            out: directory for the kit; None: `devices` beside the other secrets.

        Raises:
            ConfigError: no device id, enrolled already (or not, for a renewal), nobody has said how
                devices reach this machine, or the directory cannot be written.
        """
        check_device(device)
        check_wish(wish)
        with self._changing():
            names = self._prepare([wish.host] if wish.host else [])
            before = self._registry()
            old = before.identities.get(device)
            self._check_enrolled(device, before, renew)
            now = self._clock().replace(microsecond=0)
            identity, files = self._make(device, wish, old, wish.host or names[0])
            there = Keep((out or self.keep.path("devices")).absolute(), None)
            # First, for what is not written down could never be revoked.
            registry.write(self.keep, before.with_identity(identity))
            try:
                kit.write(there, device, files)
                self._let_in(identity, files.get(kit.PASSWORD))
            except OSError:
                if old is None:
                    shutil.rmtree(there.path(device), ignore_errors=True)
                    self._settle(before.without(device, now), [device])
                    registry.write(self.keep, before)
                raise
        secret = kit.KEY if identity.kind == "certificate" else kit.PASSWORD
        return Kit(device, files, secret, there.path(device))

    def revoke(self, devices: Iterable[str]) -> bool:
        """End identities: neither password nor certificate opens anything any more.

        Returns:
            Whether the list of revoked certificates is signed; without the CA's key here it cannot
            be, and a revoked certificate may connect, to say and hear nothing.

        Raises:
            ConfigError: one is not enrolled, or the directory cannot be written.
        """
        gone = list(dict.fromkeys(devices))
        with self._changing():
            left = self._registry()
            if unknown := [one for one in gone if one not in left.identities]:
                raise ConfigError(
                    f"not enrolled: {', '.join(unknown)}", hint="`fleetmark identities` lists all"
                )
            for device in gone:
                left = left.without(device, self._clock().replace(microsecond=0))
            self._settle(left, gone)
            for device in gone:
                shutil.rmtree(self.keep.path(f"devices/{device}"), ignore_errors=True)
            registry.write(self.keep, left)
        return self._authority.can_sign or not left.revoked

    # --- parts of it -----------------------------------------------------------------------------

    def _registry(self) -> Registry:
        """Return it, with those whom an older fleetmark let in without writing it down."""
        known = registry.read(self.keep)
        for user in brokerusers.users(self.keep):
            if user != brokerusers.COLLECTOR and user not in known.identities and is_name(user):
                known = known.with_identity(Identity(device=user, kind="password"))
        return known

    def _prepare(self, hosts: Sequence[str]) -> list[str]:
        known = self._registry()
        names = place.prepare(self.keep, self._authority, hosts, known.revocations())
        brokeracl.write(self.keep, known.fleets())
        return names

    def _check_enrolled(self, device: str, known: Registry, renew: bool) -> None:
        old = known.identities.get(device)
        if old is not None and not renew:
            until = "" if old.ends is None else f" until {old.ends:%Y-%m-%d}"
            raise ConfigError(
                f"{device} is enrolled already, by {old.kind}{until}",
                hint="--renew gives it a new identity; its kit lies in "
                f"{self.keep.path('devices')}, unless it was put elsewhere",
            )
        if old is None and renew:
            raise ConfigError(f"--renew: {device} is not enrolled", hint="leave --renew out")
        # With the key here it is signed before anybody is let in.
        if not self._authority.can_sign and known.still_opens(device, self._authority.listed()):
            raise ConfigError(
                f"{device}: a certificate that was revoked would open again, for the list of "
                "revoked ones could not be signed then",
                hint=f"put ca.key back into {self.keep.directory}, for as long as this takes",
            )

    def _make(
        self, device: str, wish: Wish, old: Identity | None, host: str
    ) -> tuple[Identity, dict[str, str]]:
        now = self._clock().replace(microsecond=0)
        ends = now + timedelta(days=wish.days)
        ca = self.keep.read("ca.crt")
        fleet = wish.fleet_for(old)
        settings = kit.Settings(device, host, ends, fleet, wish.tags)
        certificates = {} if old is None else dict(old.certificates)
        if wish.kind == "certificate":
            issued = self._authority.issue(device, ends)
            certificates[issued.serial] = issued.ends
            files = kit.with_certificate(settings, ca, issued.certificate, issued.key)
        else:
            password = secrets.token_hex(32)
            files = kit.with_password(settings, ca, password)
        identity = Identity(
            device=device,
            kind=wish.kind,
            fleet=fleet,
            made=now,
            ends=ends,
            certificates={serial: end for serial, end in certificates.items() if end > now},
        )
        return identity, files

    def _let_in(self, identity: Identity, password: str | None) -> None:
        if password is None:
            brokerusers.drop_users(self.keep, [identity.device])
        else:
            brokerusers.set_user(self.keep, identity.device, password.strip())
        brokeracl.write(self.keep, self._registry().fleets())

    def _settle(self, wanted: Registry, gone: Iterable[str] = ()) -> None:
        """Have the broker's files say what a registry says, the most effective first."""
        brokeracl.write(self.keep, wanted.fleets())
        brokerusers.drop_users(self.keep, gone)
        if self._authority.can_sign:
            self._authority.revoke(wanted.revocations())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._told():
            if not self.keep.directory.is_dir():
                self.keep.make_directory(".", 0o700)
            with self.keep.locked():
                yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what a file system refuses as what it is: something that the operator must mend."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.keep.directory
            hint = None
            if isinstance(error, PermissionError):
                hint = f"run this as root (sudo), or as the owner of {self.keep.directory}"
            elif error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = "make room, then run this again"
            raise ConfigError(f"{where}: {error.strerror or error}", hint=hint) from error

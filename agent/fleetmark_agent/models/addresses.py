"""Which addresses a download may connect to: a job must not reach into the device's own network.

What counts is the address that is connected to, never the name: names lie, and change between two
questions.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from fleetmark_agent.config import PLACE
from fleetmark_protocol.errors import SourceNotAllowed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Resolve = Callable[[str], Sequence[str]]
"""Host name or address, in any form the system takes -> its addresses; empty when nobody knows it.
"""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
DEFAULT_PORTS = {"http": 80, "https": 443}
_SHORTEST_PREFIX = 8
"""A shorter one is a tunnel to everywhere, not a network that this device is part of."""


def resolve(host: str) -> Sequence[str]:
    """Ask the system for a host's addresses; it reads `0177.1` and `2130706433` as addresses."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def own_networks() -> list[Network]:
    """Return the networks that this device's interfaces are in."""
    found: list[Network] = []
    for interface in psutil.net_if_addrs().values():
        for one in interface:
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.netmask:
                bits = int(ipaddress.ip_address(one.netmask)).bit_count()
                if bits >= _SHORTEST_PREFIX:
                    address = one.address.partition("%")[0]
                    found.append(ipaddress.ip_network(f"{address}/{bits}", strict=False))
    return found


@dataclass(frozen=True)
class Guard:
    """Says where to connect for a host, or that nobody connects there.

    Attributes:
        allowed: what the device's owner lets in although private: networks, addresses and names,
            the last two also with a port (`mirror.lan:8443`, `[fd00::1]:8443`).
        resolve: finds the addresses of a host.
        near: returns the networks this device is in.
    """

    allowed: tuple[str, ...] = ()
    resolve: Resolve = resolve
    near: Callable[[], Iterable[Network]] = own_networks

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses to connect to, first choice first; none where nobody knows the host.

        Args:
            host: name or address.
            port: that would be connected to.

        Raises:
            SourceNotAllowed: one of them is in a private network.
        """
        found = list(self.resolve(host))
        near = list(self.near())
        for text in found:
            address = ipaddress.ip_address(text.partition("%")[0])
            if any(_lets_in(word, host, port, address) for word in self.allowed):
                continue
            inside = not is_public(address)
            if inside or any(_within(address, network) for network in near):
                where = "in a private network" if inside else "in this device's own network"
                named = host if host == text else f"{host} ({text})"
                raise SourceNotAllowed(
                    f"{named} is {where}: models are not fetched from there",
                    hint="the device's owner may add it to models.allow_private_hosts",
                )
        return found


def is_public(address: Address) -> bool:
    """Whether an address is somewhere in the Internet, judged by the IPv4 address inside it too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _lets_in(word: str, host: str, port: int, address: Address) -> bool:
    network = _network(word)
    if network is None:
        found = PLACE.fullmatch(word)
        if found is None or found["port"] not in (None, str(port)):
            return False
        name = found["address"] or found["name"]
        if name.lower().rstrip(".") == host.lower().rstrip("."):
            return True
        network = _network(name)
    return network is not None and _within(address, network)


def _network(word: str) -> Network | None:
    """Return an address (as a network of one) or a network; None for a name."""
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None


def _within(address: Address, network: Network) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version == network.version and address in network

"""Whether a name or address is this machine's own: what is sent there crosses no network."""

from __future__ import annotations

import ipaddress


def is_this_machine(host: str) -> bool:
    """Loopback addresses and `localhost`. Looks nothing up: a name may lead elsewhere tomorrow."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

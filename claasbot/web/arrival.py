"""How a request reached us: by TLS or not, and from which address. Believes a proxy only where the host names it."""

from __future__ import annotations

import ipaddress

from aiohttp import web

from claasbot.web.parts import PARTS

_IPV6_HOME = 64
"""Bits of an IPv6 address that one household has: whoever owns one address owns them all."""
_ADDED_BY_PROXIES = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")


def is_tls(request: web.Request) -> bool:
    """By the browser's side of a trusted proxy, or by our own socket."""
    if request.secure:
        return True
    return _is_trusted(request, _peer(request)) and _said(request, "X-Forwarded-Proto")[-1:] == ["https"]


def address_of(request: web.Request) -> str:
    """Of the browser: the last address of the chain that is no proxy of ours."""
    found = _peer(request)
    chain = _said(request, "X-Forwarded-For")
    while _is_trusted(request, found) and chain:
        found = _address(chain.pop())  # what stands before a word that is no address, anybody may have written
    return str(found or "unknown")


def is_from_here(request: web.Request) -> bool:
    """Whether the browser runs on this machine. What a proxy hands on without saying for whom may be anybody's."""
    found = _address(address_of(request))
    if found is None or not found.is_loopback:
        return False
    if _is_trusted(request, _peer(request)) and _said(request, "X-Forwarded-For"):
        return True
    return not any(name in request.headers for name in _ADDED_BY_PROXIES)


def household_of(request: web.Request) -> str:
    """Who is counted together when too much is tried."""
    found = _address(address_of(request))
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found) >> _IPV6_HOME << _IPV6_HOME, _IPV6_HOME)))
    return str(found or "unknown")


def _said(request: web.Request, name: str) -> list[str]:
    """By all headers of that name, in order: some proxies add one of their own behind the browser's."""
    return [part.strip() for line in request.headers.getall(name, ()) for part in line.split(",")]


def _peer(request: web.Request) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    return _address(request.remote or "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_trusted(request: web.Request, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    return address is not None and any(address in network for network in request.app[PARTS].trusted_proxies)

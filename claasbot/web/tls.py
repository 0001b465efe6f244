"""Speaking https without a proxy: TLS 1.2 or newer, the ciphers that OpenSSL recommends, no client certificates."""

from __future__ import annotations

import ssl

from claasbot.errors import SettingsError
from claasbot.own_machine import is_this_machine


def server_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """From two PEM files; None where neither is given. Raises SettingsError for one alone, or files that do not fit."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise SettingsError("web.certificate and web.certificate_key belong together: set both, or neither")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise SettingsError(
            f"web.certificate {certificate!r} and web.certificate_key {key!r} cannot be used together: {error}"
        ) from error
    return context


def refuse_plain_http(host: str, *, is_allowed: bool) -> None:
    """Raises SettingsError where passwords and conversations would cross a network readable by everybody on it."""
    if is_allowed or is_this_machine(host):
        return
    raise SettingsError(
        f"web.host {host!r} is beyond this machine, without TLS: set web.certificate and web.certificate_key, "
        "or web.allow_plain_http where a proxy in front speaks https"
    )

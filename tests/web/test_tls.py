"""The dashboard beyond this machine: over TLS, or not at all unless the host says that a proxy does it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import warnings
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from claasbot.errors import SettingsError
from claasbot.web.server import WebServer
from claasbot.web.tls import refuse_plain_http, server_context


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "claasbot test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def speaks_tls_1_1_at_most(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


async def test_a_browser_that_trusts_the_certificate_is_served_over_tls(stranger, pem):
    certificate, key = pem
    server = WebServer(stranger.parts, host="127.0.0.1", port=0, tls=server_context(str(certificate), str(key)))
    await server.start()
    try:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=certificate)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/healthz", ssl=trusting) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"{server.url}/healthz", ssl=speaks_tls_1_1_at_most(certificate))
    finally:
        await server.stop()


def test_a_certificate_without_its_key_is_refused(pem):
    with pytest.raises(SettingsError, match="belong together"):
        server_context(str(pem[0]), "")


def test_files_that_are_none_are_named(pem, tmp_path):
    with pytest.raises(SettingsError, match=r"nothing\.pem"):
        server_context(str(pem[0]), str(tmp_path / "nothing.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_plain_http_stays_on_this_machine(host):
    refuse_plain_http(host, is_allowed=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "claasbot.example"])
def test_plain_http_beyond_this_machine_is_refused_until_the_host_allows_it(host):
    with pytest.raises(SettingsError, match=r"web\.allow_plain_http"):
        refuse_plain_http(host, is_allowed=False)
    refuse_plain_http(host, is_allowed=True)

"""How tokens that are random enough are stored: whoever reads the database cannot use them."""

from __future__ import annotations

import hashlib


def digest(token: str) -> str:
    """Plain SHA-256: no guess finds a token of 112 bits or more (ASVS 5.0, 6.5.2). Passwords need argon2id."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()

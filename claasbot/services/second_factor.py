"""Time-based codes (RFC 6238) and the recovery codes for a lost phone. Knows no store: steps and hashes come and go."""

from __future__ import annotations

import base64
import hmac
import secrets
from datetime import datetime

import pyotp

STEP_S = 30
_SKEW_STEPS = 1
"""RFC 6238, 5.2: one step for the delay and for clocks that differ."""
N_RECOVERY_CODES = 10
_RECOVERY_BYTES = 15
"""120 bits: above 112, a plain hash is enough to store (ASVS 5.0, 6.5.2)."""


def new_secret() -> str:
    return pyotp.random_base32()  # 160 bits


def address_for(secret: str, name: str) -> str:
    """What the QR code says; an app shows `claasbot (name)`."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="claasbot")


def step_of(secret: str, code: str, now: datetime) -> int | None:
    """The 30-second step that the code belongs to; None for a wrong one. A step may be used once: ask the store."""
    totp, current = pyotp.TOTP(secret), int(now.timestamp()) // STEP_S
    given = code.replace(" ", "").encode(errors="surrogatepass")
    steps = range(current - _SKEW_STEPS, current + _SKEW_STEPS + 1)
    found = [step for step in steps if hmac.compare_digest(totp.at(step * STEP_S).encode(), given)]
    return found[0] if found else None


def new_recovery_codes() -> tuple[str, ...]:
    """Each opens the door once: `ABCD-…`, 24 letters and digits."""
    return tuple(_grouped(secrets.token_bytes(_RECOVERY_BYTES)) for _ in range(N_RECOVERY_CODES))


def normal(recovery_code: str) -> str:
    """As people may type it: any case, with or without dashes."""
    return "".join(recovery_code.split()).replace("-", "").upper()


def _grouped(random: bytes) -> str:
    text = base64.b32encode(random).decode()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))

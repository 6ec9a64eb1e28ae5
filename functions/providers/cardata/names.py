"""Names under which things of a car are stored: a document's key is not sealed, so it must not tell the VIN."""

import hashlib


def vin_digest(account_id: str, vin: str) -> str:
    """32 hex digits that stand for a car of an account."""
    return hashlib.sha256(f"{account_id} {vin}".encode()).hexdigest()[:32]

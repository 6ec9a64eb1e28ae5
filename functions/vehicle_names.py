"""Names of vehicles for what protects the car itself: the command in flight, hourly caps, forced reads.

Such a protection must be the same for everybody who has linked the car, and must outlive a link: otherwise whoever ends
his link and makes it anew begins with a clean slate. So it is named neither by an account nor, since the name stands in
the open in keys of documents, by a VIN that could be guessed from a plain digest.
"""

import hmac

from functions.providers.port import Account


class VehicleNames:
    """Digests of vehicles under the deployment's key, :func:`functions.storage.naming_key`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, account: Account, vin: str) -> str:
        """32 hexadecimal digits, the same for one car through whichever account of its maker."""
        parts = (account.provider, account.region.value, vin.upper())
        return hmac.digest(self._key, "\x00".join(parts).encode(), "sha256").hex()[:32]

"""Cloud KMS as the keeper of the master key: it never leaves KMS, and each use of it is in KMS's own log.

Needs ``roles/cloudkms.cryptoKeyEncrypterDecrypter`` on the key and nothing more. KMS rotates the key by itself; which
version wrapped a data key is known from the answer, and ``python -m ops.keys rotate`` moves data keys to the newest.
"""

import asyncio
import http.client
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from common.crypto.errors import SealBroken
from common.crypto.wrapping import WrappedKey
from common.errors import StoreUnavailable
from common.loops import needs_loop

if TYPE_CHECKING:
    from google.cloud.kms_v1 import KeyManagementServiceClient

T = TypeVar("T")

_PROBE = b"which version is primary"


class KmsWrapper:
    """Wraps under ``key_name``: ``projects/P/locations/L/keyRings/R/cryptoKeys/K``. Opens nothing yet.

    ``endpoint`` is another one than Google's own (``http://127.0.0.1:port``), spoken to without credentials.
    ``timeout_s`` bounds each call; a call is made once, for whoever asks can ask again.
    """

    def __init__(self, key_name: str, endpoint: str | None = None, *, timeout_s: float = 4.0) -> None:
        self._key_name = key_name
        self._endpoint = endpoint
        self._once: dict[str, Any] = {"timeout": timeout_s, "retry": None}
        self._opening = threading.Lock()
        self._opened: KeyManagementServiceClient | None = None

    async def active_kid(self) -> str:
        """See :class:`KeyWrapper`. Found by wrapping something, which needs no further permission."""
        return (await self.wrap(_PROBE, b"")).kid

    def holds(self, kid: str) -> bool:
        """See :class:`KeyWrapper`."""
        return kid.startswith(f"kms:{self._key_name}/cryptoKeyVersions/")

    async def wrap(self, key: bytes, context: bytes) -> WrappedKey:
        """See :class:`KeyWrapper`."""
        await needs_loop()
        return await asyncio.to_thread(_translated, lambda: self._encrypt(key, context))

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """See :class:`KeyWrapper`."""
        if not self.holds(wrapped.kid):
            raise SealBroken("its key is wrapped under another master key than KMS holds")
        await needs_loop()
        return await asyncio.to_thread(_translated, lambda: self._decrypt(wrapped.blob, context))

    def _encrypt(self, key: bytes, context: bytes) -> WrappedKey:
        answer = self._client().encrypt(
            request={
                "name": self._key_name,
                "plaintext": key,
                "plaintext_crc32c": _crc32c(key),
                "additional_authenticated_data": context,
                "additional_authenticated_data_crc32c": _crc32c(context),
            },
            **self._once,
        )
        arrived = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        kid = f"kms:{answer.name}"
        if not arrived or answer.ciphertext_crc32c != _crc32c(answer.ciphertext) or not self.holds(kid):
            raise StoreUnavailable
        return WrappedKey(kid, answer.ciphertext)

    def _decrypt(self, blob: bytes, context: bytes) -> bytes:
        from google.api_core.exceptions import BadRequest  # noqa: PLC0415 - loaded only where KMS is used

        try:
            answer = self._client().decrypt(
                request={
                    "name": self._key_name,
                    "ciphertext": blob,
                    "ciphertext_crc32c": _crc32c(blob),
                    "additional_authenticated_data": context,
                    "additional_authenticated_data_crc32c": _crc32c(context),
                },
                **self._once,
            )
        except BadRequest:
            raise SealBroken("KMS refuses it: changed, moved, or its key version is disabled or destroyed") from None
        plaintext: bytes = answer.plaintext
        if answer.plaintext_crc32c != _crc32c(plaintext):
            raise StoreUnavailable
        return plaintext

    def _client(self) -> "KeyManagementServiceClient":
        with self._opening:
            if self._opened is None:
                from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - loaded only where KMS is used
                from google.cloud.kms_v1 import KeyManagementServiceClient  # noqa: PLC0415 - as above

                self._opened = KeyManagementServiceClient(
                    transport="rest",
                    # The library ships no types.
                    credentials=AnonymousCredentials() if self._endpoint else None,  # type: ignore[no-untyped-call]
                    client_options={"api_endpoint": self._endpoint} if self._endpoint else None,
                )
            return self._opened


def _crc32c(data: bytes) -> int:
    import google_crc32c  # noqa: PLC0415 - comes with the library, and so at the same time

    return int(google_crc32c.value(data))


def _translated(work: Callable[[], T]) -> T:
    """Call ``work``; what the library raises becomes one of our own kinds."""
    from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 - loaded only where KMS is used
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - as above

    try:
        return work()
    # Whatever `requests` raises is an OSError.
    except (GoogleAPICallError, GoogleAuthError, OSError, http.client.HTTPException) as error:
        raise StoreUnavailable from error

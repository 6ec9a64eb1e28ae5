"""How opening what was sealed can fail.

::

    ApiError                      (common.errors)
    |-- AccountNotFound
    |   `-- KeyGone               404  the account's key was shredded, or there never was one
    `-- StoreUnavailable
        `-- SealBroken            503  tampered, moved, not sealed at all, or under a key that is not at hand
"""

from common.errors import AccountNotFound, Resolution, StoreUnavailable


class KeyGone(AccountNotFound):
    """Without its key an account is not there, whatever copies of its documents are."""


class SealBroken(StoreUnavailable):
    """What is stored cannot be vouched for, so nothing of it is served. Trying again does not help."""

    resolution, retryable = Resolution.CONTACT_SUPPORT, False

    def __init__(self, reason: str) -> None:
        """``reason`` is for the operator and is not part of the message; it holds no value and no key."""
        super().__init__()
        self.reason = reason

"""An issuer under attack, and what its attackers hold."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from common.clock import Clock
from sandbox.issuer import SigningKey, SimulatedIssuer, new_key, signed

ENCRYPTION_KID: Final = "encryption-1"


@dataclass(frozen=True, slots=True)
class Target:
    """An issuer under attack, and what its attackers hold."""

    issuer: SimulatedIssuer
    """Trusted; signs with an EC key, and publishes an RSA key that may sign too."""
    attacker: SimulatedIssuer
    """Listens and publishes keys as any issuer, and must never be asked for them."""
    rsa: SigningKey
    retired: SigningKey
    """Signed good tokens once; published no more."""
    encryption: SigningKey
    """Published for encryption only."""

    def claims(self, rng: random.Random, **changes: object) -> dict[str, Any]:
        """What a good token of some victim would say."""
        return self.issuer.claims(**{"sub": f"victim-{rng.randrange(10**9)}", **changes})

    @property
    def now_s(self) -> int:
        """The time by which the issuer's good tokens are made, Unix seconds."""
        now: int = self.issuer.claims()["iat"]
        return now

    def good(self, rng: random.Random) -> str:
        """A genuine token, which must be accepted."""
        return self.issued(rng)

    def issued(self, rng: random.Random, **changes: object) -> str:
        """A token that the issuer itself has signed."""
        key = rng.choice([self.issuer.current, self.rsa])
        return signed(self.header(key), self.claims(rng, **changes), key)

    def header(self, key: SigningKey, **changes: object) -> dict[str, Any]:
        """The header that goes with ``key``."""
        return self.issuer.header(**{"alg": key.algorithm, "kid": key.kid, **changes})

    def stranger(self, rng: random.Random) -> SigningKey:
        """A key of the attacker's under the name of one of the issuer's."""
        kid = rng.choice([self.issuer.current.kid, self.rsa.kid])
        return SigningKey(kid, self.attacker.current.algorithm, self.attacker.current.private)


Forger = Callable[[Target, random.Random], str]


@contextmanager
def under_attack(clock: Clock) -> Iterator[Target]:
    """An issuer and its attackers, for the duration of the block."""
    rsa, retired, current = new_key("rsa-1", "RS256"), new_key("ec-0"), new_key("ec-1")
    encryption = new_key(ENCRYPTION_KID)
    with SimulatedIssuer(clock, rsa, current) as issuer, SimulatedIssuer(clock, new_key("evil-1")) as attacker:
        issuer.published.append(encryption.jwk(use="enc"))
        yield Target(issuer, attacker, rsa, retired, encryption)

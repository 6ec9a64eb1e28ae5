"""Master keys for tests, as TOKEN_KEYS spells them."""

import base64


def master(kid: str) -> str:
    """The same for the same id; secret to nobody."""
    return f"{kid}:{base64.b64encode(kid.encode().ljust(32, b'-')).decode()}"


K1, K2, K3 = master("k1"), master("k2"), master("k3")

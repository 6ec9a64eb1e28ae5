"""Keys from the command line.

::

    python -m ops.keys new NAME [--scopes read,location] [--expires 90d] [--principal 'key|ID']
    python -m ops.keys list
    python -m ops.keys revoke ID
    python -m ops.keys renew ID [--overlap 7d] [--expires 90d]
    python -m ops.keys master
    python -m ops.keys rotate

Each works on the store that the service's own settings name. A key is printed once, alone on standard output;
everything said about it goes to standard error. Exits with 2 and one line where it is asked for what cannot be done,
with 1 where the store cannot be reached.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping

from common.clock import Clock, SystemClock
from common.errors import StoreUnavailable
from common.settings import Settings, SettingsError, load
from common.stores.documents import Documents
from ops import keys_api, keys_master
from ops.keys_command import Parser, Refused, Run, Subparsers, Tools, open_store

_COMMANDS: tuple[Callable[[Subparsers], None], ...] = (
    keys_api.register,
    keys_master.register,
)


def main(
    argv: list[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    clock: Clock | None = None,
    opener: Callable[[Settings], Documents] = open_store,
) -> int:
    """Returns the exit status: 0 done, 1 no store, 2 refused."""
    parser = Parser(prog="ops.keys", description="Make, list, end and renew keys.")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for register in _COMMANDS:
        register(subparsers)
    asked = parser.parse_args(argv)
    run: Run = asked.run
    try:
        # Whoever makes his first master key has no settings yet that would pass.
        settings = Settings() if asked.command == "master" else load(environ)
        return asyncio.run(run(asked, Tools(settings, clock or SystemClock(), opener)))
    except (Refused, SettingsError) as refused:
        print(refused, file=sys.stderr)
        return 2
    except StoreUnavailable as unavailable:
        print(f"{unavailable} Whatever was to be changed may have been: see `list`.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

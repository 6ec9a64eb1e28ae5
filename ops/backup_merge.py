"""What of a backup is newer than what is stored; decisions only.

A document that is there stays as it is, unless it is known to come before the one in the backup. Nobody's clock
decides: a command's states have an order, and so have an account's tokens.
"""

from common.stores.documents import Body
from functions.command_record import from_body, is_behind
from functions.token_record import order_of
from ops.backup_records import collection_of


def is_newer(key: str, backup: Body, stored: Body) -> bool:
    """Whether the backup's body of a document may take the place of the stored one."""
    collection = collection_of(key)
    if collection == "tokens":
        return order_of(stored) < order_of(backup)
    if collection == "commands":
        ours, theirs = from_body(backup), from_body(stored)
        return not theirs.is_final and (ours.is_final or is_behind(theirs.state, ours.state))
    return False

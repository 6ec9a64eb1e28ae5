"""The rules by which buckets forget: ``ops/deploy/lifecycle.json``, ``ops/deploy/lifecycle-keys.json``.

::

    python -m ops.lifecycle documents [--prefix PREFIX]   the rules of a bucket with documents under gs://BUCKET/PREFIX
    python -m ops.lifecycle keys                          those of a bucket with the accounts' keys
    python -m ops.lifecycle compare FILE                  how a bucket's rules differ from a file's: nothing if not.
                                                          `gcloud storage buckets describe --format json` comes on
                                                          standard input

A rule's age is that of an object, which is new with every write. In a bucket that keeps versions a deleted object stays
as an old version, and only the rule for those ends it.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from ops.retention import OLD_VERSIONS_DAYS, SWEPT

Rules = Mapping[str, Any]
"""As the platform has them: ``{"rule": [{"action": {...}, "condition": {...}}]}``."""

PREFIX: Final = "bmw"
"""Where in its bucket deploy.sh puts the documents."""


def of_documents(prefix: str = PREFIX) -> Rules:
    """Short-lived documents go, and what was replaced or deleted goes; nothing else."""
    root = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    # The slash belongs to it: without it `claims` would also match a collection `claims2`.
    by_days = {
        days: [f"{root}{row.collection}/" for row in SWEPT if row.days == days]
        for days in sorted({row.days for row in SWEPT})
    }
    return {
        "rule": [
            *(_delete(age=days, isLive=True, matchesPrefix=sorted(names)) for days, names in by_days.items()),
            _delete(daysSinceNoncurrentTime=OLD_VERSIONS_DAYS, isLive=False),
        ]
    }


def of_keys() -> Rules:
    """The bucket keeps no versions; those of a time when it did are deleted keys that could still be read."""
    return {"rule": [_delete(isLive=False)]}


def _delete(**condition: object) -> dict[str, Any]:
    return {"action": {"type": "Delete"}, "condition": condition}


def differences(wanted: Rules, bucket: Mapping[str, Any]) -> list[str]:
    """A line for each rule that the described bucket lacks or has beside those wanted; their order means nothing."""
    asked, found = _lines(wanted), _lines(bucket.get("lifecycle_config") or {})
    return [f"lacks {rule}" for rule in sorted(asked - found)] + [f"has {rule}" for rule in sorted(found - asked)]


def _lines(rules: Rules) -> set[str]:
    return {json.dumps(_sorted(rule), sort_keys=True) for rule in rules.get("rule", [])}


def _sorted(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: _sorted(inner) for name, inner in value.items()}
    return sorted(value) if isinstance(value, list) else value


def main(argv: list[str] | None = None, *, described: TextIO = sys.stdin) -> int:
    """Returns the exit status. ``described`` is where a bucket's description comes from."""
    parser = argparse.ArgumentParser(prog="ops.lifecycle", description="The rules by which buckets forget.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    documents = commands.add_parser("documents", help="print the rules of a bucket with documents")
    documents.add_argument("--prefix", default=PREFIX, help="what follows the bucket in DOCUMENTS_URL")
    commands.add_parser("keys", help="print the rules of a bucket with the accounts' keys")
    compare = commands.add_parser("compare", help="print how the bucket described on standard input differs from FILE")
    compare.add_argument("file", metavar="FILE", type=Path)
    asked = parser.parse_args(argv)
    if asked.command == "compare":
        wanted = json.loads(asked.file.read_text(encoding="utf-8"))
        print("".join(f"{line}\n" for line in differences(wanted, json.load(described))), end="")
    else:
        print(json.dumps(of_documents(asked.prefix) if asked.command == "documents" else of_keys(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure the rows, print the table, exit non-zero if one falls short: ``python -m scorecard [NUMBER ...]``."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from scorecard import (
    access,
    backup,
    breaker,
    cache,
    canary,
    commands,
    hostile,
    hygiene,
    sealing,
    tokens,
    tokens_rotation,
)
from scorecard.row import Finding, Row

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "scorecard.md"
_INTRODUCTION = """# Scorecard

<!-- Written by `make scorecard`. Do not edit. -->

What the service promises, and what was measured on {today}: real server processes that share one store, in front of the
simulated maker, which counts what it really received and did.

"""

ROWS: tuple[Row, ...] = tuple(
    sorted(
        (
            *breaker.ROWS,
            *cache.ROWS,
            *commands.ROWS,
            *tokens.ROWS,
            *sealing.ROWS,
            *tokens_rotation.ROWS,
            *backup.ROWS,
            *access.ROWS,
            *hostile.ROWS,
            *hygiene.ROWS,
            *canary.ROWS,
        ),
        key=lambda row: row.number,
    )
)


def main(numbers: list[str]) -> int:
    """Returns the exit status."""
    wanted = {int(number) for number in numbers}
    rows = [row for row in ROWS if not wanted or row.number in wanted]
    if wanted - {row.number for row in rows}:
        print(f"There are rows {', '.join(str(row.number) for row in ROWS)}.", file=sys.stderr)
        return 2
    found = []
    for row in rows:
        print(f"{row.number:>3}  {row.check} ...", flush=True)
        started_s = time.monotonic()
        finding = row.measure(lambda text: print(f"       {text}", flush=True))
        found.append((row, finding, time.monotonic() - started_s))
    table = _table(found)
    print(f"\n{table}")
    if not wanted:
        _PAGE.write_text(
            _INTRODUCTION.format(today=datetime.now(UTC).date().isoformat()) + table + "\n", encoding="utf-8"
        )
    return 0 if all(finding.passed for _, finding, _ in found) else 1


def _table(found: list[tuple[Row, Finding, float]]) -> str:
    lines = ["| # | Check | Pass | Measured | |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.number} | {row.check} | {row.passes} | {finding.measured} ({seconds:.0f} s) "
        f"| {'ok' if finding.passed else '**short**'} |"
        for row, finding, seconds in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Measure the rows, print the table, exit non-zero if one falls short: ``python -m scorecard [NUMBER ...]``."""

import sys
import time

from scorecard import commands
from scorecard.row import Finding, Row

ROWS: tuple[Row, ...] = (*commands.ROWS,)


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
    print()
    print(_table(found))
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

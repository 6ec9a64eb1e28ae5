"""``make scorecard``: the promises that the service makes, measured on real processes and printed as a table."""

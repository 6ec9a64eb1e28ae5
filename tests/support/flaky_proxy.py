"""See :mod:`ops.flaky_proxy`."""

from ops.flaky_proxy import HANG, HANG_AFTER, LOST_REPLY, RESET, Fault, FlakyProxy, Plan, first, flaky_proxy

__all__ = ["HANG", "HANG_AFTER", "LOST_REPLY", "RESET", "Fault", "FlakyProxy", "Plan", "first", "flaky_proxy"]

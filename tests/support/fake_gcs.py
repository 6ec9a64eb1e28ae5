"""See :mod:`ops.fake_gcs`."""

from ops.fake_gcs import FakeGcs, running_fake_gcs

__all__ = ["FakeGcs", "running_fake_gcs"]

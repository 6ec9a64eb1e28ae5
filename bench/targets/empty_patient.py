"""The empty function under the worker that ours is served by: what our code costs, without what the worker gains."""

import gunicorn.config  # type: ignore[import-untyped] # it ships no types

from bench.targets.empty import empty

# As main.py does.
gunicorn.config.WorkerClass.default = "common.patient_worker.PatientWorker"

__all__ = ["empty"]

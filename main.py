"""Entry points for Google Cloud Functions: ``functions-framework --target=<name>``.

Importing this module costs next to nothing: everything is imported and built when the first request needs it, in the
worker that serves it.
"""

from typing import TYPE_CHECKING

import gunicorn.config  # type: ignore[import-untyped] # it ships no types

if TYPE_CHECKING:
    from flask import Request, Response

# The framework starts the server after importing this and leaves the kind of worker to gunicorn's default, whose
# threads wait for slow clients.
gunicorn.config.WorkerClass.default = "common.patient_worker.PatientWorker"


def bmw_api(request: "Request") -> "Response":
    """BMW and MINI, as the environment says (``ENVIRONMENT``, production by default)."""
    from functions.edge import serve  # noqa: PLC0415 - see the module's docstring

    return serve(request)


def bmw_api_staging(request: "Request") -> "Response":
    """The same with staging's settings (``STAGING_*`` first), whatever the environment says."""
    from functions.edge import serve  # noqa: PLC0415 - see the module's docstring

    return serve(request, "staging")


def health(request: "Request") -> "Response":
    """Health at the root, and nothing else to command or read."""
    from functions.edge import serve  # noqa: PLC0415 - see the module's docstring

    return serve(request, health_only=True)

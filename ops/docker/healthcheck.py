"""The image's health check: exit 0 where ``GET /health`` on ``$PORT`` answers 200, else 1. No shell, no curl."""

import http.client
import os
import sys

_TIMEOUT_S = 2.5


def main() -> int:
    """Returns the exit status; an unhealthy service answers 503."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or "8080"), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as silent:
        print(f"no answer: {type(silent).__name__}")
        return 1
    finally:
        connection.close()
    print(status)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())

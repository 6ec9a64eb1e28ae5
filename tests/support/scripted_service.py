"""A server that answers as a test says, where the service itself cannot be made to answer wrongly."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = dict[str, tuple[int, Any]]
"""Status and JSON by ``METHOD /path``; may be changed while it runs."""

WELL: Mapping[str, tuple[int, Any]] = {
    "GET /health": (200, {"status": "healthy"}),
    "GET /openapi.json": (200, {"openapi": "3.1.0"}),
    "POST /": (401, {"success": False, "error": {"code": "CALLER_UNAUTHENTICATED"}}),
}


@contextmanager
def scripted_service(answers: Answers, token: str | None = None) -> Iterator[str]:
    """Its URL. With ``token`` it is private, as Cloud Run is: whoever does not bring that one is refused with 403."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if token is None or self.headers.get("X-Serverless-Authorization") == f"Bearer {token}":
                status, body = answers[f"{self.command} {self.path}"]
            else:
                status, body = 403, "Your client does not have permission to get URL from this server."
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

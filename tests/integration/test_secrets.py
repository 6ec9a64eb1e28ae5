"""Nothing sensitive leaves by the log, and nothing of one caller's car by another's reply."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from sandbox.process import RunningSandbox

SCRIPT = """
import json, sys
from common.settings import Settings
from functions.app import build
from functions.wire import RawRequest

origin, database, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
app = build(Settings(environment="development", callers=("open",), documents_url=f"sqlite:///{database}",
                     token_keys="test:" + "A" * 43 + "=", mybmw_origin=origin, poll_interval_s=0.01,
                     read_attempts=1, log_level="DEBUG"))
account = None
for step in plan:
    step = {k: (account if v == "$account" else v) for k, v in step.items()}
    body = json.dumps(step).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer canary-caller-token-1234567890"}
    reply = app.loop.run(app.pipeline.handle(RawRequest("POST", "/", headers, body)))
    if step["action"] == "connect" and reply.status == 200:
        account = json.loads(reply.body)["result"]["account"]
    print("REPLY", reply.status, file=sys.stderr)
print(app.loop.run(app.pipeline.handle(RawRequest("GET", "/metrics", {}, b""))).body.decode(), file=sys.stderr)
app.close()
"""

EMAIL, PASSWORD, CAPTCHA = "one@example.com", "demo-password", "P1_canary-captcha-token-0123456789abcdef"
LATITUDE, LONGITUDE = "48.177334", "11.556274"
VIN = "WBA00000000DEMO01"


def test_no_line_of_the_log_holds_a_secret_in_any_encoding(sandbox: RunningSandbox, tmp_path: Path) -> None:
    words = f"leak {EMAIL} {VIN} {PASSWORD} lat={LATITUDE} Bearer abc.def.ghi"
    plan = [
        {"action": "connect", "email": EMAIL, "password": PASSWORD, "hcaptcha": CAPTCHA},
        {"action": "vehicles", "account": "$account"},
        {"action": "status", "account": "$account"},
        {"action": "location", "account": "$account", "vin": VIN},
        {"action": "send_poi", "account": "$account", "params": {"latitude": 48.177334, "longitude": 11.556274}},
        {
            "action": "find",
            "account": "$account",
            "params": {"latitude": 48.177334, "longitude": 11.556274},
            "wait_s": 2,
        },
        {"action": "unlock", "account": "$account", "wait_s": 2},
        {"action": "status", "email": EMAIL, "password": "canary-wrong-password"},
        {"action": "status", "account": "$account", "vin": "WBA000000CANARY01"},
        {"action": "explode-" + EMAIL},
        {"action": "connect", "email": "wrong-password@example.com", "password": "canary-x", "hcaptcha": CAPTCHA + "2"},
        {"action": "charging", "account": "$account", "fresh": True},
    ]
    sandbox.fault(match={"path": "crccs/v2/vehicles"}, fault="status", status=500, body=words, after=3)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, sandbox.origin, str(tmp_path / "documents.db"), json.dumps(plan)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.stderr.count("REPLY") == len(plan)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) >= len(plan)
    secrets = [EMAIL, PASSWORD, CAPTCHA, VIN, LATITUDE, LONGITUDE, "WBA000000CANARY01", "canary-wrong-password"]
    secrets += ["canary-caller-token", "canary-x", "wrong-password@example.com"]
    everything = done.stdout + done.stderr
    for secret in secrets:
        for form in encodings(secret):
            assert form not in everything, f"{form} was logged"


def encodings(secret: str) -> set[str]:
    return {
        secret,
        secret.lower(),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        base64.b64encode(secret.encode()).decode().rstrip("="),
    }

"""A service with an old and a new revision, both real, behind a splitter; and callers who keep calling."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from common.clock import ManualClock
from common.settings import Settings
from ops import canary_guard, canary_smoke
from ops.canary_gcloud import Gcloud, Traffic
from ops.canary_monitoring import Monitoring
from ops.canary_probes import Probes
from ops.canary_question import Question
from ops.canary_rollout import Outcome, Rollout
from ops.canary_settings import Plan
from ops.processes import Server, free_port
from ops.stack import issue_key, master_key
from sandbox.cloud import Cloud, running_cloud
from sandbox.gcloud_install import Installed
from sandbox.process import RunningSandbox, running_sandbox

_ROOT = Path(__file__).resolve().parent.parent
SERVICE, STABLE, CANARY = "bmw", "bmw-1", "bmw-2"
_AT_ONCE = 16
FLEET = 60


@dataclass
class Stage:
    """Everything in place; nothing rolled out yet."""

    cloud: Cloud
    gcloud: Installed
    maker: RunningSandbox
    clock: ManualClock
    key: str
    account: str
    vins: list[str]
    commands: int = 0
    """How many were given, each once with a key of its own, and repeated with the same key."""
    failed: list[str] = field(default_factory=list)
    """Answers to commands that were neither the first's nor a proper refusal."""

    def percents(self) -> dict[str, int]:
        """Who gets the traffic now."""
        shares: dict[str, int] = self.gcloud.world()["services"][SERVICE]["percents"]
        return shares

    def sends(self) -> int:
        """Commands that reached the maker."""
        counts = self.maker.stats()["requests"].items()
        return sum(count for route, count in counts if route.startswith("POST") and "remote-commands/{" in route)

    def traffic(self) -> Traffic:
        """The service's traffic, through the simulated gcloud."""
        return Traffic(Gcloud(self.gcloud.environ(os.environ)), "p1", "r1", SERVICE)

    def roll_out(
        self,
        plan: Plan,
        requests_a_window: Callable[[int], int],
        *,
        commands_a_window: int = 0,
        say: Callable[[str], None] = lambda _text: None,
    ) -> Outcome:
        """Roll the new revision out while callers call, on the stage's own time.

        ``requests_a_window`` is told the new revision's percentage. Before the first window callers have called too.
        The canary's own requests are as many as the plan says.
        """
        traffic = self.traffic()
        question = Question(self.key)
        urls = {revision: self.cloud.tagged_url(revision) for revision in (STABLE, CANARY)}
        with Probes(urls, {}, question) as probes:

            def pause(seconds: float) -> None:
                share = self.percents().get(CANARY, 0)
                self._call(requests_a_window(share), commands_a_window)
                for _ in range(round(seconds * plan.probes_per_s)):
                    probes.send()
                probes.wait()
                self.clock.advance(seconds)

            self._call(requests_a_window(0), 0)
            self.clock.advance(plan.window_s + plan.settle_s)
            # A window's requests come at its start: none falls on a border.
            rollout = Rollout(
                plan=plan,
                traffic=traffic,
                measure=Monitoring(
                    "p1",
                    "r1",
                    SERVICE,
                    lambda: "token",
                    question=question,
                    base_url=self.cloud.monitoring_url,
                    pause=pause,
                ),
                probed=probes.counts,
                smoke=lambda url: canary_smoke.check(url, {}, pause, question),
                guard=lambda revision: canary_guard.start(traffic, revision),
                clock=self.clock,
                pause=pause,
                rest=self.clock.advance,
                say=say,
            )
            outcome = rollout.run()
        self._call(0, commands_a_window)
        return outcome

    def _call(self, reads: int, commands: int) -> None:
        self.clock.advance(1)
        asyncio.run(self._callers(reads, commands))

    async def _callers(self, reads: int, commands: int) -> None:
        headers = {"X-API-Key": self.key}
        gate = asyncio.Semaphore(_AT_ONCE)
        async with aiohttp.ClientSession(headers=headers) as session:

            async def ask(body: Mapping[str, Any], key: str | None = None) -> tuple[int, Any]:
                async with gate:
                    extra = {"Idempotency-Key": key} if key else {}
                    async with session.post(self.cloud.url, json=body, headers=extra) as answer:
                        return answer.status, await answer.json()

            async def command(vin: str) -> None:
                body = {"action": "unlock", "account": self.account, "vin": vin}
                # Whoever is not answered properly sends the same again with the same key, and some do so anyway.
                answers = [await ask(body, f"key-{vin}") for _ in range(3)]
                told = {answer["result"]["command_id"] for status, answer in answers if status in (200, 202)}
                if len(told) != 1:
                    self.failed.append(f"{vin}: {[status for status, _ in answers]}")

            targets = self.vins[self.commands : self.commands + commands]
            self.commands += len(targets)
            read = {"action": "status", "account": self.account, "vin": self.vins[0]}
            await asyncio.gather(*(ask(read) for _ in range(reads)), *(command(vin) for vin in targets))


@contextmanager
def staged(**defect: str) -> Iterator[Stage]:
    """A stage whose new revision has a ``defect``: variables of ``scorecard.faulty_revision``; none by default."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        maker = stack.enter_context(running_sandbox(event_step_s=0))
        environ = {
            **os.environ,
            "ENVIRONMENT": "development",
            "CALLERS": "api_keys",
            "TOKEN_KEYS": master_key(),
            "DOCUMENTS_URL": f"sqlite:///{folder}/documents.db",
            "MYBMW_ORIGIN": maker.origin,
            "THREADS": "32",
            # What is measured sends more than any caller should.
            **{name.upper(): "" for name in Settings.model_fields if name.startswith("limit_")},
        }
        key = issue_key(environ)
        clock = ManualClock()
        origins = [
            _revision(stack, {**environ, **faults}, folder / name) for name, faults in (("1", {}), ("2", defect))
        ]
        revisions: list[dict[str, Any]] = [
            {"name": name, "origin": origin, "flags": {}}
            for name, origin in zip((STABLE, CANARY), origins, strict=True)
        ]
        service = {
            "revisions": revisions,
            "percents": {STABLE: 100},
            "tags": {"canary": CANARY, "previous": STABLE},
            "labels": {},
            "url": origins[0],
        }
        gcloud = Installed(folder / "gcloud", {"services": {SERVICE: service}})
        cloud = stack.enter_context(running_cloud(gcloud.state, SERVICE, clock))
        for revision in revisions:
            revision["door"] = cloud.tagged_url(revision["name"])
        gcloud.change(services={SERVICE: service})
        account, vins = _link(origins[0], key)
        yield Stage(cloud, gcloud, maker, clock, key, account, vins)


def _revision(stack: ExitStack, environ: Mapping[str, str], log: Path) -> str:
    port = free_port()
    source = f"--source={_ROOT / 'scorecard' / 'faulty_revision.py'}"
    command = [sys.executable, "-m", "functions_framework", "--target=bmw_api", source, "--host=127.0.0.1"]
    server = Server("revision", [*command, f"--port={port}"], environ=environ, cwd=_ROOT, log=log)
    stack.enter_context(server)
    server.wait_until_answers(f"http://127.0.0.1:{port}/health")
    return f"http://127.0.0.1:{port}"


def _link(origin: str, key: str) -> tuple[str, list[str]]:
    """A linked account and the VINs of its cars."""

    def ask(**fields: str) -> dict[str, Any]:
        answer = httpx.post(origin, json=fields, headers={"X-API-Key": key}, timeout=60, trust_env=False)
        answer.raise_for_status()
        result: dict[str, Any] = answer.json()["result"]
        return result

    email = f"fleet-{FLEET}@example.com"
    account = ask(action="connect", email=email, password="demo-password", hcaptcha="canary")["account"]  # noqa: S106 - public, sandbox/README.md
    return account, [vehicle["vin"] for vehicle in ask(action="vehicles", account=account)["vehicles"]]

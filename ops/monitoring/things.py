"""Everything that is installed in a project, in an order in which it can be: what each is, and where it is found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ops.monitoring.definitions import FOLDER, Definition, load, read


@dataclass(frozen=True, slots=True)
class Thing:
    """One resource of Google's, of which there must be one."""

    kind: str
    name: str
    """Ours; Google's own may be another."""
    body: Definition
    collection: str
    """The path where it is made, and listed."""
    at: str | None = None
    """Its own path, where we choose it. Otherwise Google does, and it is found by its ``displayName``."""
    id_parameter: str | None = None
    """How the request that makes it is told the id that ends its path."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.kind} {self.name}"


def things(values: Mapping[str, str]) -> Iterator[Thing]:
    """Metrics before what is made of them, SLOs before their alerts."""
    project = f"projects/{values['PROJECT']}"
    ours = f"draiv-{values['ENVIRONMENT']}"
    metrics = f"/v2/{project}/metrics"
    for name, body in load("metrics", values).items():
        yield Thing("metric", name, body, metrics, at=f"{metrics}/{quote(body['name'], safe='')}")
    services = f"/v3/{project}/services"
    service = read(FOLDER / "service.json", values)
    yield Thing("service", ours, service, services, at=f"{services}/{ours}", id_parameter="serviceId")
    slos = f"{services}/{ours}/serviceLevelObjectives"
    for name, body in load("slos", values).items():
        yield Thing("SLO", name, body, slos, at=f"{slos}/{name}", id_parameter="serviceLevelObjectiveId")
    for name, body in load("uptime", values).items():
        yield Thing("uptime check", name, body, f"/v3/{project}/uptimeCheckConfigs")
    for name, body in load("alerts", values).items():
        yield Thing("alert", name, body, f"/v3/{project}/alertPolicies")
    dashboards = f"/v1/{project}/dashboards"
    dashboard = read(FOLDER / "dashboard.json", values)
    yield Thing(
        "dashboard",
        ours,
        {"name": f"{project}/dashboards/{ours}", **dashboard},
        dashboards,
        at=f"{dashboards}/{ours}",
    )

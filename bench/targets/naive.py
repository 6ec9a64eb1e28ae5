"""The naive wrapper: what most people write around bimmer-connected. A new account and a new loop a request.

Two things favour it: it is given an access token that stays valid, so it never logs in, and the simulated maker
speaks plain HTTP, so it never pays for a TLS handshake.
"""

import asyncio
import json
import logging
import os

import flask
import flask.typing
import functions_framework
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.api import client
from bimmer_connected.const import Regions
from bimmer_connected.utils import MyBMWJSONEncoder

# The library knows BMW's own hosts only. This is the one line that no wrapper in the wild has.
setattr(client, "get_server_url", lambda _region: os.environ["BENCH_ORIGIN"])  # noqa: B010 -- not a public name

logging.basicConfig(level=logging.WARNING)


@functions_framework.http
def naive(request: flask.Request) -> flask.typing.ResponseReturnValue:
    """Read the fuel and battery of the account's first vehicle."""
    if request.method == "GET":
        return {"status": "healthy"}
    account = MyBMWAccount(os.environ["BENCH_EMAIL"], os.environ["BENCH_PASSWORD"], Regions.REST_OF_WORLD)
    account.set_refresh_token(
        refresh_token=os.environ["BENCH_REFRESH_TOKEN"],
        gcid=os.environ["BENCH_GCID"],
        access_token=os.environ["BENCH_ACCESS_TOKEN"],
    )
    asyncio.run(account.get_vehicles())
    vehicle = account.vehicles[0]
    result = json.loads(json.dumps(vehicle.fuel_and_battery, cls=MyBMWJSONEncoder))
    return {"success": True, "action": "fuel", "vin": vehicle.vin, "vehicle_name": vehicle.name, "result": result}

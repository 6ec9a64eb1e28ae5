"""What is measured, in this order. Another scenario is one file here and one row below."""

from bench.scenarios.async_server import AsyncServer
from bench.scenarios.authentication import Authentication
from bench.scenarios.calibration import Calibration
from bench.scenarios.cold_start import ColdStart
from bench.scenarios.endurance import Endurance
from bench.scenarios.growth import Growth
from bench.scenarios.overhead import Overhead
from bench.scenarios.reads import Reads
from bench.scenarios.second_level import SecondLevel
from bench.scenarios.single_flight import SingleFlight
from bench.scenarios.workers import Workers
from bench.stage import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    Calibration(),
    Reads(),
    Overhead(),
    SingleFlight(),
    ColdStart(),
    Authentication(),
    SecondLevel(),
    Growth(),
    Workers(),
    AsyncServer(),
    Endurance(),
)

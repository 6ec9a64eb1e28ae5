"""What is measured, in this order. Another scenario is one file here and one row below."""

from bench.scenarios.calibration import Calibration
from bench.scenarios.cold_start import ColdStart
from bench.scenarios.overhead import Overhead
from bench.scenarios.reads import Reads
from bench.scenarios.single_flight import SingleFlight
from bench.stage import Scenario

SCENARIOS: tuple[Scenario, ...] = (Calibration(), Reads(), Overhead(), SingleFlight(), ColdStart())

"""Which providers there are, and when each is built."""

import threading
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.errors import NotSupported
from common.metrics import Metrics
from common.settings import Settings
from common.stores.documents import Documents
from functions.providers.port import Provider
from functions.providers.registry import FACTORIES, Factory, Parts, Providers
from functions.tokens import TokenKeeper
from tests.support.fake_provider import FakeMaker


@pytest.fixture
def parts(documents: Documents, clock: ManualClock) -> Parts:
    settings = Settings(mybmw_origin="http://127.0.0.1:9")
    return Parts(settings, TokenKeeper(documents, clock), documents, clock, Metrics(set()))


def factory(maker: FakeMaker, built: list[str], name: str) -> Factory:
    def build(_parts: Parts) -> Provider:
        built.append(name)
        return maker.provider(name)

    return build


def test_a_provider_is_built_when_it_is_first_needed_and_once(parts: Parts, maker: FakeMaker) -> None:
    built: list[str] = []
    providers = Providers(("a", "b"), parts, {name: factory(maker, built, name) for name in "ab"})
    assert (providers.names, built) == (("a", "b"), [])
    assert providers.get("b") is providers.get("b")
    assert (providers.get("b").name, built) == ("b", ["b"])


def test_many_threads_build_it_once(parts: Parts, maker: FakeMaker) -> None:
    built: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(_parts: Parts) -> Provider:
        built.append("a")
        inside.set()
        go_on.wait(10)
        return maker.provider("a")

    providers = Providers(("a",), parts, {"a": slow})
    got: list[Provider] = []
    threads = [threading.Thread(target=lambda: got.append(providers.get("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (len(got), len({id(provider) for provider in got}), built) == (8, 1, ["a"])


def test_a_provider_that_could_not_be_built_is_tried_again(parts: Parts, maker: FakeMaker) -> None:
    outcomes: list[Exception | Provider] = [OSError("no"), maker.provider("a")]

    def build(_parts: Parts) -> Provider:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    providers = Providers(("a",), parts, {"a": build})
    with pytest.raises(OSError, match="no"):
        providers.get("a")
    assert providers.get("a").name == "a"


@pytest.mark.parametrize("name", ["b", "c", ""])
def test_what_is_not_offered_is_not_supported_even_where_we_could(parts: Parts, maker: FakeMaker, name: str) -> None:
    built: list[str] = []
    providers = Providers(("a",), parts, {known: factory(maker, built, known) for known in "ab"})
    with pytest.raises(NotSupported):
        providers.get(name)
    assert built == []


def test_an_unknown_name_stops_the_service(parts: Parts) -> None:
    with pytest.raises(ValueError, match="PROVIDERS names unknown providers: audi, opel"):
        Providers(("mybmw", "opel", "audi"), parts)


async def test_closing_closes_those_that_were_built(parts: Parts, clock: ManualClock) -> None:
    makers = {name: FakeMaker(clock) for name in "ab"}
    providers = Providers("ab", parts, {name: factory(maker, [], name) for name, maker in makers.items()})
    providers.get("a")
    await providers.close()
    assert (makers["a"].calls["close"], makers["b"].calls["close"]) == (1, 0)


async def test_the_table_builds_mybmw_with_all_its_capabilities(parts: Parts) -> None:
    assert set(FACTORIES) == {"mybmw", "cardata"}
    providers = Providers(("mybmw",), parts)
    provider = providers.get("mybmw")
    assert provider.name == "mybmw"
    assert None not in (provider.log_in, provider.images, provider.commands)
    assert provider.image_views
    await providers.close()


def test_every_package_of_a_maker_is_in_the_table() -> None:
    packages = {path.parent.name for path in Path(__file__).parents[3].glob("functions/providers/*/provider.py")}
    assert packages == set(FACTORIES)

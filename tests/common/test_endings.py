"""What a process does last."""

from common import endings


def test_each_ending_is_called_once_the_last_one_first_and_none_stops_the_others() -> None:
    said: list[str] = []
    endings.at_end(lambda: said.append("first"))
    endings.at_end(lambda: said.append(str(1 / 0)))
    endings.at_end(lambda: said.append("last"))
    endings.end()
    endings.end()
    assert said == ["last", "first"]

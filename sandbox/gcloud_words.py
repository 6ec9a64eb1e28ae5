"""The simulated gcloud's command line: which words and flags there are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sandbox.gcloud_world import World


class Usage(Exception):
    """The command line makes no sense."""


class Failed(Exception):
    """The platform refuses."""

    def __init__(self, says: str, status: int = 1) -> None:
        super().__init__(says)
        self.status = status


# Named tuples and no dataclasses, which take a third of the time that a simulated command takes.
class Asked(NamedTuple):
    """A command that was understood."""

    words: tuple[str, ...]
    """The positional ones."""
    flags: Mapping[str, str]
    """By name with its dashes; a switch has the value ``true``."""
    work: Callable[[World, "Asked"], Any]


class Command(NamedTuple):
    """What a command takes and does."""

    work: Callable[[World, Asked], Any]
    positional: int | None
    """How many words; None for any number."""
    values: str = ""
    """Flags that take a value, without dashes, separated by spaces."""
    switches: str = ""


Commands = Mapping[str, Command]
_EVERYWHERE = ("project", "format", "flatten", "filter")


def parse(argv: list[str], commands: Commands) -> Asked:
    """Raises Usage."""
    name = next((n for n in sorted(commands, key=len, reverse=True) if argv[: len(n.split())] == n.split()), None)
    if name is None:
        raise Usage(f"Invalid choice: '{' '.join(argv[:3])}'.")
    command = commands[name]
    values = {f"--{flag}" for flag in (*command.values.split(), *_EVERYWHERE)}
    switches = {f"--{flag}" for flag in (*command.switches.split(), "quiet")}
    words, flags = [], {}
    left = argv[len(name.split()) :]
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("--"):
            words.append(word)
        elif word in switches:
            flags[word] = "true"
        elif flag not in values:
            raise Usage(f"unrecognized arguments: {word}")
        elif not equals and (not left or left[0].startswith("-")):
            raise Usage(f"argument {flag}: expected one argument")
        else:
            flags[flag] = value if equals else left.pop(0)
    if command.positional is not None and len(words) != command.positional:
        raise Usage(f"{name} takes {command.positional} arguments, and not {words}")
    return Asked(tuple(words), flags, command.work)


def pairs(text: str, separator: str = ",") -> dict[str, str]:
    """``a=b,c=d``, or with another separator ``^|^a=b|c=d``, as the real one reads them."""
    if text.startswith("^"):
        separator, _, text = text[1:].partition("^")
    return dict(part.partition("=")[::2] for part in text.split(separator) if part)

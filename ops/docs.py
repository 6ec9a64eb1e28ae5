"""The generated pages: what the code says about itself, written down for those who do not read code.

``python -m ops.docs`` writes them; ``--check`` writes nothing and exits 1 where one is stale.
"""

import argparse
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from common import errors
from common.settings import Settings
from functions import openapi
from functions.actions.catalogue import CATALOGUE, example
from functions.actions.spec import ActionSpec
from ops import docs_cardata

ROOT = Path(__file__).resolve().parent.parent
Page = Callable[[], str]


def errors_page() -> str:
    """``docs/errors.md``: the error tree, one section a code."""
    leaves = errors.BY_CODE.values()
    overview = [
        [f"[{leaf.code}](#{leaf.code.lower()})", str(leaf.status), _yes(leaf.retryable), leaf.resolution.value]
        for leaf in leaves
    ]
    sections = [
        f"### {leaf.code}\n\n> {leaf.summary}\n\n{_sentence(leaf)}\n\n"
        f"HTTP {leaf.status}; type `{leaf.__name__}`; {'retryable' if leaf.retryable else 'not retryable'}; "
        f"`{leaf.resolution.value}`; circuit breaker: {_VOTES[leaf.vote]}.\n"
        for leaf in leaves
    ]
    return _page(
        "common/errors.py",
        "Errors",
        _ERRORS_INTRODUCTION,
        _table(["code", "HTTP", "retryable", "resolution"], overview),
        "## Each code\n\nThe quoted line is the usual `message`; a request may get a more precise one.\n",
        *sections,
    )


_ERRORS_INTRODUCTION = """\
A failed request answers `{"success": false, "error": {...}}` with the HTTP status of the error's code. `message` and
`details` are written by this service: they never repeat what a car maker said, and never hold a secret.

- `retryable`: the same request may work later. Wait `retry_after` seconds (also the `Retry-After` header) where it is
  given, otherwise back off exponentially. It is false for a command that may have reached the car.
- `may_have_succeeded`: a command may have been carried out although this error came back. Do not send it again; ask
  with `command_status`, or read the vehicle with `fresh`.
- `resolution.type`: `RETRY_LATER`, `REAUTHENTICATE` (connect the account again), `FIX_REQUEST` (it will never work as
  it stands) or `CONTACT_SUPPORT` (quote `request_id`).
"""

_VOTES = {
    errors.Vote.FAILURE: "counts as a failure of the maker",
    errors.Vote.NONE: "not counted",
    errors.Vote.HOLD: "opens it at once",
}


def _sentence(cls: type[errors.ApiError]) -> str:
    return " ".join((inspect.getdoc(cls) or "").replace("``", "`").split())


def actions_page() -> str:
    """``docs/actions.md``: the catalogue, one section an action."""
    overview = [
        [
            f"[{spec.name}](#{spec.name})",
            spec.kind.value,
            spec.target.value,
            f"`{spec.scope.value}`" if spec.scope else "any caller",
            spec.summary,
        ]
        for spec in CATALOGUE
    ]
    return _page(
        "functions/actions/",
        "All actions",
        _ACTIONS_INTRODUCTION,
        _table(["action", "kind", "needs", "scope", "what it does"], overview),
        "## Each action\n",
        *map(_action_section, CATALOGUE),
    )


_ACTIONS_INTRODUCTION = """\
Every action is a `POST` of one JSON object to the service's root. The [guide](guide.md) explains the fields that all of
them share; `params` holds what is listed here. An action that *needs* an account takes `account`, or `email` and
`password`; one that needs a vehicle also takes `vin`, unless the account has exactly one.
"""


def _action_section(spec: ActionSpec) -> str:
    facts = [f"Also called {' and '.join(f'`{alias}`' for alias in spec.aliases)}."] if spec.aliases else []
    if spec.cacheable:
        facts.append("Answered from the cache where that is fresh enough.")
    parts = [f"### {spec.name}\n", f"{' '.join([spec.summary, *facts])}\n"]
    schema = spec.params.model_json_schema()
    rows = [
        [
            f"`{name}`",
            _values(shape),
            "yes" if name in schema.get("required", ()) else "no",
            shape.get("description", ""),
        ]
        for name, shape in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(_table(["param", "values", "required", "meaning"], rows))
    parts.append(f"```json\n{json.dumps(example(spec), ensure_ascii=False)}\n```\n")
    return "\n".join(parts)


def _values(shape: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in shape:
        return _values(next(part for part in shape["anyOf"] if part.get("type") != "null"))
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    kind: str = shape["type"]
    words = {"integer": "whole number", "string": "text", "boolean": "`true` or `false`"}.get(kind, kind)
    if "minimum" in shape and "maximum" in shape:
        words += f", {shape['minimum']} to {shape['maximum']}"
    if "multipleOf" in shape:
        words += f", in steps of {shape['multipleOf']}"
    return words


def openapi_page() -> str:
    """``docs/openapi.json``: what ``GET /openapi.json`` answers."""
    return json.dumps(openapi.document(), indent=2, ensure_ascii=False) + "\n"


def configuration_page() -> str:
    """``docs/configuration.md``: every setting, from the settings model."""
    rows = [
        [f"`{name.upper()}`", _kind(field.annotation), _default(field), field.description or ""]
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "common/settings.py",
        "Configuration",
        _CONFIGURATION_INTRODUCTION,
        _table(["variable", "values", "default", "meaning"], rows),
    )


_CONFIGURATION_INTRODUCTION = """\
Settings are environment variables, read once when the first request arrives. A value that cannot be used stops the
service from answering anything but an error, and the log names the variable (never its value). `bmw_api_staging` reads
`STAGING_X` before `X`, so that both entry points can share one environment. There it needs a `STAGING_DOCUMENTS_URL`,
and a `KEYS_URL`, `TOKEN_KEYS` and `AUDIT_KEY` of its own where these are set: it does not start with another's.
"""


def cardata_page() -> str:
    """``docs/cardata.md``: written by hand, but for the table of what each provider reports."""
    return docs_cardata.page((ROOT / "docs/cardata.md").read_text())


def _kind(annotation: Any) -> str:  # noqa: ANN401 - a type annotation can be anything
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" if value else "empty" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is tuple:
        return "list, comma-separated"
    if get_origin(annotation) is Mapping:
        return "pairs `name=value`, comma-separated"
    return {float: "number", int: "whole number", str: "text", bool: "`true` or `false`"}[annotation]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    shown = ",".join(value) if isinstance(value, tuple) else value
    return "none" if shown in (None, "", {}) else f"`{shown}`"


def _page(source: str, title: str, *parts: str) -> str:
    return "\n".join([f"<!-- Written by `make docs` from {source}; edit that instead. -->\n\n# {title}\n", *parts])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


PAGES: dict[str, Page] = {
    "docs/actions.md": actions_page,
    "docs/errors.md": errors_page,
    "docs/configuration.md": configuration_page,
    "docs/openapi.json": openapi_page,
    "docs/cardata.md": cardata_page,
}


def stale(root: Path) -> list[str]:
    """The pages under ``root`` that do not say what the code says."""
    return [name for name, page in PAGES.items() if not (root / name).is_file() or (root / name).read_text() != page()]


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.docs", description="Write the generated pages.")
    parser.add_argument("--check", action="store_true", help="only say which pages are stale, and exit 1 if any is")
    asked = parser.parse_args(argv)
    old = stale(root)
    if asked.check and old:
        print(f"Stale: {', '.join(old)}. Run `make docs`.", file=sys.stderr)
        return 1
    for name in old:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(PAGES[name]())
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

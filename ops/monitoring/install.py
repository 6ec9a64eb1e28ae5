"""``python -m ops.monitoring.install --project P --environment production --channel C``: makes a project watch us.

Installs the definitions in this folder, or brings what is there up to date; doing it again changes nothing more.
``--dry-run`` says what it would do, ``--check`` what is missing. Exits with 0 where all is there, with 1 where
something is missing or was refused, with 2 where nothing could be begun.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import httpx

from ops.canary_gcloud import Gcloud, GcloudFailed
from ops.monitoring.definitions import values_of
from ops.monitoring.google import Google, NotInstalled
from ops.monitoring.things import Thing, things


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Returns the exit status."""
    asked = _parse(argv)
    gcloud = Gcloud(environ)
    wanted = list(things(values_of(asked.project, asked.environment, asked.channel or "")))
    try:
        with httpx.Client(timeout=60) as client:
            google = Google(
                client,
                lambda: gcloud.run("auth", "print-access-token"),
                pause=pause,
                say=_say,
                base_url=asked.google,
            )
            if asked.check:
                return _check(google, wanted)
            for said in install(google, wanted, dry_run=asked.dry_run):
                _say(said)
    except GcloudFailed as failed:
        print(f"monitoring: {failed}", file=sys.stderr)
        return 2
    except NotInstalled as refused:
        print(f"monitoring: {refused}\nmonitoring: do it again when that is mended", file=sys.stderr)
        return 1
    return 0


def install(google: Google, wanted: Iterable[Thing], *, dry_run: bool = False) -> Iterable[str]:
    """Make or update each; what was done, for people. Raises NotInstalled."""
    finder = _Finder(google)
    for thing in wanted:
        path, found = finder.find(thing)
        verb = "updated" if found else "created"
        if dry_run:
            yield f"{thing.title}: would be {verb}"
            continue
        if thing.kind == "metric":
            google.put("PUT", path, thing.body)  # which also creates
        elif found:
            # A dashboard is only replaced by who has seen it.
            seen: dict[str, Any] = {name: found[name] for name in ("name", "etag") if name in found}
            google.put("PATCH", path, {**thing.body, **seen})
        else:
            named = {thing.id_parameter: path.rpartition("/")[2]} if thing.id_parameter else {}
            google.put("POST", thing.collection, thing.body, **named)
        yield f"{thing.title}: {verb}"


def missing(google: Google, wanted: Iterable[Thing]) -> list[Thing]:
    """Those that are not there. Whether what is there is up to date only Google could tell. Raises NotInstalled."""
    finder = _Finder(google)
    return [thing for thing in wanted if finder.find(thing)[1] is None]


class _Finder:
    """Looks things up, each list once."""

    def __init__(self, google: Google) -> None:
        self._google = google
        self._lists: dict[str, list[dict[str, Any]]] = {}

    def find(self, thing: Thing) -> tuple[str, dict[str, Any] | None]:
        """Its path, as far as it is known, and what is there."""
        if thing.at is not None:
            return thing.at, self._google.get(thing.at)
        found = [one for one in self._listed(thing.collection) if one.get("displayName") == thing.body["displayName"]]
        if len(found) > 1:
            others = ", ".join(one["name"] for one in found[1:])
            raise NotInstalled(f"{thing.title} is there {len(found)} times: delete {others}")
        version = thing.collection.split("/")[1]
        return (f"/{version}/{found[0]['name']}", found[0]) if found else ("", None)

    def _listed(self, collection: str) -> list[dict[str, Any]]:
        if collection not in self._lists:
            kept, token = [], ""
            while True:
                page = self._google.get(collection, **({"pageToken": token} if token else {})) or {}
                kept += page.get(collection.rpartition("/")[2], [])
                token = page.get("nextPageToken", "")
                if not token:
                    break
            self._lists[collection] = kept
        return self._lists[collection]


def _check(google: Google, wanted: list[Thing]) -> int:
    absent = missing(google, wanted)
    there = Counter(thing.kind for thing in wanted) - Counter(thing.kind for thing in absent)
    for kind, count in Counter(thing.kind for thing in wanted).items():
        _say(f"{kind}: {there[kind]} of {count}")
    for thing in absent:
        _say(f"missing: {thing.title}")
    return 1 if absent else 0


def _say(text: str) -> None:
    print(f"monitoring: {text}", flush=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops.monitoring.install", description=__doc__)
    parser.add_argument("--project", required=True)
    parser.add_argument("--environment", choices=("staging", "production"), required=True)
    parser.add_argument("--channel", help="who is told: projects/P/notificationChannels/ID")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--google", metavar="URL", help="another than Google's APIs, for a simulator")
    asked = parser.parse_args(argv)
    if not asked.check and not asked.channel:
        parser.error("--channel is needed: gcloud beta monitoring channels list")
    return asked


if __name__ == "__main__":
    sys.exit(main())

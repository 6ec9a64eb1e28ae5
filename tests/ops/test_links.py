"""Tests of the written pages: what they link to is there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
)
PAGES = sorted(name for name in _TRACKED.stdout.splitlines() if (ROOT / name).is_file())


def anchors(page: str) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.skipif(not PAGES, reason="not a git checkout")
@pytest.mark.parametrize("name", PAGES)
def test_every_link_within_the_repository_leads_somewhere(name: str) -> None:
    page = re.sub(r"(?ms)^```.*?^```", "", (ROOT / name).read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        path, _, fragment = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        linked = (ROOT / name).parent / path if path else ROOT / name
        assert linked.exists(), target
        if fragment:
            assert fragment in anchors(linked.read_text()), target

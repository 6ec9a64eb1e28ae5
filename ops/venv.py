"""Make ``.venv`` hold exactly what ``requirements-dev.txt`` locks, and do nothing where it does already.

Runs on the system's own Python before anything is installed, so it uses the standard library only. The stamp is
written last: an interrupted installation is simply done again.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent


def fingerprint(lock: Path) -> str:
    """What an installation depends on: the lock's content, the interpreter and where the checkout stands."""
    parts = (lock.read_bytes(), sys.version.encode(), str(lock.parent).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def ensure(root: Path) -> bool:
    """Create or refresh ``root/.venv``; true where something had to be done."""
    lock, venv = root / "requirements-dev.txt", root / ".venv"
    stamp, wanted = venv / ".installed", fingerprint(lock)
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    print("Installing into .venv what requirements-dev.txt locks; this takes about a minute, once.", flush=True)
    stamp.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The lock names everything, so pip has nothing to resolve: its resolver would let a release that came out after the
    # lock win wherever a package is asked for with extras, and then refuse it for having no hash.
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
    subprocess.run([*pip[:3], "check", "--disable-pip-version-check"], check=True, stdout=subprocess.DEVNULL)
    stamp.write_text(wanted)
    return True


def main(root: Path = ROOT, version: "tuple[int, ...]" = sys.version_info[:2]) -> int:
    """Returns the exit status."""
    if version < OLDEST:
        names = (*OLDEST, sys.executable, *version)
        print("This needs Python {}.{} or newer and {} is {}.{}. ".format(*names), end="", file=sys.stderr)
        print("Name another: make PYTHON=python3.12 ...", file=sys.stderr)
        return 1
    try:
        ensure(root)
    except subprocess.CalledProcessError as failed:
        print(f"Could not install: `{' '.join(failed.cmd)}` failed. Its output is above.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

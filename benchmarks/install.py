"""Build and install the servers of the benchmark, and say which versions there are.

Everything goes into folders of `benchmarks/` that git ignores: `.venv`, `node_modules`, `build`.
What cannot be had is returned with its reason; nothing here raises for one missing peer. Called by
`run.py`; the tests call `build_c` too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .servers import BENCH, BUILD, OURS, PYTHON, ROOT, Kind, ServerSpec

C_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
DEBIAN_GO = "/usr/share/gocode"
"""Where Debian's golang-…-dev packages put their sources."""


def run(command: Iterable[object], **options: object) -> str:
    """Run a command; return what it printed. Raises `RuntimeError` with the end of its output."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise RuntimeError(f"{words[0]} is not installed") from None
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {(done.stderr or done.stdout).strip()[-400:]}")
    return str(done.stdout)


def build_c(build: Path = BUILD) -> None:
    """Compile the generator and the kernel program."""
    build.mkdir(parents=True, exist_ok=True)
    for name in ("load", "kernel"):
        run([os.environ.get("CC", "cc"), *C_FLAGS, "-o", build / name, BENCH / f"{name}.c"])


def build_go() -> None:
    """Compile the Go peer with Debian's source packages; no module proxy is asked."""
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": DEBIAN_GO, "GOFLAGS": ""}
    target, source = BUILD / "gorilla", BENCH / "peers" / "gorilla_server.go"
    run(["go", "build", "-o", target, source], env=environment)


def bring_debian(packages: tuple[str, ...]) -> None:
    """Install Debian packages where that is possible without asking anybody."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise RuntimeError("needs the Debian packages " + " and ".join(packages))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=environment)


def install_go() -> None:
    if shutil.which("go") is None or not Path(DEBIAN_GO, "src/github.com/gorilla").exists():
        bring_debian(("golang-go", "golang-github-gorilla-websocket-dev"))
    build_go()


def install_node() -> None:
    """Install the Node.js peers by `package.json`, without a lock file."""
    if shutil.which("npm") is None:
        bring_debian(("nodejs", "npm"))
    flags = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
    run(["npm", "install", "--prefix", BENCH, *flags])


def install_python() -> dict[str, str]:
    """Make the environment of the Python peers; return which packages failed, with the reason."""
    wanted = requirements()
    stamp = BENCH / ".venv" / "installed"
    digest = hashlib.sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return {}
    run([sys.executable, "-m", "venv", "--clear", BENCH / ".venv"])
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "-e", ROOT])
    failed: dict[str, str] = {}
    try:
        run([*pip, *wanted])
    except RuntimeError:
        for requirement in wanted:
            try:
                run([*pip, requirement])
            except RuntimeError as error:
                failed[requirement.partition("==")[0]] = last_line(error)
    if not failed:
        stamp.write_text(digest)
    return failed


def requirements() -> list[str]:
    """Return the pins of the Python peers, comments left out."""
    lines = (BENCH / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def last_line(error: Exception) -> str:
    """Return the line of an error that says the most: its last one."""
    return str(error).strip().splitlines()[-1].strip()


def install(specs: Iterable[ServerSpec]) -> dict[str, str]:
    """Bring everything that these servers need; return the missing ones with the reason."""
    build_c()
    chosen = list(specs)
    missing: dict[str, str] = {}
    failed = install_python()
    for kind, bring in (("go", install_go), ("node", install_node)):
        members = [spec for spec in chosen if spec.kind == kind]
        try:
            if members:
                bring()
        except RuntimeError as error:
            missing.update((member.name, last_line(error)) for member in members)
    here = versions(chosen)
    for spec in chosen:
        if spec.kind == "python":
            absent = [name for name in spec.packages if name not in here[spec.name]]
            reasons = [failed.get(name, "not for this Python or platform") for name in absent]
            if absent:
                missing[spec.name] = f"{', '.join(absent)}: {reasons[0]}"
    if OURS.name in missing:
        raise SystemExit(f"Hubbub itself cannot be installed: {missing[OURS.name]}")
    return missing


def versions(specs: Iterable[ServerSpec]) -> dict[str, dict[str, str]]:
    """Return for each server the versions of its packages that are installed."""
    listed = json.loads(run([PYTHON, "-m", "pip", "list", "--format=json"]))
    python: dict[str, str] = {row["name"].lower(): row["version"] for row in listed}

    def version_of(kind: Kind, package: str) -> str | None:
        if kind == "python":
            return python.get(package.lower())
        return node_version(package) if kind == "node" else debian_version(package)

    found: dict[str, dict[str, str]] = {}
    for spec in specs:
        known = {name: version_of(spec.kind, name) for name in spec.packages}
        found[spec.name] = {name: version for name, version in known.items() if version}
    return found


def node_version(package: str) -> str | None:
    path = BENCH / "node_modules" / package / "package.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.exists() else None


def debian_version(package: str) -> str | None:
    try:
        return run(["dpkg-query", "-W", "-f", "${Version}", package]).strip() or None
    except RuntimeError:
        return None

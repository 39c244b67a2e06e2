"""What the figures depend on: the machine, its kernel, the compilers. Called by `run.py`."""

from __future__ import annotations

import gzip
import os
import platform
from pathlib import Path

from . import install
from .servers import ROOT


def first_line(*command: str) -> str:
    try:
        return install.run(command).strip().splitlines()[0]
    except (RuntimeError, IndexError):
        return "none"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def softirq_accounting() -> str:
    """Say whether the kernel charges a process for the softirq work of its own system calls.

    Loopback's receive path is such work. With CONFIG_IRQ_TIME_ACCOUNTING it is charged to nobody,
    and every server looks cheaper than it is, those that make the most system calls most of all.
    """
    for path, opener in (
        ("/proc/config.gz", gzip.open),
        (f"/boot/config-{platform.release()}", open),
    ):
        try:
            with opener(path, "rt") as config:
                text = str(config.read())
        except OSError:
            continue
        is_apart = "\nCONFIG_IRQ_TIME_ACCOUNTING=y" in text
        return "not charged to the server" if is_apart else "charged to the server"
    return "unknown"


def describe() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": f"{processor()}, {cores} cores for us",
        "memory": f"{memory_gib():.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "softirq time": softirq_accounting(),
        "Python": platform.python_version(),
        "C compiler": first_line(os.environ.get("CC", "cc"), "--version"),
        "Go": first_line("go", "version"),
        "Node.js": first_line("node", "--version"),
    }


def commit() -> str:
    """Return the commit that was measured, with a plus when the tree had changes."""
    head = first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = first_line("git", "-C", str(ROOT), "status", "--porcelain", "--", "src", "benchmarks")
    return head if changed == "none" else head + "+"

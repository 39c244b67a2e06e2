"""The system monitor's model: processor, memory, clients and message rates of this process.

psutil answers where it is installed; the standard library does what it can where it is not.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .clock import iso_now

try:
    import psutil
except ImportError:
    psutil = None

MAX_READINGS = 90
_MIB = 1024**2

Stats = Mapping[str, Any]


def worker_number() -> int:
    """Return which of the server's processes this is, from 1; one that is started again has a new number."""
    number = multiprocessing.current_process().name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 1


def memory_mib() -> float:
    """Return the resident memory of this process in MiB."""
    if psutil is not None:
        return round(float(psutil.Process().memory_info().rss) / _MIB, 1)
    return round(_memory_without_psutil() / _MIB, 1)


def machine_percent() -> float | None:
    """Return how busy the whole machine is, in percent; None where nobody can say."""
    if psutil is not None:
        return float(psutil.cpu_percent())
    return _load_without_psutil()


def _load_without_psutil() -> float | None:
    try:
        return round(100 * min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), 1)
    except OSError:
        return None


def _memory_without_psutil() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # The peak is the best that other systems tell; macOS counts it in bytes, others in KiB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class SystemMonitor:
    """Turns counters into rates, reading after reading.

    `clock` and `cpu_clock` give seconds: of time, and of processor time that this process used.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._readings: deque[dict[str, object]] = deque(maxlen=MAX_READINGS)
        self._at = clock()
        self._cpu_s = cpu_clock()
        self._in = self._out = 0

    def read(self, stats: Iterable[Stats]) -> dict[str, object]:
        """Take a reading from the stats of all hubs; rates are per second since the last one."""
        hubs = list(stats)
        now, cpu_s = self._clock(), self._cpu_clock()
        passed_s = max(now - self._at, 0.001)
        came, went = _sum(hubs, "messages_in"), _sum(hubs, "messages_out")
        reading: dict[str, object] = {
            "type": "reading",
            "time": iso_now(),
            "cpu": round(100 * (cpu_s - self._cpu_s) / passed_s, 1),
            "machine": machine_percent(),
            "memory": memory_mib(),
            "clients": _sum(hubs, "clients"),
            "in": round((came - self._in) / passed_s, 1),
            "out": round((went - self._out) / passed_s, 1),
        }
        self._at, self._cpu_s, self._in, self._out = now, cpu_s, came, went
        self._readings.append(reading)
        return reading

    def history(self) -> list[dict[str, object]]:
        """Return the last readings, oldest first."""
        return list(self._readings)


def _sum(hubs: Iterable[Stats], name: str) -> int:
    return sum(int(stats[name]) for stats in hubs)

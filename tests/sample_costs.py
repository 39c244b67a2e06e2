"""Costs for tests: round numbers, so that what is measured anew changes no test of the model."""

from __future__ import annotations

from simulation.costs import Cost, Costs

COSTS = Costs(
    publish=Cost(80e-6, 10e-6, 10e-6),
    receive=Cost(50e-6, 10e-6, 4e-6),
    write=Cost(0.0, 8e-6, 1e-7),
    serve=Cost(20e-6, 5e-6, 1e-6),
    serve_worker=Cost(4e-6, 2e-6, 1e-7),
    back_s=400e-6,
    missed_s=1e-6,
    path_s=200e-6,
    rest=0.004,
    read=Cost(0.0, 15e-6, 1e-6),
    client_bytes=3000.0,
)

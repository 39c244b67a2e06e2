"""The benchmark: Hubbub and its peers, measured by turns on one machine.

`python -m benchmarks.run` (which is `make bench`) measures the servers and writes `docs/benchmarks.md`;
`python -m benchmarks.compression` writes the figures of the compression guide. `rooms` and what it starts are
the rows of rooms that remember. What must not live here: the load on a server of one's own, which is
`hubbub.bench`.
"""

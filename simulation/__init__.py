"""A simulation of many machines: what a cluster of hubs does that is larger than what can be measured.

It owns the model of workers, brokers and clients that come back, and the page that is computed with it. It must
not know the hub's code: what things cost it reads from the results of `benchmarks`.
"""

"""Brokers: the order of publications, and how they spread.

It owns what a broker owes, and the brokers. It must not know clients, sockets or fan-out: it is handed what
to call at start.
"""

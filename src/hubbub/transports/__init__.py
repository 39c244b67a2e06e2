"""Transports: how bytes reach one client, and how what it sends comes in.

It owns sockets, and the contract between a transport and its session. It must not know rooms, handlers or
dialects: of the hub it knows the session alone.
"""

"""Hub: who is connected and who is where, on one event loop.

It owns sessions, rooms, fan-out, handlers, limits and the life of a hub. It must not know clients' sockets,
HTTP or frameworks.
"""

"""ASGI: HTTP and the frameworks.

It owns handshakes, refusals, the lifespan and the routes. It must not know how a hub works inside: it
asks its parts by their verbs.
"""

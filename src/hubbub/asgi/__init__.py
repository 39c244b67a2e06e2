"""ASGI: HTTP and the frameworks.

It owns handshakes, refusals, the lifespan, the routes and the HTTP API. It must not know how a hub works inside: it
asks its parts by their verbs.
"""

"""Dialects: what bytes mean to a client.

It owns what the hub says to a client, and in what form. It must not know who gets a message, or how its
bytes travel.
"""

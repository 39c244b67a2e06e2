"""Wire: between messages and the bytes of RFC 6455 and 7692.

It owns the wire forms of a message, each made once, and what the bytes of a peer say. It must not know
sockets, event loops, clocks, or who gets a message.
"""

"""Messages: what an application gets of a message.

It owns the way from an annotation to a decoder. It must not know which handler gets a message, or what is
answered.
"""

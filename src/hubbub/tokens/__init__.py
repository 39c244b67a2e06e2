"""Tokens: JSON Web Tokens, whom they are for and until when.

It owns the keys that tokens are checked with, and what their claims mean. It must not know clients, rooms or
dialects: it reads a token, and who asks does what it says.
"""

from __future__ import annotations

from .claims import ConnectionToken, Override, SubscriptionOptions, SubscriptionToken
from .verifier import TokenVerifier

__all__ = [
    "ConnectionToken",
    "Override",
    "SubscriptionOptions",
    "SubscriptionToken",
    "TokenVerifier",
]

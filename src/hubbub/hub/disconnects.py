"""Disconnects: the table of why a hub closes a client by itself: code, counter, and line in the log.

What must not live here: how it is found out (`liveness`, `dispatcher`, the transports), and the
closing (`registry`). A new reason is a new row here, and a row of `errors` if it has a new code.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from ..errors import (
    BAD_REQUEST,
    CHANNEL_LIMIT,
    INTERNAL_ERROR,
    NO_PONG,
    NOT_AVAILABLE,
    REPLACED,
    SERVICE_RESTART,
    STALE,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    TOO_MANY_MESSAGES,
    TRY_AGAIN_LATER,
)
from ..errors import SLOW_CONSUMER as SLOW_CONSUMER_CODE


class Cause(NamedTuple):
    """Why a hub closes a client.

    `code` and `reason` go into the close frame. `counter` is the field of `stats.Stats` that counts
    it (None: it is counted elsewhere, or not at all), `text` the line of the log after the client's
    name, with a place for one detail (None: no line), `kind` under which lines are limited.
    """

    code: int
    reason: str
    counter: str | None = None
    level: int = logging.INFO
    kind: str = ""
    text: str | None = None


PING_TIMEOUT = Cause(
    NO_PONG, "no pong", "dead", logging.INFO, "dead", "showed no sign of life; closed"
)
HANDLER_TIMEOUT = Cause(
    TRY_AGAIN_LATER,
    "the handler takes too long",
    "stuck_handlers",
    logging.WARNING,
    "held",
    "has messages waiting for a handler that did not end for %g seconds; closed",
)
SLOW_CONSUMER = Cause(
    SLOW_CONSUMER_CODE,
    "slow consumer",
    "slow_disconnects",
    logging.WARNING,
    "slow",
    "is too slow: %s; closed",
)
EXPIRED = Cause(
    TOKEN_EXPIRED,
    "token expired",
    "expired",
    logging.INFO,
    "expired",
    "has a token that expired; closed",
)
ROOM_EXPIRED = Cause(
    SUBSCRIPTION_EXPIRED,
    "subscription expired",
    "expired",
    logging.INFO,
    "expired",
    "has no time left in %s, which the server put it into; closed",
)
REPLACED_BY_NEWER = Cause(
    REPLACED,
    "replaced",
    "replaced",
    logging.INFO,
    "replaced",
    "was replaced by a newer connection",
)
RATE_LIMITED = Cause(
    TOO_MANY_MESSAGES,
    "too many messages",
    None,  # each message too many is counted
    logging.WARNING,
    "rate",
    "sent more than %g messages per second; closed",
)
FRAMES_LIMITED = Cause(
    TOO_MANY_MESSAGES,
    "too many frames",
    None,
    logging.WARNING,
    "rate",
    "sent more than %g pings or fragments per second; closed",
)
CONNECT_FAILED = Cause(
    INTERNAL_ERROR,
    "internal error",
    "handler_errors",
    logging.ERROR,
    "register",
    "could not be taken in; closed",
)
NOT_BROUGHT_IN = Cause(
    TRY_AGAIN_LATER,
    "try again later",
    "handler_errors",
    logging.WARNING,
    "not brought in",
    "could not be brought in by a connect handler: %s; closed",
)
TOO_MANY_ROOMS = Cause(
    CHANNEL_LIMIT,
    "channel limit",
    "handler_errors",
    logging.WARNING,
    "not brought in",
    "could not be brought in by a connect handler: %s; closed for good",
)
INTERNAL_FAILURE = Cause(
    INTERNAL_ERROR,
    "internal error",
    None,
    logging.ERROR,
    "reading",
    "cannot be read any more; closed",
)
CONNECT_TIMEOUT = Cause(
    STALE,
    "stale: no connect command came; a plain client needs a route without a dialect",
    "stale",
    logging.INFO,
    "stale",
    "sent no connect command in time; closed",
)
BAD_COMMAND = Cause(
    BAD_REQUEST,
    "bad request",
    "protocol_errors",
    logging.INFO,
    "protocol",
    "sent a command out of place: %s; closed",
)
NO_HANDLER = Cause(
    NOT_AVAILABLE,
    "not available: this hub has room rules and no handler of messages",
    "invalid",
    logging.INFO,
    "invalid",
    "sent a message, which no handler takes here; closed",
)
WRONG_ROUTE = Cause(
    BAD_REQUEST,
    'this is a route of plain clients; rooms.js and SDKs need one with dialect="centrifuge"',
    "protocol_errors",
    logging.INFO,
    "protocol",
    "sent a connect command to a route of plain clients; closed",
)
SERVER_STOPPING = Cause(SERVICE_RESTART, "service restart")

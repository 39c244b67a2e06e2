"""A script for cron: it tells a room that the nightly report is there. It needs nothing but Python.

Run:   API_URL=http://localhost:8000/api API_KEY=… python3 nightly.py   (in this folder), where a hub has its API:
       hubbub serve --api-keys-file keys.txt, say, with the key as a line of keys.txt
Cron:  5 4 * * *  API_URL=http://localhost:8000/api API_KEY=… python3 nightly.py

A second run on the same day publishes nothing: the day is the message's idempotency key. It ends with 1, and one line
that says why, when the message was not taken; cron sends that by mail.
"""

import json
import os
import sys
from datetime import date
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ROOM = "news:reports"
TIMEOUT_S = 10


def call(url: str, key: str, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Call a method of the API; return its result, or raise `RuntimeError`."""
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    request = Request(f"{url}/{method}", json.dumps(fields).encode(), headers)
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:
            answer = json.load(response)
    except HTTPError as error:
        raise RuntimeError(f"{error.code} {error.reason}") from error
    if "error" in answer:
        raise RuntimeError(f"{answer['error']['code']} {answer['error']['message']}")
    result: dict[str, Any] = answer["result"]
    return result


def main() -> None:
    today = date.today().isoformat()
    fields = {
        "channel": ROOM,
        "data": {"type": "report", "day": today},
        "idempotency_key": f"report {today}",
    }
    try:
        call(os.environ["API_URL"], os.environ["API_KEY"], "publish", fields)
    except (OSError, RuntimeError) as error:
        sys.exit(f"the report of {today} was not announced: {error}")


if __name__ == "__main__":
    main()

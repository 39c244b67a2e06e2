"""A cron job that tells everybody in a room.

Needs: pip install './hubbub[valkey]'   (./hubbub is the checkout), and hubs on the same server
Run:   HUBBUB_BROKER=valkey://localhost:6379 python nightly.py news "The night was quiet"   (in this folder)
Cron:  0 3 * * *  HUBBUB_BROKER=valkey://localhost:6379 python nightly.py news "The night was quiet"
See:   HUBBUB_BROKER=valkey://localhost:6379 hubbub tail news
"""

import sys

from hubbub import BrokerUnavailable, Publisher


def main(room: str, text: str) -> None:
    with Publisher() as publisher:
        publisher.publish(room, {"text": text})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (BrokerUnavailable, ValueError) as error:  # away, or HUBBUB_BROKER is not set or wrong
        sys.exit(f"not published: {error}")

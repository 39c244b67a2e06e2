"""A management command of Django: it tells a user something.

Needs: pip install './hubbub[valkey]' django   (./hubbub is the checkout), and hubs on the same server
Run:   HUBBUB_BROKER=valkey://localhost:6379 python -m django notify --settings shop.settings --pythonpath . --user ann
       "Your parcel is here"   (in the folder that has `shop` in it)
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from hubbub import BrokerUnavailable, Publisher


class Command(BaseCommand):
    """Tell a user something, on all devices."""

    help = "Tell a user something, on all devices."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", required=True)
        parser.add_argument("text")

    def handle(self, *args: Any, **options: Any) -> None:
        with Publisher() as publisher:
            try:
                publisher.to_user(options["user"], {"text": options["text"]})
            except BrokerUnavailable as error:
                raise CommandError(str(error)) from error

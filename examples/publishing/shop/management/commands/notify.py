"""A management command of Django:  django-admin notify --user ann "Your parcel is here" """

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

"""The least that Django needs for a management command."""

INSTALLED_APPS = ["shop"]

"""`python -m hubbub` is the command `hubbub`. Nothing else lives here."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="hubbub")

#!/bin/sh
# Print the Python that a virtual environment is made with; with --all every one from 3.11 to 3.14,
# one path per line and version, newest first. Called by the Makefile.
#
#   find_python.sh [PYTHON]   the one named, else the newest on PATH, else the newest of pyenv's
#   find_python.sh --all      PATH and pyenv's versions; of each minor version the first found
#   find_python.sh --2.7      a Python 2.7, for the Autobahn test suite
set -u

usable() { # is $1 a Python in our range that can make environments?
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
        >/dev/null 2>&1
}

candidates() { # of minor version $1, in the order of preference
    command -v "python3.$1"
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$1."*/bin/"python3.$1" 2>/dev/null | sort -rV
}

first_of() { # the first usable candidate of minor version $1
    for python in $(candidates "$1"); do
        if usable "$python"; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

if [ "${1:-}" = --2.7 ]; then
    for python in $(command -v python2.7) \
        $(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 2>/dev/null | sort -rV); do
        if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' >/dev/null 2>&1; then
            echo "$python"
            exit 0
        fi
    done
    echo "The Autobahn test suite needs a Python 2.7, and none was found: install one (with pyenv:" \
         "pyenv install 2.7.18) and run the same command again." >&2
    exit 1
fi

if [ "${1:-}" = --all ]; then
    found=1
    for minor in 14 13 12 11; do first_of $minor && found=0; done
    exit $found
fi

if [ -n "${1:-}" ]; then
    if usable "$1"; then echo "$1"; exit 0; fi
    echo "$1 is not a Python from 3.11 to 3.14 that can make virtual environments." >&2
    exit 1
fi

for python in python3.14 python3.13 python3.12 python3.11 python3; do
    if usable "$python"; then command -v "$python"; exit 0; fi
done
for minor in 14 13 12 11; do
    if first_of $minor; then exit 0; fi
done
echo "No Python from 3.11 to 3.14 that can make virtual environments was found: install one" \
     "(Debian: apt-get install python3 python3-venv) or name one with PYTHON=/path/to/python." >&2
exit 1

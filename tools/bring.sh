#!/bin/sh
# Bring a program that the tests need: bring.sh COMMAND DEBIAN-PACKAGE. Called by the Makefile.
# Does nothing when COMMAND is on PATH; installs the package when it may; else says what to do.
set -eu
command=$1
package=$2

command -v "$command" >/dev/null && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "bringing $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package" >/dev/null || true
    command -v "$command" >/dev/null && exit 0
fi
echo "The tests need '$command' on PATH: install it (Debian: sudo apt-get install $package) and" \
     "run the same command again." >&2
exit 1

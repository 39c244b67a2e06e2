#!/bin/sh
# Publish one message to a room, from a shell:
#
# A hub that has its API there: hubbub serve --api-keys-file keys.txt, with the key as a line of keys.txt. Then
#
#     API_KEY=… sh publish.sh http://localhost:8000/api news:sport '{"text": "one to nil"}'
#
# The key is in the environment, and goes to curl by its input: an argument is seen by all who list processes.

set -eu

url=$1 room=$2 data=$3

printf 'header = "X-API-Key: %s"\n' "$API_KEY" | curl --silent --show-error --fail-with-body --config - \
    --header 'Content-Type: application/json' \
    --data "{\"channel\": \"$room\", \"data\": $data}" \
    "$url/publish"
echo

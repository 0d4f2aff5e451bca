#!/usr/bin/env bash
# Asks a running agent for every endpoint and has promtool judge the page, where there is one.
#   scripts/smoke.sh [HOST:PORT]
set -eu
base="http://${1:-127.0.0.1:9100}"
for path in / /healthz /readyz /metrics /status /recent '/events?follow=false'; do
    printf '%s ' "$path"
    curl --silent --fail --max-time 5 --output /dev/null --write-out '%{http_code}\n' "$base$path"
done
if command -v promtool >/dev/null; then
    curl --silent --max-time 5 "$base/metrics" | promtool check metrics && echo "promtool: valid"
fi

#!/usr/bin/env bash
# Load generators of Debian that the serving bench runs: wrk, and h2load for gRPC.
set -euo pipefail
missing=()
command -v wrk >/dev/null || missing+=(wrk)
command -v h2load >/dev/null || missing+=(nghttp2-client)
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "this bench needs ${missing[*]}: install them with your package manager" >&2; exit 1
fi
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo -n)
echo "installing ${missing[*]} ..."
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

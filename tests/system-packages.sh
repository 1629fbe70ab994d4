#!/usr/bin/env bash
# Debian packages that the marked tests need: Prometheus (with promtool), its Pushgateway, Alertmanager's amtool, Chromium,
# strace, openssl, rsync (gitlab-ci-local), PostgreSQL, and a Java for Kafka.
# Installs what is missing when it may; says what to do when it may not. Services are not started.
set -euo pipefail
missing=()
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
command -v prometheus-pushgateway >/dev/null || missing+=(prometheus-pushgateway)
command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
command -v chromium >/dev/null || missing+=(chromium)
command -v strace >/dev/null || missing+=(strace)
command -v openssl >/dev/null || missing+=(openssl)
command -v rsync >/dev/null || missing+=(rsync)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
if [ -n "${KAFKA_HOME:-}" ]; then command -v java >/dev/null || missing+=(openjdk-17-jre-headless); fi
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "these tests need ${missing[*]}: install them with your package manager" >&2; exit 1
fi
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo -n)
# A package that starts its service on installation would take the port that a test wants.
policy=/usr/sbin/policy-rc.d; made=0
if [ ! -e "$policy" ] && [ "$(id -u)" = 0 ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; fi
trap '[ $made = 1 ] && rm -f $policy || true' EXIT
echo "installing ${missing[*]} ..."
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

#!/bin/sh
# Installs the SDKs for JavaScript beside this file, unless those of the lock file
# are there already: then nothing is asked of the network.
set -eu
cd "$(dirname "$0")"
wanted=$(cksum <package-lock.json)
stamp=node_modules/.installed
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0
../tools/preflight.sh npm
echo "==> installing the SDKs for JavaScript (a first time takes about half a minute)"
npm ci --cache ../.cache/npm --prefer-offline --loglevel error
printf '%s\n' "$wanted" >"$stamp"

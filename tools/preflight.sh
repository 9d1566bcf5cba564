#!/bin/sh
# Checks what a target needs before it starts, and says how to get what is
# missing. Usage: preflight.sh go|cc|postgres|pgbouncer|npm ...
set -u
missing=0

say() { printf '%s\n' "$*" >&2; }

need_go() {
	if ! command -v go >/dev/null 2>&1; then
		say "missing: Go 1.26 or newer. Get it from https://go.dev/dl/ and put its bin folder on PATH."
		missing=1
		return
	fi
	version=$(go env GOVERSION | sed 's/^go//')
	major=${version%%.*}
	rest=${version#*.}
	minor=${rest%%[!0-9]*}
	# GOTOOLCHAIN=auto lets an older Go fetch the right one by itself.
	if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -lt 26 ]; }; then
		say "too old: Go $version. Sluice needs Go 1.26 or newer: https://go.dev/dl/"
		missing=1
	fi
}

need_cc() {
	if ! command -v "${CC:-cc}" >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1; then
		say "missing: a C compiler. Debian, Ubuntu: apt-get install gcc libc6-dev. Fedora: dnf install gcc. macOS: xcode-select --install."
		missing=1
	fi
}

need_postgres() {
	[ -n "${TEST_DATABASE_URL:-}" ] && return
	command -v postgres >/dev/null 2>&1 && return
	for dir in /usr/lib/postgresql/*/bin /usr/local/opt/postgresql*/bin /opt/homebrew/opt/postgresql*/bin; do
		[ -x "$dir/postgres" ] && return
	done
	say "missing: a PostgreSQL server, version 15 or newer. Debian, Ubuntu: apt-get install postgresql. Fedora: dnf install postgresql-server. macOS: brew install postgresql."
	say "         Or set TEST_DATABASE_URL to one whose role may create databases."
	missing=1
}

need_pgbouncer() {
	command -v pgbouncer >/dev/null 2>&1 && return
	[ -x /usr/sbin/pgbouncer ] && return
	say "missing: PgBouncer. Debian, Ubuntu: apt-get install pgbouncer. Fedora: dnf install pgbouncer. macOS: brew install pgbouncer."
	missing=1
}

need_npm() {
	command -v npm >/dev/null 2>&1 && return
	say "missing: npm, which installs the SDKs for JavaScript. Debian, Ubuntu: apt-get install npm. Fedora: dnf install nodejs-npm. macOS: brew install node."
	say "         They run on Node.js 22 or newer, which comes with them on Linux."
	missing=1
}

for what in "$@"; do
	case $what in
	go) need_go ;;
	cc) need_cc ;;
	postgres) need_postgres ;;
	pgbouncer) need_pgbouncer ;;
	npm) need_npm ;;
	*) say "preflight.sh: unknown requirement $what"; exit 2 ;;
	esac
done
exit $missing

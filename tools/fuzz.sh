#!/bin/sh
# Runs every fuzz target of the module for the given time each.
# Usage: fuzz.sh DURATION
set -eu
duration=$1
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "==> $package $target ($duration)"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" -fuzzminimizetime 1x "$package"
	done
done

#!/bin/sh
# Gives the module another path, in every file that names it.
# Usage: module.sh example.org/sluice
set -eu
new=$1
old=$(go list -m)
case $new in
*.*/*) ;;
*) echo "$new: want a path that go get accepts, with a dot in its first element, such as example.org/sluice" >&2; exit 2 ;;
esac
git grep -lzF "$old" | xargs -0 sed -i "s#$(printf %s "$old" | sed 's/[.]/\\./g')#$new#g"
gofmt -w $(git ls-files '*.go')
go vet ./...
echo "the module is $(go list -m); files that name it: $(git grep -lF "$new" | wc -l)"

#!/bin/sh
# Builds in dist what a release holds, without releasing anything, and checks it. The image has a test of its own,
# scripts/test-image.sh.
set -eu
cd "$(dirname "$0")/.."
if [ -z "$(git remote)" ]; then # the release build asks for the commit and, in the same breath, for the remote
	export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=remote.origin.url GIT_CONFIG_VALUE_0=https://github.com/pgshadow/pgshadow
fi
go tool -modfile=tools/release/go.mod goreleaser check
go tool -modfile=tools/release/go.mod goreleaser release --snapshot --clean --skip=docker
go test -tags release -count 1 ./test/release

#!/usr/bin/env bash
# Builds the container image for this host's processor and runs test/image on it. It needs nothing but Docker, which
# with-docker.sh sees to: the image is made from scratch, so that none is pulled.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != with-docker ]; then
	# The containers use the host's network.
	export DOCKERD_FLAGS="--bridge=none --iptables=false --ip6tables=false ${DOCKERD_FLAGS:-}"
	exec scripts/with-docker.sh "$0" with-docker
fi

image=pgshadow:test-$$
platform=linux/$(go env GOARCH)
context=$(mktemp -d "${TMPDIR:-/tmp}/pgshadow-image-XXXXXX")
finish() {
	local code=$?
	docker image rm --force "$image" >/dev/null 2>&1 || :
	rm -rf "$context"
	exit "$code"
}
trap finish EXIT

# What the release build gives the Dockerfile, in the same places.
scripts/release-files.sh test "" ""
mkdir -p "$context/$platform" "$context/bin/release"
cp bin/release/ca-certificates.crt "$context/bin/release/"
GOOS=linux CGO_ENABLED=0 go build -trimpath -o "$context/$platform/pgshadow" ./cmd/pgshadow
docker build --quiet --build-arg "TARGETPLATFORM=$platform" --tag "$image" --file Dockerfile "$context"
go test -tags release -count 1 ./test/image -image "$image"

#!/bin/sh
# Makes in bin/release what a release holds beside the binary: the completions, the manual page, and the certificate
# authorities for the image. Takes the version, the commit and the commit's date, which the manual page names.
set -eu
cd "$(dirname "$0")/.."
out=bin/release
rm -rf "$out"
mkdir -p "$out/completions" "$out/man"

# The build of the host, whatever platform the release build is at.
unset GOOS GOARCH
CGO_ENABLED=0 go build -o "$out/pgshadow" -ldflags "-X main.version=$1 -X main.commit=$2 -X main.date=$3" ./cmd/pgshadow
"$out/pgshadow" completion bash >"$out/completions/pgshadow.bash"
"$out/pgshadow" completion zsh >"$out/completions/_pgshadow"
"$out/pgshadow" completion fish >"$out/completions/pgshadow.fish"
"$out/pgshadow" man >"$out/man/pgshadow.1"
rm "$out/pgshadow"

# Where Debian, Red Hat and macOS have them.
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
	if [ -s "$bundle" ]; then
		cp "$bundle" "$out/ca-certificates.crt"
		chmod 644 "$out/ca-certificates.crt"
		exit
	fi
done
echo "release-files: no certificate authorities on this host; install ca-certificates" >&2
exit 1

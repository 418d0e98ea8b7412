# pgshadow and nothing else: no shell, no other program. It writes no file, so its root file system may be read-only.
# The release build lays out the binaries by platform; scripts/test-image.sh does the same.
FROM scratch
ARG TARGETPLATFORM
# The public certificate authorities, for sslmode=verify-full without an sslrootcert.
COPY bin/release/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY $TARGETPLATFORM/pgshadow /usr/bin/pgshadow
# A number, since there is no list of users here, and for those who refuse to run what may be root.
USER 65532:65532
ENTRYPOINT ["/usr/bin/pgshadow"]

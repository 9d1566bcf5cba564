# syntax=docker/dockerfile:1
#
# The image of the gateway:
#
#     docker build --build-arg VERSION=$(git describe --tags --always) -t registry.example/sluice:1.2.3 .
#
# Of the Go release that go.mod names, with its fixes so far. Both stages are
# Debian 12: the binary runs on the C library that it was linked against.
ARG GO_VERSION=1.26.8

FROM golang:${GO_VERSION}-bookworm AS build
WORKDIR /src
COPY . .
ARG VERSION=dev
# With cgo: the driver's library (NVML) is opened when the gateway runs, with
# dlopen, which a static binary does not have.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=1 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/gateway ./cmd/gateway

# The C library, certificates and time zones; no shell, no packages.
FROM gcr.io/distroless/base-debian12:nonroot
COPY --from=build /out/gateway /usr/local/bin/gateway
# The user `nonroot` by number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /
EXPOSE 8402 9402
ENTRYPOINT ["/usr/local/bin/gateway"]

# syntax=docker/dockerfile:1

# The build. rustc and the C compiler, for aws-lc and jemalloc, are all that it needs; make is for jemalloc.
FROM rust:1.95-slim-bookworm AS build
# Not pinned to versions: the base image pins the release, and its fixes are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# Dependencies change seldom: they are compiled in a layer of their own, against an empty package.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked \
    && rm -rf src

COPY . .
# The empty package is newer than the files that were copied; without new times cargo would keep it.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin dunlin \
    && mkdir -p /image/var/lib/dunlin /image/etc/dunlin

# The image. The binary needs glibc and libgcc and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Dunlin" \
      org.opencontainers.image.description="An MQTT 3.1, 3.1.1 and 5 broker" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /build/target/release/dunlin /usr/local/bin/dunlin
# A named volume takes its owner from the directory in the image.
COPY --from=build --chown=65532:65532 /image/var/lib/dunlin /var/lib/dunlin
COPY --from=build /image/etc/dunlin /etc/dunlin
# nonroot, by number so that an orchestrator can tell that it is not root.
USER 65532:65532
# The default of data_dir, which a configuration may still change.
ENV STATE_DIRECTORY=/var/lib/dunlin
VOLUME /var/lib/dunlin
# MQTT, MQTT over TLS, MQTT over WebSocket.
EXPOSE 1883 8883 8083

# The image is closed until it is configured: without a file the broker listens on the loopback of its own
# container alone, which no published port reaches. To open it, mount a configuration,
#   docker run -v ./dunlin.toml:/etc/dunlin/dunlin.toml:ro -p 8883:8883 dunlin
# or say that anyone may connect, for a try on a network that you trust:
#   docker run -p 127.0.0.1:1883:1883 dunlin serve --listen 0.0.0.0:1883 --allow-anonymous
# The health check connects on 127.0.0.1:1883. A configuration without a plain listener that is reached there
# needs `--health-cmd` with options of its own, or `--no-healthcheck`.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/dunlin", "sub", "-h", "127.0.0.1", "-p", "1883", "-t", "$SYS/broker/version", "-C", "1", "-W", "3"]

# SIGTERM, which is the default, drains connections and ends with code 0.
ENTRYPOINT ["/usr/local/bin/dunlin"]
CMD ["serve"]

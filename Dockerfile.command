# syntax=docker/dockerfile:1
#
# order-command: takes orders over REST, keeps them in PostgreSQL, publishes their events to Kafka
#
#   docker build -f Dockerfile.command -t order-command .
#
# The dependencies are a layer of their own, which only a change of the lock file or of a manifest rebuilds.
# Builder and final image are of the same Debian release, because they share its glibc.

FROM rust:1.95-slim-trixie AS chef
# hadolint ignore=DL3008 # The base image's tag fixes the Debian release; its archive keeps only the latest patches.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential perl pkg-config \
    && rm -rf /var/lib/apt/lists/* \
    && cargo install --locked --version 0.1.78 cargo-chef
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /src/recipe.json recipe.json
RUN cargo chef cook --locked --release --package command --features tls --recipe-path recipe.json
COPY . .
RUN cargo build --locked --release --package command --features tls \
    && mkdir /empty

# No shell, no package manager, user 65532.
FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="order-command" \
      org.opencontainers.image.description="takes orders over REST, keeps them in PostgreSQL, publishes their events to Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /src/target/release/order-command /usr/local/bin/order-command
ENV COMMAND_LISTEN=0.0.0.0:8000 \
    LOG_FORMAT=json
EXPOSE 8000
# The program asks itself over HTTP: there is nothing else in here that could.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=6 \
    CMD ["/usr/local/bin/order-command", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/order-command"]
CMD ["serve"]

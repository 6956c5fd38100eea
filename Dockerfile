# The image of Weir: the binary, the C library that it is linked to, root certificates, and nothing else. No shell.
#
#   docker build -t weir .
#   docker run -p 8080:8080 -p 127.0.0.1:8081:8081 -v ./weir.yaml:/etc/weir/weir.yaml:ro -v weir:/var/lib/weir \
#       -e OPENAI_API_KEY weir
#
# In a container the listeners must be reachable from outside of it: `listen: 0.0.0.0:8080`.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake ca-certificates tzdata && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The dependencies first, in a layer that a change of ours leaves alone: the sources are stand-ins.
COPY Cargo.toml Cargo.lock ./
COPY adapters/Cargo.toml adapters/
COPY gateway/Cargo.toml gateway/
COPY load-tests/Cargo.toml load-tests/
COPY tests/Cargo.toml tests/
RUN mkdir -p adapters/src gateway/src load-tests/src/simulator tests/src \
    && touch adapters/src/lib.rs gateway/src/lib.rs load-tests/src/simulator/mod.rs tests/src/lib.rs \
    && echo 'fn main() {}' | tee gateway/src/main.rs > load-tests/src/main.rs \
    && cargo build --locked --release --package gateway --bin weir

COPY . .
RUN touch adapters/src/lib.rs gateway/src/lib.rs gateway/src/main.rs load-tests/src/simulator/mod.rs \
    && cargo build --locked --release --package gateway --bin weir

# What the image is: a root that holds the files the binary needs, at the places where it looks for them.
RUN mkdir -p /image/usr/bin /image/etc/ssl/certs /image/etc/weir /image/var/lib/weir /image/tmp \
    && cp target/release/weir /image/usr/bin/weir \
    && ldd target/release/weir | grep -o '/[^ ]*' | xargs -I{} cp --parents --dereference {} /image \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp -r --parents /usr/share/zoneinfo /image \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'weir:x:65532:65532:weir:/var/lib/weir:/usr/sbin/nologin' > /image/etc/passwd \
    && echo 'weir:x:65532:' > /image/etc/group \
    && chown -R 65532:65532 /image/var/lib/weir && chmod 1777 /image/tmp

FROM scratch
LABEL org.opencontainers.image.title="Weir" \
      org.opencontainers.image.description="An OpenAI-compatible reverse proxy gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
USER 65532:65532
WORKDIR /var/lib/weir
VOLUME /var/lib/weir
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/bin/weir", "healthcheck", "--config", "/etc/weir/weir.yaml"]
ENTRYPOINT ["/usr/bin/weir"]
CMD ["serve", "--config", "/etc/weir/weir.yaml"]

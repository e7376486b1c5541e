# syntax=docker/dockerfile:1
# docker build -f deploy/agent.Dockerfile -t paceline-agent .       from the root of the repository

FROM rust:1-bookworm AS build
WORKDIR /src/agent
COPY agent ./
RUN cargo build --release --locked --package paceline-agent

# With a C library and an `ldconfig`: NVML is not in here. The NVIDIA container runtime mounts the host's, which fits the
# host's driver, and enters it into this image's library cache.
FROM debian:bookworm-slim
COPY --from=build /src/agent/target/release/paceline-agent /usr/local/bin/paceline-agent
# `utility` is NVML; no CUDA, no graphics.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility
# Root, and there is no way around it here: a container runtime gives added capabilities to root's processes only (for
# others they would have to be ambient, which neither Docker nor Kubernetes sets). Run it with every capability dropped
# but SYS_ADMIN; what it has beyond that it drops itself.
USER 0
ENTRYPOINT ["/usr/local/bin/paceline-agent"]
CMD ["--help"]

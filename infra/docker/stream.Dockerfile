# syntax=docker/dockerfile:1
# One image for everything of a stream on Kubernetes: Flink's JobManager and TaskManagers, the store
# writer and the API. Build it at the root of the repository, for linux/amd64 (Beam and pemja have
# no wheels for others):
#   docker build --platform linux/amd64 -f infra/docker/stream.Dockerfile -t penstock-stream:0.1.0 .

# --- Jars: the Kafka connector and our own module, as 'make setup' brings them ----------------
FROM maven:3.9-eclipse-temurin-17 AS jars
WORKDIR /opt/penstock
COPY infra/jars infra/jars
COPY kernels/entity_state/jvm kernels/entity_state/jvm
RUN infra/jars/build.sh

# --- The installer, of the version that constraints.txt pins ----------------------------------
FROM ghcr.io/astral-sh/uv:0.13.9 AS uv

# --- Flink, Python 3.11, our package ----------------------------------------------------------
FROM flink:2.3.0-java17
USER root
# LightGBM needs libgomp.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=uv /uv /usr/local/bin/uv
# The base image's own Python is another version; the one here stays readable for every user.
ENV UV_PYTHON_INSTALL_DIR=/opt/python UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /opt/penstock
RUN uv venv --python 3.11 .venv
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY connectors connectors
COPY flows flows
COPY infra infra
COPY kernels kernels
COPY models models
COPY tasks tasks
# Laid out like a checkout, so that everything is found where it is found there.
RUN uv pip install --python .venv/bin/python --constraint constraints.txt --editable .
COPY --from=jars /opt/penstock/.venv/share/penstock/jars/flink .venv/share/penstock/jars/flink
# All on one class path, as in the local session cluster: no class loader stands between our
# module, the connector and Flink's Python part.
RUN cp .venv/share/penstock/jars/flink/*.jar "$FLINK_HOME"/opt/flink-python-2.3.0.jar "$FLINK_HOME"/lib/
# Nothing is written into the image while it runs; numba keeps what it compiled here instead.
ENV PATH=/opt/penstock/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    PENSTOCK_HOME=/tmp/penstock
WORKDIR /opt/flink
# 'flink' of the base image, as a number: Kubernetes can then see that it is not root.
USER 9999:9999

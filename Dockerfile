# `make export` in a container, on x86_64 and ARM64:
#   docker build -t cocorr-export . && docker run --rm cocorr-export
# Any other command, with the artifacts kept:
#   docker run --rm -v "$PWD/artifacts:/opt/cocorr-export/artifacts" cocorr-export cocorr-export scn --target onnx
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/cocorr-export
COPY . .
ENV PIP_NO_CACHE_DIR=1 PATH=/opt/cocorr-export/.venv/bin:$PATH
RUN make .venv/.export
CMD ["make", "export"]

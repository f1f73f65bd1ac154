# Training on NVIDIA GPUs: docker build -t inspo-hub . && docker run --gpus all -v "$PWD:/runs" inspo-hub run recipe.yaml
# CUDA's libraries come with torch's wheels; the host brings the driver. The compiler is for torch.compile and Triton.
FROM python:3.12-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/inspo_hub
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY inspo_hub ./inspo_hub
COPY recipes ./recipes
RUN python -m pip install --no-cache-dir --constraint constraints.txt '.[peft,track]'

RUN useradd --create-home --uid 1000 user && mkdir /runs && chown user /runs
USER user
WORKDIR /runs
ENV HF_HOME=/runs/.cache/huggingface \
    PYTHONUNBUFFERED=1
ENTRYPOINT ["inspo-hub"]
CMD ["--help"]

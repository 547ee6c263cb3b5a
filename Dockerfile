# syntax=docker/dockerfile:1
# Polaris with CUDA builds of torch and vLLM:  docker build --tag polaris .
# Run:  docker run --gpus all --ipc=host -v "$PWD/runs:/polaris/runs" -it polaris
FROM python:3.12-bookworm

# The image brings a C compiler and Python's headers, which Triton compiles against; torch's wheels bring CUDA.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HOME=/cache/huggingface
WORKDIR /polaris

# Dependencies first: they change less often than the code. Their versions are the ranges of pyproject.toml.
COPY pyproject.toml README.md LICENSE ./
COPY kernels/ kernels/
COPY polaris/__init__.py polaris/__init__.py
# hadolint ignore=DL3013
RUN pip install ./kernels '.[cuda,wandb]' && pip uninstall --yes polaris-rl

COPY . .
RUN pip install --no-deps .
# hadolint ignore=DL3013
RUN pip install --only-binary=:all: --pre flash-attn-4 || echo "no flash-attn-4 fits: torch's own FlashAttention 2 is used"

VOLUME ["/polaris/runs", "/cache"]
CMD ["bash"]

"""Polaris: the POLARIS post-training recipe as one resumable job on PyTorch FSDP2, vLLM and Triton."""

__version__ = "0.1.0"

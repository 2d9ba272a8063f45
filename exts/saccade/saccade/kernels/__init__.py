"""Warp kernels that run on CPU and CUDA: preprocess, decode, finite check."""

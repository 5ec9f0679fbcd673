"""Which of torch's kernels for scaled dot-product attention runs: the fastest that is right, by measurement."""

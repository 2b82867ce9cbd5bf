"""All masks of a step by a few Triton kernels: train.mask_kernels=true. They have not run on a GPU yet."""

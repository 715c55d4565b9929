"""The path of Triton kernels, for accelerators. Importing this package does not import Triton."""

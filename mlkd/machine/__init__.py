"""The machine: devices, precision, kernels, the processes that train together."""

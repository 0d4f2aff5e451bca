"""NVIDIA GPUs: what the driver and the kernel's log say of them."""

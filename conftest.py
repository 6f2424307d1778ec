"""Tests see eight virtual CPU devices, so that sharded code runs as it would on a pod."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

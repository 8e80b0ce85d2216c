"""Room for launchers on clusters; there are none yet, every study runs by `python -m plasticity_jax.main`."""

"""What a study is, as frozen records, and how a config file becomes one; no jax."""

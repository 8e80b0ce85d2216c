"""`python -m analysis.claims`: see `analysis.verify`."""

from plasticity_jax.analysis.verify import main

if __name__ == "__main__":
    main()

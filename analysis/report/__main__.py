"""`python -m analysis.report`: see `analysis.report.report`."""

from plasticity_jax.analysis.report.report import main

if __name__ == "__main__":
    main()

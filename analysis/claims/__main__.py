"""`python -m analysis.claims`: see `analysis.verify`."""

from analysis.verify import main

if __name__ == "__main__":
    main()

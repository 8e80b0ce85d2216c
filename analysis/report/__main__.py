"""`python -m analysis.report`: see `analysis.report.report`."""

from analysis.report.report import main

if __name__ == "__main__":
    main()

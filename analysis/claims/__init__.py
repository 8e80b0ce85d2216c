"""The claims of the papers, as data."""

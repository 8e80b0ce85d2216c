"""A study, or several, as one HTML page."""

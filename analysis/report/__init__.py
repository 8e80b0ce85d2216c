"""One or several studies as one HTML page."""

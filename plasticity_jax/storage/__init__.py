"""Files of a study: writing and reading back."""

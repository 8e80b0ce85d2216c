"""What is measured on a network beside its loss and accuracy."""

"""What the training loop is made of: one idea a file."""

"""What lets two cores train a model in an hour or two, and that the paper does not have."""

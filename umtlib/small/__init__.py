"""What lets two cores train a model in a few hours, and that the paper does not have."""

"""What only the notebooks and the pictures need: plots, players, the set-up on Colab."""

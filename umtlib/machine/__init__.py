"""The machine: code compiled for its processor, and the other processes of a training."""

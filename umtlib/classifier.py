"""The domain classifier C: from which domain does a latent come (section 3.3, Figure 1).

It learns to tell; the encoder learns to make it fail, so that the latent keeps the music and leaves
the instruments to the decoders. Notebook: ``03_the_network``.
"""

from torch import Tensor, nn

from umtlib.config import ClassifierConfig


class Classifier(nn.Module):
    """Latent frames, of so many channels, to the logits of so many domains, averaged over time."""

    def __init__(self, config: ClassifierConfig, latent: int, domains: int):
        super().__init__()
        widths = [latent] + [config.channels] * config.layers
        stack: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            stack += [nn.Conv1d(before, after, config.kernel, padding=config.kernel // 2), nn.ELU()]
        stack.append(nn.Conv1d(widths[-1], domains, config.kernel, padding=config.kernel // 2))
        self.convs = nn.Sequential(*stack)

    def forward(self, latent: Tensor) -> Tensor:
        """Return logits over the domains, shape (B, K), of a latent of shape (B, latent, F)."""
        return self.convs(latent).mean(dim=2)

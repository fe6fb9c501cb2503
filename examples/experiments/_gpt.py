"""A byte-level GPT, and text that ships with Python, for the experiments here."""

import sysconfig
from pathlib import Path

import torch
from torch import nn


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a norm and with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return an array of shape (batch, length, width), as X."""
        b, t, width = X.shape
        parts = self.qkv(self.norms[0](X)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        Y = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        X = X + self.out(Y.transpose(1, 2).reshape(b, t, width))
        return X + self.down(nn.functional.gelu(self.up(self.norms[1](X))))


class GPT(nn.Module):
    """Model from bytes to the logits of the next byte."""

    def __init__(self, width: int = 128, layers: int = 4, heads: int = 4, length: int = 64) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)
        for block in self.blocks:
            nn.init.normal_(block.out.weight, std=0.02)
            nn.init.normal_(block.down.weight, std=0.02)

    def forward(self, bytes_: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, length, 256)."""
        X = self.tokens(bytes_) + self.places.weight[: bytes_.shape[1]]
        for block in self.blocks:
            X = block(X)
        return self.head(self.norm(X))


def text(most: int = 2_000_000) -> torch.Tensor:
    """Return the concatenated sources of the standard library, as bytes."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:most]
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()


def batch(data: torch.Tensor, size: int, length: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Return random windows, and their next bytes."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(data) - length - 1, (size, 1), generator=generator)
    windows = data[starts + torch.arange(length + 1)]
    return windows[:, :-1], windows[:, 1:]


def loss_of(model: nn.Module, data: torch.Tensor, size: int, length: int, seed: int):
    """Return the mean cross-entropy of a batch, in nats per byte."""
    inputs, targets = batch(data, size, length, seed)
    return nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

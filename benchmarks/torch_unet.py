"""PyTorch twin of `jaxpaint.diffusion.unet.UNet`, for `unet.py` to compare with.

Names of parameters are those of guided-diffusion's checkpoints, so that our converter
reads its state dict. Attention is PyTorch's fused kernel.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


class Res(nn.Module):
    """Residual block; `resample`: the factor of its sides."""

    def __init__(self, before: int, after: int, embedding: int, resample: float = 1):
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            norm(before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * after))
        self.out_layers = nn.Sequential(
            norm(after), nn.SiLU(), nn.Identity(), nn.Conv2d(after, after, 3, padding=1)
        )
        self.skip_connection = (
            nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        )

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Maps `[B, C, H, W]` and `[B, E]`."""
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample > 1:
            h, x = (functional.interpolate(a, scale_factor=2.0) for a in (h, x))
        elif self.resample < 1:
            h, x = (functional.avg_pool2d(a, 2) for a in (h, x))
        h = self.in_layers[2](h)
        told = self.emb_layers(embedding)[:, :, None, None]
        scale, shift = told.chunk(2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](h)


class Attention(nn.Module):
    """Self-attention of all pixels; query, key and value of one head lie together."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Maps `[B, C, H, W]` to itself."""
        tokens = x.flatten(2)
        mixed = self.qkv(self.norm(tokens)).unflatten(1, (self.heads, 3, -1))
        query, key, value = (a.mT.contiguous() for a in mixed.unbind(2))
        seen = functional.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(seen.mT.flatten(1, 2)).reshape(x.shape)


class Down(nn.Module):
    """Convolution with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Maps `[B, C, H, W]` to half the sides."""
        return self.op(x)


class Up(nn.Module):
    """Doubled pixels and a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Maps `[B, C, H, W]` to twice the sides."""
        return self.conv(functional.interpolate(x, scale_factor=2.0))


class First(nn.Conv2d):
    """A convolution that ignores the timestep."""

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Maps `[B, C, H, W]`."""
        return super().forward(x)


class UNet(nn.Module):
    """The network with scale and shift; sides change in residual blocks on request."""

    def __init__(
        self,
        channels: int,
        blocks: int,
        multipliers: tuple[int, ...],
        attention: tuple[int, ...],
        heads: int,
        resample_blocks: bool,
        out_channels: int = 6,
    ):
        super().__init__()
        self.channels, size = channels, 4 * channels
        self.time_embed = nn.Sequential(
            nn.Linear(channels, size), nn.SiLU(), nn.Linear(size, size)
        )

        def level_block(before: int, after: int, level: int) -> nn.ModuleList:
            block = nn.ModuleList([Res(before, after, size)])
            if 2**level in attention:
                block.append(Attention(after, heads))
            return block

        width = channels * multipliers[0]
        first = First(3, width, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleList([first])])
        stack = [width]
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                after = channels * multiplier
                self.input_blocks.append(level_block(width, after, level))
                width = after
                stack.append(width)
            if level < len(multipliers) - 1:
                down = Res(width, width, size, 0.5) if resample_blocks else Down(width)
                self.input_blocks.append(nn.ModuleList([down]))
                stack.append(width)
        self.middle_block = nn.ModuleList(
            [Res(width, width, size), Attention(width, heads), Res(width, width, size)]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(blocks + 1):
                after = channels * multiplier
                block = level_block(width + stack.pop(), after, level)
                width = after
                if level and i == blocks:
                    up = Res(width, width, size, 2) if resample_blocks else Up(width)
                    block.append(up)
                self.output_blocks.append(block)
        self.out = nn.Sequential(
            norm(width), nn.SiLU(), nn.Conv2d(width, out_channels, 3, padding=1)
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, H, W]` and `[B]` to `[B, out_channels, H, W]`."""
        half = self.channels // 2
        speeds = torch.exp(
            -math.log(10000) * torch.arange(half, device=x.device) / half
        )
        angles = t[:, None].float() * speeds[None]
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        maps, h = [], x
        for block in self.input_blocks:
            for layer in block:
                h = layer(h, embedding)
            maps.append(h)
        for layer in self.middle_block:
            h = layer(h, embedding)
        for block in self.output_blocks:
            h = torch.cat([h, maps.pop()], dim=1)
            for layer in block:
                h = layer(h, embedding)
        return self.out(h)

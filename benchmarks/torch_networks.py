"""PyTorch twins of the training steps that `train_step.py` measures.

The same layers, losses and optimizer as `jaxpaint.methods`, in the way that costs
PyTorch least: one forward pass of the generator a step, masks of one channel (published
layers give the mask as many channels as the features), Adam's fused kernel.
"""

import itertools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`(image, mask) -> loss`, in place; [B, C, H, W], 1 = hole."""


def adam(network: nn.Module, lr: float, b1: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr, (b1, 0.999), fused=True)


def block(layer: type, *sizes: int, norm: bool = True, leak: float = 0.2) -> list:
    """Convolution, batch norm, leaky ReLU; sizes: in, out, kernel, stride, padding."""
    inner = [nn.BatchNorm2d(sizes[1])] if norm else []
    activation = nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)
    return [layer(*sizes, bias=False), *inner, activation]


def chain(widths: list[int], layer: type, leak: float, norm_first: bool) -> list:
    layers = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        norm = norm_first or i > 0
        layers += block(layer, before, after, 4, 2, 1, norm=norm, leak=leak)
    return layers


class ContextEncoder(nn.Module):
    """Generator of the centre model: `size` to `size / 2` pixels."""

    def __init__(self, size: int, width: int, bottleneck: int):
        super().__init__()
        down = [width * max(1, 8 >> i) for i in range(doublings(size))][::-1]
        up = [width * max(1, 8 >> i) for i in range(doublings(size // 2))]
        self.layers = nn.Sequential(
            *chain([3, *down], nn.Conv2d, 0.2, norm_first=False),
            *block(nn.Conv2d, down[-1], bottleneck, 4, 1, 0),
            *block(nn.ConvTranspose2d, bottleneck, up[0], 4, 1, 0, leak=0),
            *chain(up, nn.ConvTranspose2d, 0, norm_first=True),
            nn.ConvTranspose2d(up[-1], 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, size, size]` to half the sides."""
        return self.layers(x)


class Discriminator(nn.Module):
    """Logits of patches of `size` pixels."""

    def __init__(self, size: int, width: int):
        super().__init__()
        down = [width * max(1, 8 >> i) for i in range(doublings(size))][::-1]
        self.layers = nn.Sequential(
            *chain([3, *down], nn.Conv2d, 0.2, norm_first=False),
            nn.Conv2d(down[-1], 1, 4, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, size, size]` to `[B]`."""
        return self.layers(x).flatten()


def doublings(size: int) -> int:
    """Returns how often 4 is doubled to reach `size`."""
    return (size // 4).bit_length() - 1


def context_encoder(
    size: int, width: int, bottleneck: int, layout: torch.memory_format
) -> Step:
    """Returns one step of both networks of the centre model (overlap 4)."""
    generator = ContextEncoder(size, width, bottleneck).to(memory_format=layout)
    judge = Discriminator(size // 2, width).to(memory_format=layout)
    paint, tell = adam(generator, 2e-3, 0.5), adam(judge, 2e-4, 0.5)
    border = size // 4
    patch = (..., slice(border, 3 * border), slice(border, 3 * border))
    inside = (..., slice(border + 4, -border - 4), slice(border + 4, -border - 4))
    weights = torch.full((size // 2, size // 2), 10.0)
    weights[4:-4, 4:-4] = 1
    fill = torch.tensor([117, 104, 123])[None, :, None, None] / 127.5 - 1

    def entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
        labels = torch.full_like(logits, label)
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def step(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        del mask
        context = image.clone()
        context[inside] = fill
        real = image[patch].contiguous(memory_format=layout)
        fake = generator(context)
        tell.zero_grad()
        (entropy(judge(real), 1) + entropy(judge(fake.detach()), 0)).backward()
        tell.step()
        paint.zero_grad()
        judge.requires_grad_(False)
        loss = 0.999 * (weights * (fake - real).square()).mean()
        loss = loss + 0.001 * entropy(judge(fake), 1)
        loss.backward()
        judge.requires_grad_(True)
        paint.step()
        return loss.detach()

    return step


class PartialConv(nn.Module):
    """Partial convolution; a mask of one channel stands for all of its part."""

    def __init__(self, features: int, out: int, kernel: int, stride: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, features, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        self.register_buffer("ones", torch.ones(1, 1, kernel, kernel))
        self.area, self.stride = kernel * kernel * features, stride

    def forward(
        self, parts: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features and masks, 1 = known, to features and their mask."""
        pad = self.weight.shape[-1] // 2
        with torch.no_grad():
            known = sum(
                x.shape[1] * functional.conv2d(mask, self.ones, None, self.stride, pad)
                for x, mask in parts
            )
            new = (known > 0).float()
            ratio = new * self.area / known.clamp(min=1)
        masked = [x * mask for x, mask in parts]
        x = torch.cat(masked, 1) if len(masked) > 1 else masked[0]
        y = functional.conv2d(x, self.weight, None, self.stride, pad) * ratio
        if self.bias is not None:
            y = (y + self.bias[:, None, None]) * new
        return y, new


class PartialConvUNet(nn.Module):
    """The U-Net with partial convolutions."""

    def __init__(self, levels: int, width: int):
        super().__init__()
        down = [3, *(min(width << i, 8 * width) for i in range(levels))]
        kernels = [7, 5, 5] + [3] * (levels - 3)
        self.encoder = nn.ModuleList(
            PartialConv(down[i], down[i + 1], kernels[i], 2, False)
            for i in range(levels)
        )
        self.encoder_norm = nn.ModuleList(
            nn.BatchNorm2d(down[i + 1]) if i else nn.Identity() for i in range(levels)
        )
        outs = [3, *down[1:]]
        self.decoder = nn.ModuleList(
            PartialConv(down[i + 1] + down[i], outs[i], 3, 1, i == 0)
            for i in range(levels)
        )
        self.decoder_norm = nn.ModuleList(
            nn.BatchNorm2d(outs[i]) if i else nn.Identity() for i in range(levels)
        )

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Maps pictures and masks, 1 = known, to pictures."""
        kept = []
        for layer, norm in zip(self.encoder, self.encoder_norm, strict=True):
            kept.append((x, valid))
            x, valid = layer([(x, valid)])
            x = functional.relu(norm(x), inplace=True)
        for i in reversed(range(len(kept))):
            below = [
                functional.interpolate(part, scale_factor=2) for part in (x, valid)
            ]
            x, valid = self.decoder[i]([(below[0], below[1]), kept[i]])
            if i:
                x = functional.leaky_relu(self.decoder_norm[i](x), 0.2, inplace=True)
        return x


def partial_conv(levels: int, width: int, layout: torch.memory_format) -> Step:
    """Returns one step with the losses that need no feature network."""
    network = PartialConvUNet(levels, width).to(memory_format=layout)
    optimizer = adam(network, 2e-4, 0.9)

    def step(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        known = 1 - mask
        out = network(image * known, known)
        error = (out - image).abs()
        loss = (known * error).mean() + 6 * (mask * error).mean()
        filled = known * image + mask * out
        near = functional.max_pool2d(mask, 3, 1, 1)
        for axis in (2, 3):
            length = image.shape[axis] - 1
            after, before = (filled.narrow(axis, i, length) for i in (1, 0))
            both = near.narrow(axis, 1, length) * near.narrow(axis, 0, length)
            loss = loss + 0.1 * (both * (after - before).abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step

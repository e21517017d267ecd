"""PyTorch twin of DeepFill v2 that `gan.py` measures.

The same layers, losses and optimizer as `jaxpaint.methods.deepfill_v2`, with the names
of its layers; contextual attention as published PyTorch code has it, by convolutions
whose kernels are the patches of one picture.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


def pad_same(x: torch.Tensor, size: int, stride: int, dilation: int = 1):
    """Returns `x` with the zeros of TensorFlow's `SAME`."""
    pads = []
    for side in x.shape[:1:-1]:
        reach = dilation * (size - 1) + 1
        total = max((-(-side // stride) - 1) * stride + reach - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


class Gated(nn.Module):
    """Gated convolution; `upsample` doubles the pixels first."""

    def __init__(
        self,
        inputs: int,
        features: int,
        size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        upsample: bool = False,
        activation: Callable = functional.elu,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * features, size, stride, dilation=dilation)
        self.upsample, self.activation = upsample, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[B, inputs, H, W]` to `[B, features, ..]`."""
        if self.upsample:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        conv = self.conv
        x = pad_same(x, conv.kernel_size[0], conv.stride[0], conv.dilation[0])
        feature, gate = conv(x).chunk(2, dim=1)
        return self.activation(feature) * torch.sigmoid(gate)


DILATIONS = {7: 2, 8: 4, 9: 8, 10: 16}


class Generator(nn.Module):
    """Coarse network and refinement; `width` as in `deepfill_v2.make`."""

    def __init__(self, width: int):
        super().__init__()
        one, two, four = width // 2, width, 2 * width
        layers: dict[str, nn.Module] = {}

        def encode(name: str, inputs: int, widths: tuple[int, ...]) -> None:
            layers[f"{name}1"] = Gated(inputs, widths[0], 5)
            layers[f"{name}2_downsample"] = Gated(widths[0], widths[1], stride=2)
            layers[f"{name}3"] = Gated(widths[1], widths[2])
            layers[f"{name}4_downsample"] = Gated(widths[2], widths[3], stride=2)
            layers[f"{name}5"] = Gated(widths[3], four)

        def widen(name: str) -> None:
            layers[f"{name}6"] = Gated(four, four)
            for number, dilation in DILATIONS.items():
                layers[f"{name}{number}_atrous"] = Gated(four, four, dilation=dilation)

        def decode(name: str, inputs: int) -> None:
            layers[f"{name}11"] = Gated(inputs, four)
            layers[f"{name}12"] = Gated(four, four)
            layers[f"{name}13_upsample"] = Gated(four, two, upsample=True)
            layers[f"{name}14"] = Gated(two, two)
            layers[f"{name}15_upsample"] = Gated(two, one, upsample=True)
            layers[f"{name}16"] = Gated(one, one // 2)
            layers[f"{name}17"] = nn.Conv2d(one // 2, 3, 3, padding=1)

        encode("conv", 5, (one, two, two, four))
        widen("conv")
        decode("conv", four)
        encode("xconv", 3, (one, one, two, two))
        widen("xconv")
        encode("pmconv", 3, (one, one, two, four))
        layers["pmconv6"] = Gated(four, four, activation=functional.relu)
        layers["pmconv9"] = Gated(four, four)
        layers["pmconv10"] = Gated(four, four)
        decode("allconv", 2 * four)
        self.layers = nn.ModuleDict(layers)

    def through(self, x: torch.Tensor, name: str, *numbers: int) -> torch.Tensor:
        """Returns what the layers of a name and these numbers make of `x`."""
        for key, layer in self.layers.items():
            rest = key.removeprefix(name)
            if key.startswith(name) and int(rest.split("_")[0]) in numbers:
                x = layer(x)
        return x

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps `[B, 3, H, W]` and `[B, 1, H, W]` to the coarse and the refined one."""
        known = image * (1 - mask)
        x = torch.cat([known, torch.ones_like(mask), mask], dim=1)
        coarse = torch.tanh(self.through(x, "conv", *range(1, 18)))
        pasted = coarse * mask + known * (1 - mask)
        seen = self.through(pasted, "xconv", *range(1, 11))
        x = self.through(pasted, "pmconv", *range(1, 7))
        small = resize_nearest(mask, *x.shape[2:])
        x = self.through(contextual_attention(x, small), "pmconv", 9, 10)
        x = torch.cat([seen, x], dim=1)
        return coarse, torch.tanh(self.through(x, "allconv", *range(11, 18)))

    def load(self, params: dict) -> None:
        """Takes the parameters of `jaxpaint`'s network."""
        for key, layer in self.layers.items():
            conv = layer.conv if isinstance(layer, Gated) else layer
            kernel = np.asarray(params[key]["kernel"]).transpose(3, 2, 0, 1)
            conv.weight.data = torch.tensor(kernel, device=conv.weight.device)
            bias = torch.tensor(np.asarray(params[key]["bias"]))
            conv.bias.data = bias.to(conv.weight.device)


def resize_nearest(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns pixels by the index rule of the official code, in float32."""
    picks = []
    for side, want in ((x.shape[2], height), (x.shape[3], width)):
        scale = np.float32(side - 1) / np.float32(want - 1)
        index = np.floor(np.arange(want, dtype=np.float32) * scale + np.float32(0.5))
        picks.append(torch.tensor(index.astype(np.int64), device=x.device))
    return x[:, :, picks[0]][:, :, :, picks[1]]


def contextual_attention(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns features rebuilt of their own known patches, picture by picture."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    small = resize_nearest(x, height, width)
    small_mask = resize_nearest(mask, height, width)
    eye = torch.eye(3, device=x.device)[None, None]
    results = []
    for i in range(len(x)):
        raw = functional.unfold(functional.pad(x[i : i + 1], (1, 1, 1, 1)), 4, stride=2)
        raw = raw[0].T.reshape(-1, x.shape[1], 4, 4)
        one = small[i : i + 1]
        patches = functional.unfold(one, 3, padding=1)[0].T.reshape(
            -1, x.shape[1], 3, 3
        )
        hole = functional.unfold(small_mask[i : i + 1], 3, padding=1).mean(dim=1)[0]
        valid = (hole == 0).float()[None, :, None, None]
        norm = patches.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-4)
        scores = functional.conv2d(one, patches / norm, padding=1)
        count = height * width
        scores = scores.permute(0, 2, 3, 1).reshape(1, 1, count, count)
        scores = functional.conv2d(scores, eye, padding=1)
        scores = scores.reshape(1, height, width, height, width)
        scores = scores.permute(0, 2, 1, 4, 3).reshape(1, 1, count, count)
        scores = functional.conv2d(scores, eye, padding=1)
        scores = scores.reshape(1, width, height, width, height)
        scores = scores.permute(0, 2, 1, 4, 3).reshape(1, height, width, count)
        scores = scores.permute(0, 3, 1, 2)
        weights = torch.softmax(10 * scores * valid, dim=1) * valid
        pasted = functional.conv_transpose2d(weights, raw, stride=2, padding=1)
        results.append(pasted / 4)
    return torch.cat(results)


class Discriminator(nn.Module):
    """SN-PatchGAN."""

    def __init__(self, width: int):
        super().__init__()
        widths = [4, *(width * n for n in (1, 2, 4, 4, 4, 4))]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(widths[i], widths[i + 1], 5, 2)) for i in range(6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 4, H, W]` to scores of places."""
        for layer in self.layers:
            x = functional.leaky_relu(layer(pad_same(x, 5, 2)), 0.2)
        return x


def training_step(
    generator: Generator, discriminator: Discriminator
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Returns one step of both networks, in place; one forward pass of the first."""
    optimizers = [
        torch.optim.Adam(network.parameters(), 1e-4, (0.5, 0.999), fused=True)
        for network in (generator, discriminator)
    ]

    def step(image: torch.Tensor, mask: torch.Tensor) -> None:
        coarse, refined = generator(image, mask)
        fake = refined * mask + image * (1 - mask)
        pair = torch.cat([image, fake.detach()])
        scores = discriminator(torch.cat([pair, torch.cat([mask, mask])], dim=1))
        real, drawn = scores.chunk(2)
        loss = 0.5 * (
            functional.relu(1 - real).mean() + functional.relu(1 + drawn).mean()
        )
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        judged = discriminator(torch.cat([fake, mask], dim=1))
        absolute = (image - coarse).abs().mean() + (image - refined).abs().mean()
        optimizers[0].zero_grad()
        (absolute - judged.mean()).backward()
        optimizers[0].step()

    return step

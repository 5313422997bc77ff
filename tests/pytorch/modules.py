"""Modules as they are written for PyTorch, small. Each has example inputs and, by its name, a target for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 5, padding=2)
        self.conv2 = nn.Conv2d(3, 4, 5)
        self.fc1 = nn.Linear(4 * 4 * 4, 10)
        self.fc2 = nn.Linear(10, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(torch.tanh(self.conv1(image)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 1, 1)
        return self.fc2(torch.tanh(self.fc1(torch.flatten(x, 1))))


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != out:
            self.downsample = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """As ResNet-18 of torchvision, narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(4, 4, 1), Block(4, 4, 1))
        self.layer2 = nn.Sequential(Block(4, 6, 2), Block(6, 6, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Inverted(nn.Module):
    def __init__(self, inside: int, out: int, stride: int, ratio: int) -> None:
        super().__init__()
        wide = inside * ratio
        layers: list[nn.Module] = []
        if ratio != 1:
            layers += [nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)]
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)]
        layers += [nn.ReLU6(inplace=True), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inside == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNet(nn.Module):
    """As MobileNet-v2 of torchvision, short."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
        self.features = nn.Sequential(first, Inverted(4, 4, 1, 1), Inverted(4, 6, 2, 2), Inverted(6, 6, 1, 2))
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(6, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class LstmClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, (h, _) = self.lstm(self.embed(ids))
        return self.fc(h[-1])


class GruTagger(nn.Module):
    """Both directions, sequences in front."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, h = self.gru(x)
        return self.head(y).mean(dim=0) + self.head(torch.cat([h[-2], h[-1]], dim=1))


class Gpt(nn.Module):
    """One block in the manner of minGPT, the head tied to the table."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(11, 8)
        self.wpe = nn.Embedding(6, 8)
        self.ln_1 = nn.LayerNorm(8)
        self.c_attn = nn.Linear(8, 24)
        self.c_proj = nn.Linear(8, 8)
        self.ln_2 = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 8), nn.Dropout(0.0))
        self.ln_f = nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        b, t = ids.size()
        x = self.wte(ids) + self.wpe(torch.arange(0, t))
        q, k, v = self.c_attn(self.ln_1(x)).split(8, dim=2)
        q, k, v = (z.view(b, t, 2, 4).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, 8))
        x = x + self.mlp(self.ln_2(x))
        return self.lm_head(self.ln_f(x))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.encoder(x).mean(1))


class Attending(nn.Module):
    """MultiheadAttention with a mask, whose weights are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2)
        self.register_buffer("mask", torch.triu(torch.full((5, 5), float("-inf")), 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.attn(x, x, x, attn_mask=self.mask)
        return (x + y).mean(0)


def double(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
        nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inc = double(1, 3)
        self.down = nn.Sequential(nn.MaxPool2d(2), double(3, 4))
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.conv = double(6, 3)
        self.outc = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.inc(x)
        y = torch.cat([a, self.up(self.down(a))], dim=1)
        return self.outc(self.conv(y))


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.fc_mu = nn.Linear(8, 2)
        self.fc_logvar = nn.Linear(8, 2)
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 6), nn.Sigmoid())

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.encoder(x)
        mu, logvar = self.fc_mu(h), self.fc_logvar(h)
        z = mu + torch.exp(0.5 * logvar) * noise
        return {"image": self.decoder(z), "mu": mu, "logvar": logvar}


class NormCnn(nn.Module):
    """Every normalisation there is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding="same"), nn.BatchNorm2d(4, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.2),
            nn.Conv2d(4, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.PReLU(), nn.Dropout2d(0.0),
            nn.Conv2d(4, 4, 1, groups=2), nn.InstanceNorm2d(4, affine=True), nn.SiLU(),
        )  # fmt: skip
        self.gain = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.gain * self.features(x).mean([2, 3]))


class Plain(nn.Module):
    """Recurrent layers without biases, and with other ones; a row that is not trained; averages that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4, padding_idx=0)
        self.gru = nn.GRU(4, 5, bias=False, batch_first=True)
        self.rnn = nn.RNN(5, 5, nonlinearity="relu", batch_first=True, bidirectional=True)
        self.norm = nn.BatchNorm1d(10)

    def train(self, mode: bool = True) -> Plain:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.rnn(self.gru(self.embed(ids))[0])[0][:, -1])


class Decoder(nn.Module):
    """Causal attention, and attention to a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layer(x, memory, tgt_mask=mask, tgt_is_causal=True)


def image(channels: int, size: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(3, channels, size, size),)


def ids() -> tuple[torch.Tensor, ...]:
    return (torch.randint(0, 11, (3, 5)),)


# by name: the module, its inputs, the names of free axes where axis 0 is none
Case = tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, ...]], Any]
MODULES: dict[str, Case] = {
    "mlp": (mlp, lambda: (torch.randn(3, 6),), None),
    "lenet": (LeNet, image(1, 16), None),
    "resnet": (ResNet, image(3, 16), None),
    "mobilenet": (MobileNet, image(3, 16), None),
    "lstm": (LstmClassifier, ids, None),
    "gru": (GruTagger, lambda: (torch.randn(5, 3, 4),), {"x": {1: "B"}}),
    "gpt": (Gpt, ids, None),
    "encoder": (Encoder, lambda: (torch.randn(3, 5, 8),), None),
    "attention": (Attending, lambda: (torch.randn(5, 3, 8),), {"x": {1: "B"}}),
    "unet": (UNet, image(1, 8), None),
    "vae": (Vae, lambda: (torch.rand(3, 6), torch.randn(3, 2)), None),
    "plain": (Plain, ids, None),
    "decoder": (Decoder, lambda: (torch.randn(3, 4, 4), torch.randn(3, 5, 4)), None),
    "norms": (NormCnn, image(2, 7), None),
}

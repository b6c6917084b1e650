"""Six networks of the usual kinds, written from their papers' figures with random weights."""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions and a shortcut, as in ResNet's basic block."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer))
        straight = inner == outer and stride == 1
        self.shortcut = (
            nn.Identity()
            if straight
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem with max pooling, three stages, global average pooling, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.Sequential(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class Inverted(nn.Module):
    """Expand, depthwise convolution, squeeze and excite, project, as in MobileNet V2 and V3."""

    def __init__(self, inner: int, outer: int, stride: int, expand: int) -> None:
        super().__init__()
        middle = inner * expand
        self.expand = nn.Sequential(nn.Conv2d(inner, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False), nn.BatchNorm2d(middle), nn.Hardswish()
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(middle, middle // 4, 1), nn.ReLU(), nn.Conv2d(middle // 4, middle, 1)
        )
        self.project = nn.Sequential(nn.Conv2d(middle, outer, 1, bias=False), nn.BatchNorm2d(outer))
        self.straight = inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y * nn.functional.hardsigmoid(self.squeeze(y)))
        return x + y if self.straight else y


class MobileNet(nn.Module):
    """Inverted residuals after a strided stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(Inverted(16, 16, 1, 2), Inverted(16, 24, 2, 4), Inverted(24, 24, 1, 4))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class Attention(nn.Module):
    """Multi-head self-attention with an optional additive mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.mix, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.mix(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), activation, nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.feed(self.norm2(x))


class TextEncoder(nn.Module):
    """Token and position embeddings, masked encoder blocks, mean over the tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(100, 32), nn.Parameter(torch.randn(1, 12, 32) * 0.1)
        self.blocks = nn.ModuleList([Block(32, 4, nn.GELU()), Block(32, 4, nn.ReLU())])
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        keep = (ids != 0).float()
        mask = ((1.0 - keep) * -1e4)[:, None, None, :]
        x = self.tokens(ids) + self.positions
        for block in self.blocks:
            x = block(x, mask)
        pooled = (self.norm(x) * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
        return self.head(pooled)


class Tagger(nn.Module):
    """Embedding, bidirectional LSTM, one set of scores per token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(60, 16)
        self.lstm = nn.LSTM(16, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 7)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.log_softmax(self.head(self.lstm(self.tokens(ids))[0]), -1)


class UNet(nn.Module):
    """Two levels down and up, with transposed convolution, bilinear upsampling and skip connections."""

    def __init__(self) -> None:
        super().__init__()

        def double(inner: int, outer: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(inner, outer, 3, padding=1),
                nn.InstanceNorm2d(outer, affine=True),
                nn.LeakyReLU(0.1),
                nn.Conv2d(outer, outer, 3, padding=1),
                nn.GroupNorm(2, outer),
                nn.SiLU(),
            )

        self.down1, self.down2, self.middle = double(3, 8), double(8, 16), double(16, 32)
        self.up2, self.join2 = nn.ConvTranspose2d(32, 16, 2, 2), double(32, 16)
        self.shrink, self.join1 = nn.Conv2d(16, 8, 1), double(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(nn.functional.max_pool2d(a, 2, 2))
        c = self.middle(nn.functional.avg_pool2d(b, 2, 2))
        b = self.join2(torch.cat([self.up2(c), b], 1))
        up = nn.functional.interpolate(self.shrink(b), scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.head(self.join1(torch.cat([up, a], 1))))


class ViT(nn.Module):
    """Patches by a strided convolution, a class token, encoder blocks, scores from the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 17, 32) * 0.1)
        self.blocks = nn.ModuleList([Block(32, 4, nn.GELU()) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Bottleneck(nn.Module):
    """MobileNet V2's block in full size."""

    def __init__(self, inner: int, outer: int, stride: int, expand: int) -> None:
        super().__init__()
        middle = inner * expand
        layers = [nn.Conv2d(inner, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6()] if expand > 1 else []
        depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        layers += [depthwise, nn.BatchNorm2d(middle), nn.ReLU6(), nn.Conv2d(middle, outer, 1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(outer))
        self.straight = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.straight else self.layers(x)


class MobileNetV2(nn.Module):
    """The network of the paper, for timing."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        inner = 32
        for expand, outer, count, stride in [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]:
            for place in range(count):
                layers.append(Bottleneck(inner, outer, stride if place == 0 else 1, expand))
                inner = outer
        layers += [nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a network with random weights and running statistics, and one example input."""
    torch.manual_seed(len(name))
    network = {
        "resnet": ResNet,
        "mobilenet": MobileNet,
        "encoder": TextEncoder,
        "tagger": Tagger,
        "unet": UNet,
        "vit": ViT,
    }[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    if name == "encoder":
        ids = torch.randint(1, 100, (1, 12), dtype=torch.int32)
        ids[0, -3:] = 0
        return network.eval(), (ids,)
    if name == "tagger":
        return network.eval(), (torch.randint(0, 60, (2, 9), dtype=torch.int32),)
    return network.eval(), (torch.randn(1, 3, 32, 32),)


NAMES = ("resnet", "mobilenet", "encoder", "tagger", "unet", "vit")

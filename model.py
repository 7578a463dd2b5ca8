"""The networks, what they are made of, and the checkpoint file that holds a trained one.

    python model.py             the layers of every network
    python model.py small       the layers of one

A network takes standardised images (B, 1, 28, 28) and returns logits (B, classes): one number for
each class, the higher the likelier. The softmax, which makes probabilities of them, is part of the
loss when training, and of `evaluate.predict` afterwards.
"""
import math
from dataclasses import dataclass
from pathlib import Path

from idx_data import standardise
from support.checkpoint import (bare_network, check_content, fill, plain_names, read_torch,
                                save_torch, shapes)
from support.command_line import Parser, choose, run_script, say
from support.earlier import earlier_networks
from support.errors import FormatError, UsageError, in_file

import torch  # after support/__init__.py, which says why
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

SIZE = 28  # pixels a side

# Layers are named by their kind and a number: conv1, relu1, conv2, ...
KINDS = {nn.Conv2d: "conv", nn.BatchNorm2d: "norm", nn.LayerNorm: "norm", nn.MaxPool2d: "maxpool",
         nn.AvgPool2d: "avgpool", nn.Dropout2d: "dropout"}  # any other: its name in small letters


class Network(nn.Sequential):
    """Layers in a row, and what belongs to them: the mean and standard deviation of the data that
    they were trained on, the history of the training, and the run that made them."""

    def __init__(self, name: str, classes: int, layers: list[nn.Module], other: bool = False):
        super().__init__()
        count = {}
        for layer in layers:
            kind = KINDS.get(type(layer), type(layer).__name__.lower())
            count[kind] = count.get(kind, 0) + 1
            self.add_module(f"{kind}{count[kind]}", layer)
        self.name = name
        self.classes = classes
        self.other = other  # whether there is one logit more, the last: it is none of the classes
        self.mean, self.std = 0.1307, 0.3081  # MNIST's; training and loading put theirs here
        self.content = "digits"  # or plain: what it reads are pictures as they are, only resized
        self.labels: list[str] | None = None  # the names of the classes; None: their numbers
        self.inverted = False  # whether its pictures were dark on light, and were turned round
        self.history: list[dict] = []  # a row for each epoch, as `train.epochs` makes it
        self.run: dict = {}  # recipe, settings, versions, command, data: whatever made the weights

    @property
    def class_names(self) -> list[str]:
        return self.labels or [str(label) for label in range(self.classes)]

    def named_layers(self) -> list[tuple[str, nn.Module]]:
        """All layers in their order. One that is used twice has two names."""
        return list(self.named_modules(remove_duplicate=False))[1:]  # the first is the network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of standardised images (B, 1, 28, 28)."""
        for layer in self:
            x = layer(x)  # (B, channels, height, width), and (B, features) after Flatten
        return x


# --- Five published designs -----------------------------------------------------------------------

def wide(classes: int) -> list[nn.Module]:
    return [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # 28 -> 14 pixels a side
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # 7
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # 3
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(1152, 128), nn.ReLU(),
            nn.Linear(128, classes)]


def dropout(classes: int) -> list[nn.Module]:
    return [nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.Flatten(), nn.ReLU(),
            nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, classes)]


def compact(classes: int) -> list[nn.Module]:
    return [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(384, 50), nn.ReLU(), nn.Linear(50, classes)]


def baseline(classes: int) -> list[nn.Module]:
    return [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, classes)]


def lenet(classes: int) -> list[nn.Module]:
    return [nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(320, 50), nn.Linear(50, classes)]


# --- The project's own ----------------------------------------------------------------------------

def block(channels: int, wider: int, kernel: int = 3, stride: int = 1, padding: int = 0,
          pool: bool = False, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Convolution, batch normalisation (Ioffe and Szegedy, 2015), ReLU or another activation.
    Pooling, if there is any, comes right after the convolution: the layers after it then have a
    quarter of the work."""
    layers = [nn.Conv2d(channels, wider, kernel, stride, padding, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.BatchNorm2d(wider))
    layers.append(activation())
    return layers


def separable(channels: int, wider: int, padding: int = 0, pool: bool = False) -> list[nn.Module]:
    """A block with five to eight times fewer weights: a depthwise convolution, 3×3 of each channel
    by itself, then a pointwise one, 1×1, that mixes the channels (Howard et al., "MobileNets",
    2017). With average pooling and SiLU in place of max pooling and ReLU the smallest networks
    make 30% fewer errors."""
    return [nn.Conv2d(channels, channels, 3, padding=padding, groups=channels, bias=False),
            nn.Conv2d(channels, wider, 1, bias=False), *smooth(wider, pool)]


def smooth(channels: int, pool: bool) -> list[nn.Module]:
    """What follows the convolutions of `separable`: pooling, if any, normalisation, SiLU."""
    layers = []
    if pool:
        layers.append(nn.AvgPool2d(2))
    return [*layers, nn.BatchNorm2d(channels), nn.SiLU()]


def head(channels: int, grid: int, classes: int) -> list[nn.Module]:
    """Logits from (channels, grid, grid). Each channel is summed over the grid with weights of its
    own: unlike a mean, this knows where something was seen, for far fewer weights than Flatten
    and Linear alone."""
    return [nn.Conv2d(channels, channels, grid, groups=channels, bias=False), nn.Flatten(),
            nn.Linear(channels, classes)]


# A 5×5 convolution makes 24 of 28 pixels a side, pooled to 12; a 3×3 takes away 2, unless padded.

def small(classes: int) -> list[nn.Module]:
    silu = nn.SiLU  # Elfwing, Uchibe and Doya, 2018: an eighth fewer errors than with ReLU
    return [*block(1, 16, kernel=5, pool=True, activation=silu),
            *block(16, 32, padding=1, activation=silu), *separable(32, 48, padding=1),
            *separable(48, 56, pool=True), *separable(56, 72, padding=1), *separable(72, 72),
            *head(72, 3, classes)]


def tiny10k(classes: int) -> list[nn.Module]:
    return [*block(1, 16, kernel=5, pool=True), *separable(16, 36, padding=1),
            *separable(36, 40, padding=1), *separable(40, 48, pool=True), *separable(48, 54),
            *head(54, 3, classes)]


def tiny5k(classes: int) -> list[nn.Module]:
    return [*block(1, 12, kernel=5, pool=True), *separable(12, 24, padding=1),
            *separable(24, 24, padding=1), *separable(24, 28, pool=True),
            *separable(28, 33, padding=1), *head(33, 5, classes)]


def tiny2k(classes: int) -> list[nn.Module]:
    return [*block(1, 8, kernel=5, pool=True), *separable(8, 14, padding=1),
            *separable(14, 14, padding=1), *separable(14, 16, pool=True), *separable(16, 18),
            *head(18, 3, classes)]


def golf(classes: int) -> list[nn.Module]:
    # The same filters are used four times, where the image has 13, 13, 6 and 6 pixels a side.
    depthwise = nn.Conv2d(10, 10, 3, padding=1, groups=10, bias=False)
    pointwise = nn.Conv2d(10, 10, 1, bias=False)
    layers = block(1, 10, pool=True)
    for pool in (False, True, False, True):
        layers += [depthwise, pointwise, *smooth(10, pool)]
    return [*layers, nn.Conv2d(10, 10, 3, groups=10, bias=False), nn.Flatten(),
            nn.Linear(10, classes, bias=False)]


class FeatureNorm(nn.BatchNorm1d):
    """Batch normalisation of features (B, features). One image alone has no variance; it gets the
    mean and variance of the batches before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def quick(classes: int) -> list[nn.Module]:
    # A stride of 2 in place of the first pooling: three quarters of the outputs are not computed.
    # What moves much memory is narrow, or left out; matrix products are cheap.
    return [nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), *block(8, 16, pool=True), nn.Flatten(),
            nn.Linear(400, 256, bias=False), FeatureNorm(256), nn.ReLU(), nn.Linear(256, classes)]


def accurate(classes: int) -> list[nn.Module]:
    silu = nn.SiLU
    return [*block(1, 24, kernel=5, pool=True, activation=silu),
            *block(24, 48, padding=1, activation=silu), *block(48, 48, activation=silu),
            *block(48, 96, pool=True, activation=silu),
            *block(96, 128, padding=1, activation=silu), *head(128, 4, classes)]


def robust(classes: int) -> list[nn.Module]:
    return [*block(1, 32), *block(32, 48, pool=True), *block(48, 112), *block(112, 112, pool=True),
            *block(112, 176), *head(176, 2, classes)]


EARLIER = earlier_networks(block, separable, head)  # whose checkpoints are still read
MODELS = {"small": small, "tiny10k": tiny10k, "tiny5k": tiny5k, "tiny2k": tiny2k, "golf": golf,
          "quick": quick, "accurate": accurate, "robust": robust, "wide": wide, "dropout": dropout,
          "compact": compact, "baseline": baseline, "lenet": lenet}


def build(name: str, classes: int = 10, other: bool = False, models=MODELS) -> Network:
    """A network with fresh weights, drawn from torch's global generator. With `other` it has one
    logit more, the last, for what is none of the classes. Raises UsageError for a name that is not
    in MODELS."""
    layers = models[choose(name, models, "network")]
    net = Network(name, classes, layers(classes + int(other)), other)
    return net.to(memory_format=torch.channels_last)  # the layout that is fast on a CPU


def precise_bn(net: Network, images: torch.Tensor) -> None:
    """Measure the means and variances of batch normalisation anew, on (N, 28, 28) uint8 images as
    they are. Those that training leaves are of augmented images, which are less sharp: on held-out
    MNIST images they cost one error in 22 (docs/speed.md). And they are running means, which lag
    behind in a short run. Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021."""
    count = math.ceil(len(images) / 500)  # of batches, each of all parts: images may be in order
    batches = [standardise(images[i::count], net.mean, net.std) for i in range(count)]
    update_bn(batches, net)  # it takes the plain mean over the batches


# --- What it is made of ---------------------------------------------------------------------------

@dataclass
class Layer:
    """What one layer of a network gives and costs, for one image."""
    name: str
    module: nn.Module
    shape: tuple[int, ...]  # of the output: (channels, height, width) or (features,)
    parameters: int
    multiply_adds: int  # each use of a parameter; for a normalisation, each element of its output


def parameters(net: nn.Module) -> int:
    return sum(weights.numel() for weights in net.parameters())


def trace(net: Network) -> list[Layer]:
    """The layers of a network, seen by running one blank image through."""
    layers = []
    was_training = net.training
    net.eval()
    x = torch.zeros(1, 1, SIZE, SIZE, device=next(net.parameters()).device)
    with torch.inference_mode():
        for name, module in net.named_layers():
            x = module(x)
            count = parameters(module)
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d, nn.LayerNorm)):
                work = x.numel()
            else:  # each parameter is used once at each place: height × width of them, or one
                work = count * math.prod(x.shape[2:])
            if any(module is layer.module for layer in layers):
                count = 0  # it was here before, and its parameters are the same ones
            layers.append(Layer(name, module, tuple(x.shape[1:]), count, work))
    net.train(was_training)
    return layers


def summary(net: Network) -> str:
    """The layer table: output shape, parameters and multiply-adds of each layer, and the totals."""
    lines = [net.name, f"{'layer':<22}{'output':>14}{'parameters':>13}{'multiply-adds':>16}"]
    layers = trace(net)
    for layer in layers:
        shape = " × ".join(map(str, layer.shape))
        lines.append(f"{layer.name:<22}{shape:>14}{layer.parameters:>13,}"
                     f"{layer.multiply_adds:>16,}")
    total = sum(layer.multiply_adds for layer in layers)
    lines.append(f"{'total':<22}{'':>14}{parameters(net):>13,}{total:>16,}")
    lines.append(f"multiply-adds for 64 images: {64 * total / 1e6:.2f} M")  # a recipe's usual batch
    return "\n".join(lines)


# --- The checkpoint -------------------------------------------------------------------------------

FORMAT = 1  # raised when a file written by this version could not be read by an older one


def save(net: Network, path) -> None:
    """Write the network to a checkpoint, whole or not at all: weights, name, classes, mean and
    standard deviation, what its pictures are, history, and the run that made it. It holds tensors
    and plain values only."""
    weights = {name: tensor.detach().cpu().contiguous()
               for name, tensor in plain_names(net.state_dict()).items()}
    save_torch({"format": FORMAT, "model": net.name, "classes": net.classes, "other": net.other,
                "mean": net.mean, "std": net.std, "content": net.content, "labels": net.labels,
                "inverted": net.inverted, "weights": weights, "history": net.history,
                "run": net.run}, path)


def load(path, device="cpu", name: str | None = None) -> Network:
    """Read a checkpoint and return its network in eval mode, with .mean, .std, .history and .run.

    A bare `state_dict` of another script loads too when `name` says which of MODELS it fits and it
    is clear which tensor is which; mean and standard deviation are then MNIST's. Nothing in the
    file is run, and nothing is believed that was not looked at (`support/checkpoint.py`). Raises
    FormatError for a file that is no checkpoint of this project or not a whole one.
    """
    content = read_torch(path)
    with in_file(path):
        if "weights" in content and "format" in content:
            check_content(content, FORMAT, MODELS, name)
            weights = plain_names(content["weights"])
            net = build_for(weights, content)
            fill(net, weights)
            net.mean, net.std = content["mean"], content["std"]
            net.content = content.get("content", "digits")  # older files are of digits
            net.labels = content.get("labels")
            net.inverted = content.get("inverted", False)
            net.history, net.run = content["history"], content["run"]
        elif name:
            net = bare_network(content, name, build)
        else:
            raise FormatError("expected a checkpoint of this project, found other data; a bare "
                              "state_dict is read by evaluate.py and infer.py with --model NAME")
    return net.to(device).eval()


def build_for(weights: dict, content: dict) -> Network:
    """The network of a checkpoint, with fresh weights: as it is made today or, if the checkpoint's
    are those of an earlier version, as it was made then."""
    name, classes, other = content["model"], content["classes"], content.get("other", False)
    for models in EARLIER:
        if name in models:
            earlier = build(name, classes, other, models)
            if shapes(weights) == shapes(earlier.state_dict()):
                return earlier
    return build(name, classes, other)


def find_checkpoint() -> Path:
    """model.pt, where one was trained, else the one that comes with the project."""
    for path in (Path("model.pt"), Path(__file__).with_name("pretrained.pt")):
        if path.exists():
            return path
    raise UsageError("no model.pt here and no pretrained.pt beside the scripts: train a model with "
                     "`python train.py`, or name a checkpoint")


def main(arguments: list[str]) -> int:
    parser = Parser("Print the layers of the networks.")
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(MODELS)}; all, if none")
    name = parser.parse_args(arguments).name
    names = [name] if name else list(MODELS)
    say("\n\n".join(summary(build(name)) for name in names))
    return 0


if __name__ == "__main__":
    run_script(main)

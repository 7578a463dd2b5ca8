"""The networks, their summary table, and the checkpoint file that holds a trained one.

    python model.py             the layers of every network
    python model.py small       the layers of one

A network takes standardised images (B, 1, 28, 28) and returns logits (B, classes): the softmax is
part of the loss when training, and of `evaluate.predict` afterwards.
"""
import math
import re
from pathlib import Path

from support.command_line import Parser, choose, run_script, say
from support.checkpoint import plain_names, put_weights, read_torch, save_torch
from support.errors import FormatError, UsageError, in_file

import torch
from torch import nn

SIZE = 28  # pixels a side


class Network(nn.Sequential):
    """Layers in a row, named by their kind and number (conv1, relu1, ...), and what belongs to
    them: the data's mean and standard deviation, the history of the training, the run."""

    def __init__(self, name: str, classes: int, *layers: nn.Module):
        super().__init__()
        for layer in layers:
            kind = re.sub("batch|layer|2d", "", type(layer).__name__.lower())
            number = 1
            while f"{kind}{number}" in self._modules:
                number += 1
            self.add_module(f"{kind}{number}", layer)
        self.name, self.classes = name, classes
        self.mean, self.std = 0.1307, 0.3081  # MNIST's; training and loading set the real ones
        self.history: list[dict] = []  # a row an epoch, as `train.train` makes it
        self.run: dict = {}  # recipe, settings, versions, command, data: whatever made the weights


# --- Five published designs -----------------------------------------------------------------------

def wide(classes: int) -> list[nn.Module]:
    layers = []
    for channels, wider in ((1, 32), (32, 64), (64, 128)):  # 28 -> 14 -> 7 -> 3 pixels a side
        layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return [*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(1152, 128), nn.ReLU(),
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
          pool: bool = False) -> list[nn.Module]:
    """Convolution, batch normalisation (Ioffe and Szegedy, 2015), ReLU. Pooling comes before the
    normalisation: maximum and ReLU may change places, and three quarters of the work is saved."""
    return [nn.Conv2d(channels, wider, kernel, stride, padding, bias=False),
            *[nn.MaxPool2d(2)] * pool, nn.BatchNorm2d(wider), nn.ReLU()]


def separable(channels: int, wider: int, padding: int = 0, pool: bool = False) -> list[nn.Module]:
    """The same with some eight times fewer weights: a 3×3 convolution of each channel by itself,
    then a 1×1 convolution that mixes the channels (Howard et al., "MobileNets", 2017)."""
    return [nn.Conv2d(channels, channels, 3, padding=padding, groups=channels, bias=False),
            *block(channels, wider, kernel=1, pool=pool)]


def head(channels: int, grid: int, classes: int) -> list[nn.Module]:
    """Logits from (channels, grid, grid). Each channel is summed over the grid with weights of its
    own: unlike a mean, this knows where something was seen, for far fewer weights than Flatten
    and Linear alone."""
    return [nn.Conv2d(channels, channels, grid, groups=channels, bias=False), nn.Flatten(),
            nn.Linear(channels, classes)]


# Sides in pixels are 28 -> 26 -> 24, pooled to 12 -> 10 -> 8, pooled to 4, where nothing is padded.

def small(classes: int) -> list[nn.Module]:
    return [*block(1, 16, padding=1), *block(16, 16, padding=1, pool=True),
            *block(16, 24, padding=1), *block(24, 32, padding=1, pool=True),
            *block(32, 32), *head(32, 5, classes)]


def tiny10k(classes: int) -> list[nn.Module]:
    return [*block(1, 8), *block(8, 16, pool=True), *separable(16, 32, padding=1),
            *separable(32, 48, pool=True), *separable(48, 64, padding=1), *head(64, 5, classes)]


def tiny5k(classes: int) -> list[nn.Module]:
    return [*block(1, 16, kernel=5, pool=True), *separable(16, 24, padding=1),
            *separable(24, 32, pool=True), *separable(32, 36, padding=1), *head(36, 5, classes)]


def tiny2k(classes: int) -> list[nn.Module]:
    return [*block(1, 8, kernel=5, pool=True), *separable(8, 16), *separable(16, 20, pool=True),
            *separable(20, 20), *head(20, 2, classes)]


def quick(classes: int) -> list[nn.Module]:
    # The stride does the work of the first pooling, on a quarter of the pixels.
    return [*block(1, 16, kernel=5, stride=2), *block(16, 32, pool=True), nn.Flatten(),
            nn.Linear(800, 128, bias=False), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, classes)]


def accurate(classes: int) -> list[nn.Module]:
    return [*block(1, 24), *block(24, 32, pool=True), *block(32, 64), *block(64, 64, pool=True),
            *block(64, 128), *head(128, 2, classes)]


def robust(classes: int) -> list[nn.Module]:
    return [*block(1, 32), *block(32, 48, pool=True), *block(48, 112), *block(112, 112, pool=True),
            *block(112, 176), *head(176, 2, classes)]


MODELS = {f.__name__: f for f in (small, tiny10k, tiny5k, tiny2k, quick, accurate, robust,
                                   wide, dropout, compact, baseline, lenet)}


def build(name: str, classes: int = 10) -> Network:
    """A network with fresh weights, drawn from torch's global generator. Raises UsageError for a
    name that is not in MODELS."""
    net = Network(name, classes, *MODELS[choose(name, MODELS, "network")](classes))
    return net.to(memory_format=torch.channels_last)  # the layout that is fast on a CPU


# --- What it is made of ---------------------------------------------------------------------------

def parameters(net: nn.Module) -> int:
    return sum(weights.numel() for weights in net.parameters())


def trace(net: Network) -> list[tuple[str, nn.Module, tuple[int, ...], int, int]]:
    """Run one blank image through. Of each layer: (name, layer, output shape (C, H, W), parameters,
    multiply-adds). A multiply-add is a parameter used once; a normalisation counts one for each
    element."""
    rows, training, x = [], net.training, torch.zeros(1, 1, SIZE, SIZE)
    x = x.to(next(net.parameters()).device)
    net.eval()
    with torch.inference_mode():
        for name, layer in net.named_children():
            x = layer(x)
            count, work = parameters(layer), 0
            if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
                work = x.numel()
            elif count:
                work = count * math.prod(x.shape[2:])
            rows.append((name, layer, tuple(x.shape[1:]), count, work))
    net.train(training)
    return rows


def multiply_adds(net: Network) -> int:
    return sum(row[-1] for row in trace(net))


def summary(net: Network) -> str:
    """The layer table: output shape, parameters and multiply-adds of each layer, and the totals."""
    lines = [f"{net.name}", f"{'layer':<22}{'output':>14}{'parameters':>13}{'multiply-adds':>16}"]
    rows = trace(net)
    for name, _, shape, count, work in rows:
        lines.append(f"{name:<22}{' × '.join(map(str, shape)):>14}{count:>13,}{work:>16,}")
    total = sum(row[-1] for row in rows)
    lines.append(f"{'total':<22}{'':>14}{parameters(net):>13,}{total:>16,}")
    return "\n".join(lines + [f"multiply-adds for 64 images: {64 * total / 1e6:.2f} M"])


# --- The checkpoint -------------------------------------------------------------------------------

FORMAT = 1  # raised when a file written by this version could not be read by an older one


def save(net: Network, path) -> None:
    """Write the network to a checkpoint, whole or not at all: weights, name, classes, mean and
    standard deviation, history, and the run that made it. It holds tensors and plain values only.
    """
    weights = {name: tensor.detach().cpu().contiguous()
               for name, tensor in plain_names(net.state_dict()).items()}
    save_torch({"format": FORMAT, "model": net.name, "classes": net.classes, "mean": net.mean,
                "std": net.std, "weights": weights, "history": net.history, "run": net.run}, path)


def load(path, device="cpu", name: str | None = None) -> Network:
    """Read a checkpoint and return its network in eval mode, with .mean, .std, .history and .run.

    A bare `state_dict` of another script loads too when `name` says which of MODELS it fits; mean
    and standard deviation are then MNIST's. Nothing in the file is run (`weights_only=True`).
    Raises FormatError for a file that is no checkpoint of this project or not a whole one.
    """
    content = read_torch(path)
    with in_file(path):
        if "weights" in content and "format" in content:
            if type(content["format"]) is not int or content["format"] != FORMAT:
                raise FormatError(
                    f"expected checkpoint format {FORMAT}, found {content['format']!r}; "
                    "train it again, or use the version of the project that wrote it")
            net = _from_checkpoint(content, name)
        elif name:
            net = _from_state_dict(content, name)
        elif content and all(isinstance(value, torch.Tensor) for value in content.values()):
            raise FormatError("expected a checkpoint, found a bare state_dict (weights without the "
                              "network's name); say which network with --model NAME")
        else:
            raise FormatError("expected a checkpoint of this project, found other data: "
                              + ", ".join(map(repr, list(content)[:5])))
    return net.to(device).eval()


def find_checkpoint() -> Path:
    """model.pt, where one was trained, else the one that comes with the project."""
    for path in (Path("model.pt"), Path(__file__).with_name("pretrained.pt")):
        if path.exists():
            return path
    raise UsageError("no model.pt here and no pretrained.pt beside the scripts: train a model with "
                     "`python train.py`, or name a checkpoint")


KEYS = {"model": str, "classes": int, "mean": float, "std": float, "weights": dict,
        "history": list, "run": dict}


def _from_checkpoint(content: dict, name: str | None) -> Network:
    for key, kind in KEYS.items():
        if type(content.get(key)) is not kind:
            raise FormatError(f"expected {key!r} to be a {kind.__name__}, "
                              f"found {type(content.get(key)).__name__}")
    if content["model"] not in MODELS or not 1 <= content["classes"] <= 1000:
        raise FormatError(f"expected a network of this project ({', '.join(MODELS)}), "
                          f"found {content['model']!r} with {content['classes']} classes")
    if name and name != content["model"]:
        raise FormatError(f"expected the network {name}, found {content['model']}")
    mean, std = content["mean"], content["std"]
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise FormatError(f"expected a mean and a positive standard deviation, found {mean}, {std}")
    net = build(content["model"], content["classes"])
    put_weights(net, plain_names(content["weights"]))
    net.mean, net.std, net.history, net.run = mean, std, content["history"], content["run"]
    return net


def _from_state_dict(content: dict, name: str) -> Network:
    """Other scripts name their layers otherwise: tensors are matched in order, and by shape."""
    tensors = list(content.values())
    classes = tensors[-1].shape[0] if tensors and getattr(tensors[-1], "ndim", 0) == 1 else 10
    if not 1 <= classes <= 1000:
        raise FormatError(f"expected 1 to 1000 classes, found {classes}")
    net = build(name, classes)
    names = list(net.state_dict())
    if len(names) != len(tensors):
        raise FormatError(f"expected the {len(names)} tensors of the network {name}, "
                          f"found {len(tensors)}")
    put_weights(net, dict(zip(names, tensors)))
    return net


def main(arguments: list[str]) -> int:
    parser = Parser("Print the layers of the networks.")
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(MODELS)}; all, if none")
    name = parser.parse_args(arguments).name
    say("\n\n".join(summary(build(n)) for n in ([name] if name else MODELS)))
    return 0


if __name__ == "__main__":
    run_script(main)

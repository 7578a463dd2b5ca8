"""Checkpoints that nobody vouches for, and what a run says of itself in one.

A checkpoint is what torch.save makes of a dictionary of tensors and plain values. torch.load with
weights_only=True runs nothing that is in the file; all else that could be wrong is checked here.
"""
import io
import itertools
import re
import shlex
import time
import zipfile

from support.command_line import printable
from support.content import CONTENTS
from support.errors import FormatError, in_file
from support.files import kind_of, read_file, write_whole
from support.machine import describe_machine, versions
from support.processes import command, count

import torch
from torch import nn


# --- Files of torch.save --------------------------------------------------------------------------

def save_torch(content: dict, path) -> None:
    """torch.save, whole or not at all; by way of memory, for torch reports a full disk badly."""
    data = io.BytesIO()
    torch.save(content, data)
    write_whole(path, lambda file: file.write(data.getbuffer()))


def read_torch(path, advice: str = "") -> dict:
    """A dictionary that torch.save has written. Raises FormatError for anything else, with the
    advice behind it."""
    data = read_file(path)
    with in_file(path, advice):
        return unpack(data)


def unpack(data: bytes) -> dict:
    if data.startswith(b"\x80\x02"):
        raise FormatError("expected a checkpoint, found a pickle, perhaps a checkpoint of torch "
                          "before 1.6")
    if not data.startswith(b"PK\x03\x04"):
        raise FormatError(f"expected a checkpoint, found {kind_of(data[:64])}")
    try:
        content = torch.load(verified(data), map_location="cpu", weights_only=True)
    except zipfile.BadZipFile as error:
        raise FormatError(f"expected a checkpoint, found a broken one ({printable(error)}); "
                          "get it again") from None
    except Exception as error:  # on broken bytes torch raises a dozen kinds, few of them documented
        raise FormatError("expected a checkpoint, found a file that torch cannot load with "
                          f"weights_only=True ({type(error).__name__}): it is broken, or holds "
                          "more than weights") from None
    if not isinstance(content, dict):
        raise FormatError(f"expected a checkpoint, found a {type(content).__name__}")
    check_values(content)
    return content


def verified(data: bytes) -> io.BytesIO:
    """A zip file with what is in this one, after a look at each checksum: torch does not look, and
    believes in bits of the archive's own that no checksum protects. Raises zipfile.BadZipFile."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > len(data):  # torch packs nothing
            raise zipfile.BadZipFile("it unpacks to more than it holds")
        contents = {entry.filename: archive.read(entry) for entry in entries}
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    copy.seek(0)
    return copy


DEEPEST = 20  # containers in each other; a checkpoint has four
LARGEST = torch.finfo(torch.float32).max  # everything is computed in float32


def check_values(content: dict) -> None:
    """Check each tensor and each number in a file, wherever it is. Raises FormatError, which names
    the place, for a number that is not finite or that nothing here can compute with, and for a
    tensor that is more in memory than in the file: one number, stretched to a million places."""
    places = [("", content, 0)]  # that are still to be looked at: name, value, depth
    seen = set()  # a container may hold itself
    while places:
        name, value, depth = places.pop()
        if depth > DEEPEST:
            raise FormatError(f"expected at most {DEEPEST} containers in each other, found more")
        if isinstance(value, torch.Tensor):
            check_plain(name, value)
        elif isinstance(value, (int, float)):
            largest = 2**63 - 1 if isinstance(value, int) else LARGEST
            if not -largest <= value <= largest:
                raise FormatError(f"expected {name} to be a finite number, found {value}")
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            places += [(f"{name}.{printable(key)}".lstrip("."), inner, depth + 1)
                       for key, inner in inside]


def check_plain(name: str, tensor: torch.Tensor) -> None:
    """Raise FormatError for a tensor whose elements do not all lie in the file."""
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_nested:
        raise FormatError(f"expected {name} to be a plain tensor, found one of another kind")
    wanted = tensor.numel() * tensor.element_size()
    found = tensor.untyped_storage().nbytes()
    if wanted > found:
        raise FormatError(f"expected {wanted:,} bytes for {name}, found {found:,}")


# --- A checkpoint's content -----------------------------------------------------------------------

# One grey level in one of a thousand million pixels has a standard deviation of 1e-7.
LEAST_STD = 1e-8
KEYS = {"model": str, "classes": int, "mean": float, "std": float, "weights": dict,
        "history": list, "run": dict}


def check_content(content: dict, version: int, models, wanted: str | None) -> None:
    """Check a checkpoint's content, apart from the weights: the version of the format, the type of
    each value, a network among `models`, and the one that is `wanted`. Raises FormatError."""
    if type(content["format"]) is not int or content["format"] != version:
        raise FormatError(f"expected checkpoint format {version}, found {content['format']!r}; "
                          "train it again, or use the version of the project that wrote it")
    for key, kind in KEYS.items():
        check_type(repr(key), content.get(key), kind)
    name, classes, mean, std = (content[key] for key in ("model", "classes", "mean", "std"))
    if name not in models or not 1 <= classes <= 1000:
        raise FormatError(f"expected a network of this project ({', '.join(models)}), "
                          f"found {name!r} with {classes} classes")
    if wanted and wanted != name:
        raise FormatError(f"expected the network {wanted}, found {name}")
    check_range("'mean'", mean, 0, 1)  # black is 0, white is 1
    check_range("'std'", std, LEAST_STD, 1)
    check_type("'other'", content.get("other", False), bool)  # older files have none
    check_pictures(content)
    check_training(content["history"], content["run"])


def check_pictures(content: dict) -> None:
    """Check what a checkpoint says of the pictures that it was trained on, as far as it does:
    older files do not. Raises FormatError."""
    check_type("'inverted'", content.get("inverted", False), bool)
    kind = content.get("content", "digits")
    check_type("'content'", kind, str)
    if kind not in CONTENTS:
        raise FormatError(f"expected 'content' to be {' or '.join(CONTENTS)}, found {kind!r:.60}")
    labels = content.get("labels")
    if labels is None:
        return
    check_type("'labels'", labels, list)
    if len(labels) != content["classes"]:
        raise FormatError(f"expected 'labels' to be {content['classes']} names, "
                          f"found {len(labels)}")
    for label in labels:
        check_type("a name in 'labels'", label, str)
        if not 1 <= len(label) <= 255 or not label.isprintable():  # folders have no longer names
            raise FormatError("expected a name in 'labels' to be 1 to 255 printable characters, "
                              f"found {label!r:.60}")


FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
RANGES = {"loss": (-0.001, LARGEST), "accuracy": (0, 1)}  # rounding may lead a little below zero
SETTINGS = {"epochs": int, "patience": int, "best_by": str, "val_fraction": float, "seed": int,
            "val_count": int}
RESULT = {"epochs": int, "best_epoch": int, "val_accuracy": float, "test_accuracy": float,
          "train_seconds": float}


def check_training(history: list, run: dict) -> None:
    """Check what evaluate.py shows of the training and relies on: the figures of each epoch and, as
    far as they are there, some of the settings and the sample images. Raises FormatError."""
    for row in history:
        check_type("a row of 'history'", row, dict)
        for name in FIGURES:
            check_type(f"{name!r} in 'history'", row.get(name), float)
            _, measure = name.split("_")
            check_range(f"{name!r} in 'history'", row[name], *RANGES[measure])
    for name in ("settings", "data", "result"):
        check_type(f"{name!r} in 'run'", run.get(name, {}), dict)
    for part, kinds in (("settings", SETTINGS), ("result", RESULT)):
        for name, value in run.get(part, {}).items():
            if name == "test_accuracy" and value is None:
                continue  # there were no test images
            if name in kinds:
                check_type(f"{name!r} in {part!r}", value, kinds[name])
    samples = run.get("samples", torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    check_type("'samples' in 'run'", samples, torch.Tensor)
    if samples.dtype != torch.uint8 or samples.ndim != 4 or samples.numel() == 0:
        raise FormatError("expected 'samples' in 'run' to be (classes, n, H, W) uint8, "
                          f"found {tuple(samples.shape)} {samples.dtype}")


def check_type(name: str, value, kind: type) -> None:
    """Raise FormatError if `value` is not of this type."""
    if type(value) is not kind:
        raise FormatError(f"expected {name} to be a {kind.__name__}, found {type(value).__name__}")


def check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise FormatError(f"expected {name} from {least:g} to {most:g}, found {value:g}")


def plain_names(weights: dict) -> dict:
    """The names of the weights without what torch.compile and DataParallel put before them."""
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", str(name)): tensor
            for name, tensor in weights.items()}


def bare_network(content: dict, name: str, build) -> nn.Module:
    """The network build(name, classes) with the tensors of a bare `state_dict`: by their names or,
    where another script calls its layers otherwise, in their order. How many classes, the last bias
    says. Raises FormatError for tensors that do not fit, or might belong elsewhere."""
    content = plain_names(content)
    names = list(build(name).state_dict())
    in_order = set(content) != set(names)
    weights = dict(zip(names, content.values())) if in_order else content
    if len(content) != len(names):
        raise FormatError(f"expected the {len(names)} tensors of the network {name}, "
                          f"found {len(content)}")
    last = weights[names[-1]]
    classes = len(last) if getattr(last, "ndim", 0) == 1 else 10
    if not 1 <= classes <= 1000:
        raise FormatError(f"expected 1 to 1000 classes, found {classes}")
    net = build(name, classes)
    fill(net, weights)
    if in_order:
        check_order(list(content), weights)
    return net


def check_order(names: list[str], weights: dict) -> None:
    """Raise FormatError if two of the tensors, which another script has by these `names`, might
    have changed places unnoticed: they have one shape, and the names do not tell them apart."""
    places = places_in_layers(list(weights), weights.values())
    if places != places_in_layers(names, weights.values()):
        places = [tuple(tensor.shape) for tensor in weights.values()]
    ours = list(weights)
    for i, j in itertools.combinations(range(len(ours)), 2):
        if places[i] == places[j]:
            same_part = ours[i].rpartition(".")[2] == ours[j].rpartition(".")[2]
            if not same_part or not is_numbered(names[i], names[j]):
                raise FormatError(f"expected names that say which is {ours[i]} and which "
                                  f"{ours[j]}, for their shapes are the same, found {names[i]} and "
                                  f"{names[j]}; give all tensors the names that this project has")


def places_in_layers(names: list[str], tensors) -> list[tuple]:
    """For each tensor, what it is in its layer (weight, bias, ...), and what else the layer has."""
    layers, parts = {}, []
    for name, tensor in zip(names, tensors):
        layer, _, part = name.rpartition(".")
        parts.append((layer, part))
        layers.setdefault(layer, []).append((part, tuple(tensor.shape)))
    return [(part, layers[layer]) for layer, part in parts]


def is_numbered(first: str, second: str) -> bool:
    """Whether two names differ in nothing but numbers, and the second has the higher ones."""
    a, b = (re.split("([0-9]+)", name) for name in (first, second))
    return a[::2] == b[::2] and [*map(int, a[1::2])] < [*map(int, b[1::2])]


LARGEST_WEIGHT = 1e9  # of the networks that were trained here, the largest number is 251
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def fill(net: nn.Module, weights: dict) -> None:
    """Copy `weights` into the network, after a look at every name, shape, type and value. Raises
    FormatError."""
    wanted = net.state_dict()
    for name in wanted:
        if name not in weights:
            raise FormatError(f"the network {net.name} lacks tensor {name!r} in this file")
    for name, tensor in weights.items():
        if name not in wanted:
            raise FormatError(f"the network {net.name} has no tensor {name!r}, this file has")
        check_tensor(name, tensor, wanted[name])
    net.load_state_dict(weights)


def shapes(weights: dict) -> dict:
    """The shape of each tensor by its name; None for what is no tensor."""
    return {name: getattr(tensor, "shape", None) for name, tensor in weights.items()}


def check_tensor(name: str, tensor, wanted: torch.Tensor) -> None:
    """Raise FormatError if `tensor` cannot take the place of `wanted`."""
    if not isinstance(tensor, torch.Tensor):
        raise FormatError(f"expected {name} to be a tensor, found {type(tensor).__name__}")
    if tensor.shape != wanted.shape:
        raise FormatError(f"expected {name} of shape {tuple(wanted.shape)}, "
                          f"found {tuple(tensor.shape)}")
    kinds = FLOATS if wanted.is_floating_point() else (torch.int64,)
    if tensor.dtype not in kinds:
        raise FormatError(f"expected {name} to be {wanted.dtype}, found {tensor.dtype}")
    if not tensor.to(wanted.dtype).isfinite().all():
        raise FormatError(f"expected finite numbers, found NaN or infinity in {name}")
    if (tensor.abs() > LARGEST_WEIGHT).any():
        raise FormatError(f"expected numbers up to {LARGEST_WEIGHT:g} in {name}, "
                          f"found {tensor.abs().max():g}")
    if name.endswith("running_var") and (tensor < 0).any():
        raise FormatError(f"expected variances, found a negative number in {name}")


# --- What a run says of itself --------------------------------------------------------------------

def describe_run(recipe: str, arguments: list[str], device: torch.device, data: dict,
                 settings: dict) -> dict:
    """What makes a model, for its checkpoint: the recipe's name, the command line's arguments,
    every setting, and the hashes of the data."""
    settings = {name: value for name, value in settings.items() if name != "about"}  # only words
    settings |= {"device": device.type, "threads": torch.get_num_threads(), "processes": count()}
    return {"recipe": recipe, "command": f"{command()} train.py {shlex.join(arguments)}",
            "started": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": describe_machine(device),
            "settings": settings, "versions": versions(), "data": data}


def sample_images(run, augment) -> torch.Tensor:
    """The first training image of each class (60 at the most) and three versions of it that
    `train.augment` makes: (classes, 4, H, W) uint8, for evaluate.py to show; (classes, 1, H, W)
    where it changes nothing. The random numbers are its own: showing samples must not change a run.
    """
    generator = torch.Generator(run.images.device).manual_seed(0)
    firsts = []
    for label in range(min(60, run.net.classes)):
        found = run.images[(run.labels == label).nonzero()[:1, 0]]  # (1, H, W), or none
        firsts.append(found if len(found) else torch.zeros_like(run.images[:1]))
    plain = torch.cat(firsts)
    shown = [plain]
    for _ in range(3):
        changed = augment(plain, run.recipe.augment, generator)
        if changed is not plain:
            shown.append(changed.round().byte())
    return torch.stack(shown, 1).cpu()

"""A checkpoint that nobody vouches for, and the state of an interrupted run."""
import io
import re
import zipfile
from dataclasses import asdict

import torch
from torch import nn

from support.errors import FormatError, UsageError
from support.files import kind_of, read_file, write_whole


def save_torch(content: dict, path) -> None:
    """torch.save, whole or not at all; by way of memory, for torch reports a full disk badly."""
    data = io.BytesIO()
    torch.save(content, data)
    write_whole(path, lambda file: file.write(data.getbuffer()))


def plain_names(weights: dict) -> dict:
    """The names of the weights without what torch.compile and DataParallel put before them."""
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", str(name)): tensor
            for name, tensor in weights.items()}


def read_torch(path) -> dict:
    """A dictionary that torch.save has written. Raises FormatError for anything else."""
    data = read_file(path)
    if not data.startswith(b"PK\x03\x04"):
        old = ", or a checkpoint of torch before 1.6" if data.startswith(b"\x80\x02") else ""
        raise FormatError(f"{path}: expected a checkpoint, found {kind_of(data[:64])}{old}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # torch packs nothing: no bomb
            if sum(entry.file_size for entry in archive.infolist()) > len(data):
                raise FormatError("more unpacked than packed")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # on broken bytes torch raises a dozen kinds, few of them documented
        raise FormatError(f"{path}: expected a checkpoint, found a file that torch cannot load "
                          f"with weights_only=True ({type(error).__name__}): it is broken, or "
                          "holds more than weights") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a checkpoint, found a {type(content).__name__}")
    return content


FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def put_weights(net: nn.Module, weights: dict) -> None:
    """Copy `weights` into the network, after a look at every name, shape, type and value."""
    for name, own in (wanted := net.state_dict()).items():
        if name not in weights:
            raise FormatError(f"the network {net.name} lacks tensor {name!r} in this file")
        tensor, shape = weights[name], tuple(own.shape)
        plain = (isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
                 and tensor.device.type != "meta" and not tensor.is_nested)
        if not plain or tuple(tensor.shape) != shape:
            found = tuple(tensor.shape) if plain else f"a {type(tensor).__name__} of another kind"
            raise FormatError(f"expected {name} of shape {shape} for the network {net.name}, "
                              f"found {found}")
        kinds = FLOATS if own.is_floating_point() else (torch.int64,)
        if tensor.dtype not in kinds:
            raise FormatError(f"expected {name} to be {own.dtype}, found {tensor.dtype}")
        if not tensor.to(own.dtype).isfinite().all():
            raise FormatError(f"expected finite numbers, found NaN or infinity in {name}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise FormatError(f"expected variances, found a negative number in {name}")
    for name in weights:
        if name not in wanted:
            raise FormatError(f"the network {net.name} has no tensor {name!r}, this file has")
    net.load_state_dict(weights)


def snapshot(net, best: dict, optimiser, generator, stopping,
             seconds: list[float]) -> dict:
    """All that going on with a run needs: weights, the best ones, optimiser, random generators,
    early stopping, and the history so far. The schedule is a function of the step."""
    random = {"generator": generator.get_state(), "torch": torch.get_rng_state()}
    if generator.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(generator.device)
    return {"weights": net.state_dict(), "best": best, "optimiser": optimiser.state_dict(),
            "random": random, "stopping": asdict(stopping), "history": net.history,
            "seconds": seconds, "run": net.run}


ROW = {"epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "best"}


def restore(state: dict, net, best: dict, optimiser, generator, stopping,
            seconds: list[float]) -> None:
    """Put everything back as `snapshot` found it. Raises FormatError if it does not fit."""
    try:
        put_weights(net, state["best"])
        best.update(state["best"])
        put_weights(net, state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        for weights in net.parameters():  # the fused optimiser trusts the shapes
            if any(optimiser.state[weights][name].shape != weights.shape
                   for name in ("exp_avg", "exp_avg_sq")):
                raise ValueError("a shape of the optimiser's")
        generator.set_state(state["random"]["generator"])
        torch.set_rng_state(state["random"]["torch"])
        if generator.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], generator.device)
        first, second = map(float, state["stopping"]["best"])
        stopping.best, stopping.waited = (first, second), int(state["stopping"]["waited"])
        if not state["history"] or any(set(row) != ROW for row in state["history"]):
            raise ValueError("a row of the history")
        seconds += map(float, state["seconds"])
        net.history, net.run = list(state["history"]), state["run"]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise FormatError("expected the state of an interrupted run of this recipe, found another "
                          f"({error})") from None


def check_same_run(made: dict, run: dict) -> None:
    """Raise UsageError with the differences if the run `made` had other settings or other data,
    FormatError if it is no run at all."""
    if not isinstance(made, dict) or not isinstance(made.get("settings"), dict):
        raise FormatError("expected the state of an interrupted run, found other data")
    before, now = made["settings"], run["settings"]
    differences = [f"{key} {before.get(key)}, now {now[key]}"
                   for key in now if before.get(key) != now[key]]
    if made.get("data") != run["data"]:
        differences.append("other data")
    if differences:
        raise UsageError("--resume: the earlier run had " + "; ".join(differences)
                         + ": give the same settings, or train anew without --resume")

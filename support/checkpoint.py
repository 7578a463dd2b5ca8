"""Checkpoints that nobody vouches for; what a run says of itself; the state of an interrupted one.

A checkpoint is what torch.save makes of a dictionary of tensors and plain values. torch.load with
weights_only=True runs nothing that is in the file; all else that could be wrong is checked here.
"""
import io
import re
import shlex
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from support.command_line import say
from support.content import CONTENTS
from support.errors import FormatError, UsageError, in_file
from support.files import kind_of, read_file, write_whole
from support.machine import describe_machine, is_out_of_memory, versions

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
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > len(data):  # torch packs nothing, so this is a bomb
            raise FormatError("more unpacked than packed")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # on broken bytes torch raises a dozen kinds, few of them documented
        raise FormatError("expected a checkpoint, found a file that torch cannot load with "
                          f"weights_only=True ({type(error).__name__}): it is broken, or holds "
                          "more than weights") from None
    if not isinstance(content, dict):
        raise FormatError(f"expected a checkpoint, found a {type(content).__name__}")
    return content


# --- A checkpoint's content -----------------------------------------------------------------------

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
    if std <= 0:
        raise FormatError(f"expected a positive standard deviation, found {std}")
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
SETTINGS = {"epochs": int, "patience": int, "best_by": str, "val_fraction": float, "seed": int}


def check_training(history: list, run: dict) -> None:
    """Check what evaluate.py shows of the training and relies on: the figures of each epoch and, as
    far as they are there, some of the settings and the sample images. Raises FormatError."""
    for row in history:
        check_type("a row of 'history'", row, dict)
        for name in FIGURES:
            check_type(f"{name!r} in 'history'", row.get(name), float)
    for name in ("settings", "data"):
        check_type(f"{name!r} in 'run'", run.get(name, {}), dict)
    settings = run.get("settings", {})
    for name, kind in SETTINGS.items():
        if name in settings:
            check_type(f"{name!r} in 'settings'", settings[name], kind)
    samples = run.get("samples", torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    check_type("'samples' in 'run'", samples, torch.Tensor)
    if samples.dtype != torch.uint8 or samples.ndim != 4 or samples.numel() == 0:
        raise FormatError("expected 'samples' in 'run' to be (classes, n, H, W) uint8, "
                          f"found {tuple(samples.shape)} {samples.dtype}")


def check_type(name: str, value, kind: type) -> None:
    """Raise FormatError if `value` is not of this type, or is a number that is NaN, infinite or
    beyond 64 bits."""
    if type(value) is not kind:
        raise FormatError(f"expected {name} to be a {kind.__name__}, found {type(value).__name__}")
    if kind in (int, float) and not -(2**63) <= value < 2**63:
        raise FormatError(f"expected {name} to be a finite number, found {value}")


def plain_names(weights: dict) -> dict:
    """The names of the weights without what torch.compile and DataParallel put before them."""
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", str(name)): tensor
            for name, tensor in weights.items()}


def weights_in_order(content: dict) -> tuple[list, int]:
    """The tensors of a bare `state_dict`, and the number of classes, which the last one has as its
    length. Other scripts name their layers otherwise, so tensors are matched in order, and by
    shape. Raises FormatError."""
    tensors = list(content.values())
    classes = 10
    if tensors and getattr(tensors[-1], "ndim", 0) == 1:
        classes = len(tensors[-1])
    if not 1 <= classes <= 1000:
        raise FormatError(f"expected 1 to 1000 classes, found {classes}")
    return tensors, classes


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


def check_tensor(name: str, tensor, wanted: torch.Tensor) -> None:
    """Raise FormatError if `tensor` cannot take the place of `wanted`."""
    if not isinstance(tensor, torch.Tensor):
        raise FormatError(f"expected {name} to be a tensor, found {type(tensor).__name__}")
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_nested:
        raise FormatError(f"expected {name} to be a plain tensor, found one of another kind")
    if tensor.shape != wanted.shape:
        raise FormatError(f"expected {name} of shape {tuple(wanted.shape)}, "
                          f"found {tuple(tensor.shape)}")
    kinds = FLOATS if wanted.is_floating_point() else (torch.int64,)
    if tensor.dtype not in kinds:
        raise FormatError(f"expected {name} to be {wanted.dtype}, found {tensor.dtype}")
    if not tensor.to(wanted.dtype).isfinite().all():
        raise FormatError(f"expected finite numbers, found NaN or infinity in {name}")
    if name.endswith("running_var") and (tensor < 0).any():
        raise FormatError(f"expected variances, found a negative number in {name}")


# --- What a run says of itself --------------------------------------------------------------------

def describe_run(recipe: str, arguments: list[str], device: torch.device, data: dict,
                 settings: dict) -> dict:
    """What makes a model, for its checkpoint: the recipe's name, the command line's arguments,
    every setting, and the hashes of the data."""
    settings = {name: value for name, value in settings.items() if name != "about"}  # only words
    settings |= {"device": device.type, "threads": torch.get_num_threads()}
    return {"recipe": recipe, "command": "python train.py " + shlex.join(arguments),
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


def check_same_run(made: dict, wanted: dict) -> None:
    """Compare what two runs say of themselves. Raises UsageError with the differences if `made` had
    other settings or other data than `wanted`, FormatError if it is no run at all."""
    if not isinstance(made, dict) or not isinstance(made.get("settings"), dict):
        raise FormatError("expected the state of an interrupted run, found other data")
    before, now = made["settings"], wanted["settings"]
    differences = [f"{key} {before.get(key)}, now {now[key]}"
                   for key in now if before.get(key) != now[key]]
    if made.get("data") != wanted["data"]:
        differences.append("other data")
    if differences:
        raise UsageError(f"--resume: the earlier run had {'; '.join(differences)}: give the same "
                         "settings, or train anew without --resume")


def finished(made: dict, wanted: dict, out: Path) -> dict | None:
    """For --resume: the result of the run `made`, whose model lies in `out`, if it is the run that
    is wanted and has reached its end; None if there is something left to train. Raises UsageError
    if it is another run, and no interrupted one lies beside it."""
    state = state_path(out)
    if all(made.get(key) == wanted[key] for key in ("settings", "data")):
        if "result" in made:
            say(f"{out}: this run has reached its end already", sys.stderr)
            state.unlink(missing_ok=True)  # killed just before it was removed
        return made.get("result")
    if made and not state.exists():
        with in_file(out):
            check_same_run(made, wanted)
    return None


# --- An interrupted run ---------------------------------------------------------------------------
# `run` is a train.Run.

ROW = {"epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "best"}


def state_path(out: Path) -> Path:
    """Where the state of the run lies that writes the checkpoint `out`."""
    return Path(f"{out}.resume")


def snapshot(run) -> dict:
    """All that going on with a run needs: weights, the best ones, optimiser, random generators,
    early stopping, and the history so far. The schedule is a function of the step."""
    random = {"generator": run.generator.get_state(), "torch": torch.get_rng_state()}
    if run.generator.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(run.generator.device)
    return {"weights": run.net.state_dict(), "best": run.best, "random": random,
            "optimiser": run.optimiser.state_dict(), "stopping": asdict(run.stopping),
            "history": run.net.history, "seconds": run.seconds, "run": run.net.run}


def begin(run, out: Path, resuming: bool) -> None:
    """Before the first epoch: put back the state of an interrupted run, if that is wanted and there
    is one, and say what becomes of it if not."""
    path = state_path(out)
    if resuming and path.exists():
        resume(run, path)
    elif resuming:
        say(f"there is no {path} to go on from: training from the start", sys.stderr)
    elif path.exists():
        say(f"{path} holds an interrupted run; --resume would have gone on with it", sys.stderr)
    elif out.exists():
        say(f"{out} is there already; the first epoch will replace it", sys.stderr)


def resume(run, path: Path) -> None:
    """Put everything back as `snapshot` found it. Raises FormatError for a file that holds no such
    state, UsageError for the state of a run with other settings or other data."""
    advice = "; train anew without --resume"
    state = read_torch(path, advice)
    with in_file(path, advice):
        check_same_run(state.get("run"), run.net.run)
        try:
            restore(run, state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError,
                IndexError) as error:
            raise FormatError("expected the state of an interrupted run of this recipe, found "
                              f"another ({error})") from None


def restore(run, state: dict) -> None:
    """`resume` for a state that may be anything: it raises what comes."""
    fill(run.net, state["best"])
    run.best = state["best"]
    fill(run.net, state["weights"])
    run.optimiser.load_state_dict(state["optimiser"])
    for weights in run.net.parameters():  # the fused optimiser trusts the shapes
        for name in ("exp_avg", "exp_avg_sq"):
            if run.optimiser.state[weights][name].shape != weights.shape:
                raise ValueError("a shape of the optimiser's")
    run.generator.set_state(state["random"]["generator"])
    torch.set_rng_state(state["random"]["torch"])
    if run.generator.device.type == "cuda":
        torch.cuda.set_rng_state(state["random"]["cuda"], run.generator.device)
    first, second = state["stopping"]["best"]
    run.stopping.best = (float(first), float(second))
    run.stopping.waited = int(state["stopping"]["waited"])
    if not state["history"] or any(set(row) != ROW for row in state["history"]):
        raise ValueError("a row of the history")
    run.seconds = [float(seconds) for seconds in state["seconds"]]
    run.net.history = list(state["history"])
    run.net.run = state["run"]


@contextmanager
def explained(run, out: Path):
    """An interruption says how to go on, and a lack of memory which batch size to try."""
    try:
        yield
    except KeyboardInterrupt:
        if run.seconds:
            raise KeyboardInterrupt(f"the best model so far is in {out}; go on with the same "
                                    "command and --resume") from None
        raise KeyboardInterrupt("no epoch was finished, so nothing was saved") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = run.recipe.batch_size
        raise UsageError(f"{run.labels.device} ran out of memory at a batch of {size} images; "
                         f"try --batch-size {max(1, size // 2)}") from None

"""Train a digit classifier by one of the recipes below.

    python train.py                        the default recipe, `small`
    python train.py --list                 all recipes
    python train.py --recipe wide --lr 0.002 --out wide.pt
    python train.py --seeds 5              mean and standard deviation over five seeds
    python train.py --resume               go on with a run that was interrupted

The order of this file: the recipes, augmentation, forms that MNIST lacks, schedule, early stopping,
precision, one epoch, one run, the command line.
"""
import argparse
import json
import math
import os
import platform
import shlex
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import model
from evaluate import check_fit, evaluate, sparkline
from idx_data import Digits, find_files, load_digits, mean_std, split, standardise
from support.command_line import Parser, Progress, add_data_arguments, choose, run_script, say
from support.checkpoint import check_same_run, read_torch, restore, save_torch, snapshot
from support.errors import UsageError, in_file
from support.machine import (describe_machine, keep_freed_memory, pick_device, pick_precision,
                             set_threads)
from support.strong_augmentation import (random_coarse, random_moves, random_pen, stretch,
                                         with_forms)

import numpy as np
import torch
import torch.nn.functional as F


# --- The recipes ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Augment:
    """Ranges of the random changes that each training image goes through; 0 is none."""
    degrees: float = 0  # rotation, ± degrees
    shift: float = 0  # translation, ± pixels, in x and in y
    scale: float = 0  # size, ± a fraction
    shear: float = 0  # slant, ± pixels sideways a pixel upwards
    crop: float = 0  # probability of a centre crop of 22×22 pixels, resized to 28×28
    pen: float = 0  # strokes a pixel thicker on each side, or as much blurred; up to 1, in part
    elastic: float = 0  # bending: standard deviation in pixels of the moves of a grid of 5×5 points
    stretch: float = 0  # widened or heightened until it fills a square; up to 1, in part
    coarse: float = 0  # probability of being seen through 10×10 or 14×14 pixels


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on, besides the data and the seed."""
    about: str
    model: str
    epochs: int = 10
    batch_size: int = 64
    lr: float = 0.001  # learning rate: the highest one of the schedule
    schedule: str = "constant"  # constant, step (× gamma every `step` epochs) or one-cycle
    step: int = 5
    gamma: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)  # how long Adam remembers gradients and their squares
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augment: Augment = field(default_factory=Augment)
    val_fraction: float = 0.1  # of the training images, held out to choose the epoch
    best_by: str = "accuracy"  # what makes an epoch the best on those: accuracy or loss
    forms: int = 0  # digits drawn of each of FORMS, added to MNIST's training images
    patience: int = 0  # epochs without a better one before it stops early; 0: never


# The affine ranges in which a digit stays one that somebody might have written.
AFFINE = Augment(degrees=10, shift=2, scale=0.1, shear=0.1)
# The loss chooses the epoch: on 3,000 images the accuracy of the last few differs by chance only.
OWN = Recipe("", "small", batch_size=128, lr=0.01, schedule="one-cycle", weight_decay=1e-4,
             val_fraction=0.05, best_by="loss", augment=AFFINE)

RECIPES = {
    "small": replace(OWN, about="the default: batch norm, affine augmentation, one-cycle"),
    "tiny10k": replace(OWN, about="below 10,000 parameters", model="tiny10k", epochs=20),
    "tiny5k": replace(OWN, about="below 5,000", model="tiny5k", epochs=20, lr=0.02),
    "tiny2k": replace(OWN, about="below 2,000", model="tiny2k", epochs=30, lr=0.02),
    # A single epoch: no augmentation, for there is no time to learn by heart; a short memory of the
    # gradients, for they are soon out of date; label smoothing, so that digits which are read right
    # already leave the few steps to the others.
    "quick": replace(OWN, about="99% in a second or two", model="quick", epochs=1, batch_size=256,
                     lr=0.03, betas=(0.8, 0.95), label_smoothing=0.1, augment=Augment()),
    "accurate": replace(OWN, about="as accurate as a few minutes allow", model="accurate",
                        epochs=16, label_smoothing=0.1),
    # For digits of other people, pens, forms and cameras than MNIST's.
    "robust": replace(OWN, about="for pretrained.pt: digits of all kinds", model="robust",
                      epochs=16, label_smoothing=0.1, forms=300, augment=Augment(
                          degrees=12, shift=2, scale=0.12, shear=0.15, pen=1, elastic=0.4,
                          stretch=1, coarse=0.45)),
    "wide": Recipe("three-layer CNN with early stopping", "wide", epochs=20, patience=5),
    "dropout": Recipe("two-layer CNN with dropout", "dropout", batch_size=100),
    "compact": Recipe("24,488 parameters, StepLR, rotation and crops", "compact", batch_size=256,
                      lr=0.01, schedule="step", augment=Augment(degrees=15, crop=0.1)),
    "baseline": Recipe("85% / 15% split, raw logits", "baseline", epochs=5, val_fraction=0.15),
    "lenet": Recipe("two-layer CNN on hand-read IDX files", "lenet"),
}


def recipe_table() -> str:
    lines = ["recipe    parameters  epochs  batch      lr  schedule   about"]
    for name, r in RECIPES.items():
        count = model.parameters(model.build(r.model))
        lines.append(f"{name:<10}{count:>10,}{r.epochs:>8}{r.batch_size:>7}{r.lr:>8g}  "
                     f"{r.schedule:<11}{r.about}")
    return "\n".join(lines)


# --- Augmentation ---------------------------------------------------------------------------------

def random_affine(count: int, ranges: Augment, generator: torch.Generator) -> torch.Tensor:
    """`count` random affine matrices (count, 2, 3), each from an output pixel to the input pixel
    that it is read from, in coordinates of -1 to 1 across the image, x before y."""
    device = generator.device
    u = torch.rand(count, 6, generator=generator, device=device) * 2 - 1  # each in -1 .. 1
    angle = u[:, 0] * math.radians(ranges.degrees)
    zoom = 1 / (1 + u[:, 1] * ranges.scale)
    shear = u[:, 2] * ranges.shear
    # Reading 22 of 28 pixels is the crop and its resizing in one step.
    cropped = u[:, 5] < 2 * ranges.crop - 1
    zoom = torch.where(cropped, zoom * (22 / model.SIZE), zoom)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = torch.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1).view(count, 2, 2)
    shift = u[:, 3:5].unsqueeze(2) * (2 * ranges.shift / model.SIZE)
    return torch.cat([rows, shift], 2)  # rotation @ [[1, shear], [0, 1]] * zoom, then the shift


def apply_affine(images: torch.Tensor, matrices: torch.Tensor, moves=0) -> torch.Tensor:
    """(B, H, W) images transformed by (B, 2, 3) matrices: bilinear, black outside, float32.
    `moves` (B, H, W, 2) are added to where each pixel is read from, x before y, in -1 to 1."""
    count, height, width = images.shape
    x = (torch.arange(width, device=images.device) * 2 + 1) / width - 1  # centres of the pixels
    y = (torch.arange(height, device=images.device) * 2 + 1) / height - 1
    ones = torch.ones(height * width, device=images.device)
    pixels = torch.stack([x.repeat(height), y.repeat_interleave(width), ones])
    # One matrix product for the whole batch; F.affine_grid makes B tiny ones, and is slower.
    grid = (matrices.reshape(-1, 3) @ pixels).view(count, 2, height, width).permute(0, 2, 3, 1)
    return F.grid_sample(images.unsqueeze(1).float(), grid + moves, align_corners=False).squeeze(1)


def augment(images: torch.Tensor, ranges: Augment, generator: torch.Generator) -> torch.Tensor:
    """(B, H, W) uint8 images, each changed at random within the ranges: (B, H, W) float32, 0 to
    255; the images themselves, uint8, where there is nothing to change."""
    if ranges == Augment():
        return images
    matrices, moves = random_affine(len(images), ranges, generator), 0
    if ranges.stretch:
        matrices = stretch(images, matrices, ranges.stretch, generator)
    if ranges.pen:
        images = random_pen(images.float(), ranges.pen, generator)
    if ranges.elastic:
        moves = random_moves(len(images), model.SIZE, ranges.elastic, generator)
    images = apply_affine(images, matrices, moves)
    return random_coarse(images, ranges.coarse, generator) if ranges.coarse else images


def sample_images(images: torch.Tensor, labels: torch.Tensor, ranges: Augment) -> torch.Tensor:
    """The first image of each class (60 at the most) and three augmented versions of it, if there
    is augmentation: (classes, 1 or 4, H, W) uint8, for evaluate.py to show. The random numbers are
    its own: showing samples must not change a run."""
    generator = torch.Generator(images.device).manual_seed(0)
    firsts = [images[(labels == k).nonzero()[:1, 0]] for k in range(min(60, int(labels.max()) + 1))]
    plain = torch.cat([first if len(first) else torch.zeros_like(images[:1]) for first in firsts])
    count = 0 if ranges == Augment() else 3
    versions = [augment(plain, ranges, generator).round().byte() for _ in range(count)]
    return torch.stack([plain, *versions], 1).cpu()


# --- Schedule, early stopping, precision ----------------------------------------------------------

def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0), with `steps` steps an epoch."""
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** (step // steps // recipe.step)
    if recipe.schedule == "one-cycle":  # up in a straight line, down to nothing as a cosine
        at, top = (step + 1) / (recipe.epochs * steps + 1), 0.2
        if at < top:
            return recipe.lr * at / top
        return recipe.lr * (1 + math.cos(math.pi * (at - top) / (1 - top))) / 2
    return recipe.lr


@dataclass
class EarlyStopping:
    """Remembers the best epoch, and says when `patience` epochs in a row were not better."""
    patience: int  # 0: never stop
    best: tuple[float, float] | None = None
    waited: int = 0

    def better(self, score: tuple[float, float]) -> bool:
        """Whether this epoch is the best so far: the higher score, the second one at a tie."""
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        return 0 < self.patience <= self.waited


# --- One epoch, one run ---------------------------------------------------------------------------

def check_finite(loss: float, step: int, recipe: Recipe, epoch: int, steps: int,
                 what: str = "loss") -> None:
    """Stop when the loss is no longer a number: nothing that is learned after it is of any use."""
    if not math.isfinite(loss):
        lr = learning_rate(recipe, epoch * steps + step, steps)
        raise UsageError(f"the {what} became {loss} at step {step + 1} of epoch {epoch + 1}, at a "
                         f"learning rate of {lr:.3g}; try --lr {min(recipe.lr / 10, 0.01):.2g}")


def train_epoch(net, optimiser, images, labels, recipe: Recipe, epoch: int,
                generator: torch.Generator, dtype: torch.dtype) -> tuple[float, float]:
    """Train on (N, H, W) uint8 images for one epoch, on the device where all of it lies. Returns
    the mean loss and the accuracy over the epoch. Raises UsageError for a loss that isn't finite.

    No step waits for the device: losses stay there as tensors, and are read at the end, and ten
    times a second for the progress bar."""
    net.train()
    count, device = len(labels), labels.device
    steps = math.ceil(count / recipe.batch_size)
    order = torch.randperm(count, generator=generator, device=device)
    losses = torch.zeros(steps, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    looked = 0  # how many of the losses have been read so far
    with Progress(count, f"epoch {epoch + 1}/{recipe.epochs}", "images") as bar:
        for step, index in enumerate(order.split(recipe.batch_size)):  # the last batch may be short
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, epoch * steps + step, steps)
            x = augment(images[index], recipe.augment, generator)  # (B, H, W)
            x = standardise(x, net.mean, net.std)  # (B, 1, H, W)
            y = labels[index]
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = net(x)  # (B, classes)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[step] = loss.detach()
            right += (logits.argmax(1) == y).sum()
            if bar.due() or step == steps - 1:
                recent, looked = losses[looked : step + 1].tolist(), step + 1
                for i, value in enumerate(recent, looked - len(recent)):
                    check_finite(value, i, recipe, epoch, steps)
                bar.show(min(count, looked * recipe.batch_size),
                         f" loss {sum(recent) / len(recent):.3f}")
    weights = torch.full((steps,), float(recipe.batch_size))
    weights[-1] = count - (steps - 1) * recipe.batch_size
    return (losses.cpu() @ weights / count).item(), right.item() / count


@torch.no_grad()
def calibrate(net: model.Network, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Divide the logits by the temperature that fits (N, H, W) validation images and their labels
    best, and return it (Guo et al., "On calibration of modern neural networks", 2017). A network
    that learned from smoothed labels is right more often than it says. The last layer takes it in:
    weights and biases are divided, the answers stay the same."""
    scores = evaluate(net, images, labels).log_probabilities
    temperatures = torch.linspace(0.3, 2, 171, device=scores.device)
    losses = torch.stack([F.cross_entropy(scores / t, labels) for t in temperatures])
    temperature = temperatures[losses.argmin()].item()
    last = list(net.children())[-1]
    last.weight /= temperature
    last.bias /= temperature
    return temperature


def check_count(recipe: Recipe, count: int) -> None:
    """Raise UsageError if `count` images are too few to be split, or to fill one batch."""
    training, _ = split(count, recipe.val_fraction, 0)
    if recipe.batch_size > len(training):
        raise UsageError(f"--batch-size {recipe.batch_size} is more than the {len(training):,} "
                         "training images")


def train(recipe: Recipe, digits: Digits, seed: int, device: torch.device, dtype: torch.dtype,
          out: Path, run: dict, talk=sys.stdout, resume: bool = False) -> dict:
    """Train one network. Its best epoch, by validation, is kept in the checkpoint `out`; and after
    each epoch, all that going on would need in a file beside it. Returns the figures of the run,
    with the test accuracy: the test set is read once, at the end, and chooses nothing.

    run: what makes the model (settings, data, ...), for the checkpoint; talk: where rows go.
    Raises UsageError for settings that can't work, FormatError for a state that can't be resumed.
    """
    torch.manual_seed(seed)  # for the first weights and for dropout
    generator = torch.Generator(device).manual_seed(seed)  # for the order and the augmentation
    check_count(recipe, len(digits.train_labels))
    training, validation = split(len(digits.train_labels), recipe.val_fraction, seed)
    images, labels, val_images, val_labels = (
        part[index].to(device) for index in (training, validation)
        for part in (digits.train_images, digits.train_labels))
    mean, std = mean_std(images)  # of the training part alone
    if recipe.forms and digits.is_mnist():  # other data may not even be digits
        images, labels = with_forms(images, labels, recipe.forms, generator)
    net = model.build(recipe.model, digits.classes).to(device)
    net.mean, net.std, net.run = mean, std, run
    optimiser = torch.optim.AdamW(net.parameters(), betas=recipe.betas, fused=device.type != "mps",
                                  weight_decay=recipe.weight_decay)  # without it, AdamW is Adam
    best, stopping, seconds = {}, EarlyStopping(recipe.patience), []
    keep = Path(f"{out}.resume")
    if resume and keep.exists():
        with in_file(keep, "; train anew without --resume"):
            state = read_torch(keep)
            check_same_run(state.get("run"), run)
            restore(state, net, best, optimiser, generator, stopping, seconds)
    elif resume:
        say(f"there is no {keep} to go on from: training from the start", sys.stderr)
    elif keep.exists():
        say(f"{keep} holds an interrupted run; --resume would have gone on with it", sys.stderr)
    history, steps = net.history, math.ceil(len(labels) / recipe.batch_size)

    while len(history) < recipe.epochs and not stopping.stop:
        started = time.perf_counter()
        loss, accuracy = train_epoch(net, optimiser, images, labels, recipe, len(history),
                                     generator, dtype)
        seconds.append(time.perf_counter() - started)
        val = evaluate(net, val_images, val_labels)
        # The loss that was trained for: the plain one punishes what label smoothing teaches.
        val_loss = F.cross_entropy(val.log_probabilities, val_labels,
                                   label_smoothing=recipe.label_smoothing).item()
        check_finite(val_loss, steps - 1, recipe, len(history), steps, "validation loss")
        scores = {"accuracy": (val.accuracy, -val_loss), "loss": (-val_loss, val.accuracy)}
        better = stopping.better(scores[recipe.best_by])
        history.append({"epoch": len(history) + 1, "lr": optimiser.param_groups[0]["lr"],
                        "train_loss": loss, "train_accuracy": accuracy,
                        "val_loss": val_loss, "val_accuracy": val.accuracy, "best": better})
        if better:
            best.update({name: weights.clone() for name, weights in net.state_dict().items()})
            model.save(net, out)
        save_torch(snapshot(net, best, optimiser, generator, stopping, seconds), keep)
        say(epoch_row(history[-1], seconds[-1], len(labels)), talk)

    net.load_state_dict(best)
    if recipe.label_smoothing:
        calibrate(net, val_images, val_labels)
    test = evaluate(net, digits.test_images.to(device), digits.test_labels.to(device))
    best_epoch = max(row["epoch"] for row in history if row["best"])
    result = {"epochs": len(history), "best_epoch": best_epoch, "test_accuracy": test.accuracy,
              "val_accuracy": history[best_epoch - 1]["val_accuracy"],
              "train_seconds": sum(seconds)}
    shown = sample_images(images, labels, recipe.augment)
    net.run = {**net.run, "result": result, "samples": shown}
    model.save(net, out)
    keep.unlink()
    accuracies = [row["val_accuracy"] for row in history]
    say(f"validation accuracy {min(accuracies):.2%} {sparkline(accuracies, talk)} "
        f"{max(accuracies):.2%}", talk)
    return result


def finished(out: Path, run: dict) -> dict | None:
    """For --resume: the result in the checkpoint, if this run has reached its end. Raises
    UsageError if there is nothing to go on from but a model that another run has made."""
    made = model.load(out).run if out.exists() else {}
    same = all(made.get(key) == run[key] for key in ("settings", "data"))
    if made and not same and not Path(f"{out}.resume").exists():
        with in_file(out):
            check_same_run(made, run)
    return made.get("result") if same else None


# --- At the command line --------------------------------------------------------------------------

def epoch_row(row: dict | None, seconds: float = 0, count: int = 0) -> str:
    """A row of the table that a run prints, or its head; without the training part where the
    terminal is narrow."""
    columns = [("epoch", 5, "{epoch}"), ("lr", 9, "{lr:.2g}"),
               ("train loss", 12, "{train_loss:.4f}"), ("accuracy", 10, "{train_accuracy:.2%}"),
               ("val loss", 10, "{val_loss:.4f}"), ("accuracy", 10, "{val_accuracy:.2%}"),
               ("s", 7, f"{seconds:.1f}"), ("images/s", 10, f"{count / max(seconds, 1e-9):,.0f}")]
    if shutil.get_terminal_size().columns < 78:
        columns = [columns[i] for i in (0, 4, 5, 6)]
    cells = [f"{form.format(**row) if row else name:>{width}}" for name, width, form in columns]
    return "".join(cells) + " *" * bool(row and row["best"])


def make_parser() -> Parser:
    parser = Parser("Train a digit classifier. The best epoch, by validation, is kept.")
    add_data_arguments(parser)
    parser.add_argument("--recipe", default="small", help="recipe to train by (see --list)")
    parser.add_argument("--list", action="store_true", help="print the recipes and stop")
    # Without one of these, the recipe's own value is taken.
    own = {"default": argparse.SUPPRESS, "metavar": "N"}
    parser.add_argument("--epochs", type=int, **own,
                        help="passes over the training images (default: the recipe's)")
    parser.add_argument("--batch-size", type=int, **own,
                        help="images a step (default: the recipe's)")
    parser.add_argument("--lr", type=float, **own,
                        help="highest learning rate of the schedule (default: the recipe's)")
    parser.add_argument("--val-fraction", type=float, **own, help="fraction of the training images "
                        "held out to choose the epoch (default: the recipe's)")
    parser.add_argument("--patience", type=int, **own, help="epochs without a better one before it "
                        "stops early, 0: never (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers")
    parser.add_argument("--seeds", type=int, default=1, metavar="N",
                        help="train N times, with seeds from --seed on")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--out", default="model.pt", metavar="FILE",
                        help="checkpoint to write; with --seeds, the seed is added to its name")
    parser.add_argument("--resume", action="store_true",
                        help="go on with the run that was interrupted")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON object a seed to standard output")
    return parser


@contextmanager
def explained(recipe: Recipe, device: torch.device, out: Path, resume: bool):
    """An interruption says how to go on, and a lack of memory which batch size to try."""
    keep = Path(f"{out}.resume")
    older = keep.stat().st_mtime_ns if keep.exists() and not resume else None
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the best model so far is in {out}; go on with the same command and --resume"
            if keep.exists() and keep.stat().st_mtime_ns != older
            else "no epoch was finished, so nothing was saved") from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) \
                and "allocate memory" not in str(error):
            raise
        raise UsageError(f"{device} ran out of memory at a batch of {recipe.batch_size} images; "
                         f"try --batch-size {max(1, recipe.batch_size // 2)}") from None


def check_options(options: argparse.Namespace) -> Recipe:
    """The recipe, with the settings that are given. Raises UsageError for one out of its range."""
    recipe = RECIPES[choose(options.recipe, RECIPES, "--recipe")]
    given = {f.name: getattr(options, f.name) for f in fields(Recipe) if hasattr(options, f.name)}
    recipe = replace(recipe, **given)
    for name, good, what in (
            ("epochs", recipe.epochs >= 1, "at least 1"),
            ("batch-size", recipe.batch_size >= 1, "at least 1"),
            ("lr", 0 < recipe.lr < math.inf, "more than 0"),
            ("patience", recipe.patience >= 0, "0 or more"),
            ("val-fraction", 0 < recipe.val_fraction < 1, "between 0 and 1, both excluded"),
            ("seed", 0 <= options.seed < 2**63, "from 0 to 2^63 - 1"),
            ("seeds", options.seeds >= 1, "at least 1")):
        if not good:
            found = {**asdict(recipe), **vars(options)}[name.replace("-", "_")]
            raise UsageError(f"--{name} must be {what}, not {found}")
    out = Path(options.out)
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is a folder or a device; give the name of a file")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK) or len(out.name) > 200:
        raise UsageError(f"--out {out}: it cannot be written to; choose another place")
    if not find_files(Path(options.data)):  # MNIST's count, before it is downloaded
        check_count(recipe, 60_000)
    return recipe


def describe_run(options, arguments, recipe, seed, device, precision, data) -> dict:
    """What makes a model, for its checkpoint. `data`: the hashes of the data set."""
    settings = {key: value for key, value in asdict(recipe).items() if key != "about"}
    return {"recipe": options.recipe, "command": "python train.py " + shlex.join(arguments),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": describe_machine(device),
            "settings": {**settings, "seed": seed, "device": device.type, "precision": precision,
                         "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                         "numpy": np.__version__}, "data": data}


def main(arguments: list[str]) -> int:
    options = make_parser().parse_args(arguments)
    if options.list:
        say(recipe_table(), sys.stderr if options.json else sys.stdout)
        return 0
    recipe = check_options(options)
    device = pick_device(options.device)
    dtype, why = pick_precision(options.precision, device)
    precision = str(dtype).removeprefix("torch.")
    set_threads()
    keep_freed_memory()
    talk = sys.stderr if options.json else sys.stdout
    started = time.perf_counter()
    digits = load_digits(options.data, mirror=options.mirror)
    check_fit(digits, options.data)
    load_seconds = time.perf_counter() - started
    count = model.parameters(model.build(recipe.model, digits.classes))
    say(f"recipe {options.recipe}: network {recipe.model}, {count:,} parameters", talk)
    say(f"device {device}, {torch.get_num_threads()} threads, {precision}: {why}", talk)
    results, data = [], digits.hashes()
    for seed in range(options.seed, options.seed + options.seeds):
        started = time.perf_counter()
        out = Path(options.out)
        if options.seeds > 1:
            out = out.with_name(f"{out.stem}-{seed}{out.suffix}")
        run = describe_run(options, arguments, recipe, seed, device, precision, data)
        result = finished(out, run) if options.resume else None
        if result:
            say(f"{out}: this run has reached its end already", sys.stderr)
            Path(f"{out}.resume").unlink(missing_ok=True)  # killed just before it was removed
        else:
            if out.exists() and not options.resume:
                say(f"{out} is there already; the first epoch will replace it", sys.stderr)
            say(f"seed {seed}; * marks the best epoch so far, by validation", talk)
            say(epoch_row(None), talk)
            with explained(recipe, device, out, options.resume):
                result = train(recipe, digits, seed, device, dtype, out, run, talk, options.resume)
        results.append(result)
        say(f"best epoch {result['best_epoch']}, validation {result['val_accuracy']:.2%}, "
            f"saved in {out}", talk)
        say(f"test accuracy {result['test_accuracy']:.2%}, {result['train_seconds']:.1f} s of "
            "training", talk)
        if options.json:
            say(json.dumps({"recipe": options.recipe, "model": recipe.model, "parameters": count,
                            "seed": seed, **result, "checkpoint": str(out),
                            "load_seconds": load_seconds,
                            "total_seconds": load_seconds + time.perf_counter() - started}))
    if len(results) > 1:
        accuracy, seconds = (np.array([result[key] for result in results])
                             for key in ("test_accuracy", "train_seconds"))
        say(f"{len(results)} seeds: test accuracy {accuracy.mean():.2%} ± "
            f"{accuracy.std(ddof=1):.2%}, {seconds.mean():.1f} ± {seconds.std(ddof=1):.1f} s of "
            "training", talk)
    return 0


if __name__ == "__main__":
    run_script(main)

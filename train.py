"""Train a digit classifier by one of the recipes below.

    python train.py                        the default recipe, `small`
    python train.py --list                 all recipes
    python train.py --recipe wide --lr 0.002 --out wide.pt
    python train.py --seeds 5              mean and standard deviation over five seeds
    python train.py --resume               go on with a run that was interrupted
    python train.py --from pretrained.pt --data my-digits --out mine.pt

From another program or a notebook: `net = train(RECIPES["quick"], load_digits())`.
"""
import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import model
from evaluate import NEW_SEED, best_temperature, evaluate, predict_all
from idx_data import Digits, load_digits, mean_std, standardise
from support.captured import recorded, set_learning_rate
from support.checkpoint import describe_run, sample_images
from support.command_line import (Parser, Progress, add_data_arguments, add_training_arguments,
                                  check_run, check_settings, choose, may_download, run_script, say)
from support.compositions import learns_other, with_others
from support.content import content_of, prepare
from support.errors import UsageError
from support.forms import with_forms
from support.interrupted import (check_finite, checkpoints, end, finished, keep_state, only_run,
                                 until_the_end)
from support.machine import keep_freed_memory, pick_device, pick_precision, set_threads
from support.mapped import MappedImages, picked
from support.processes import (average_buffers, averaged, averaging, in_turn, own_random_numbers,
                               share, threads_text, together)  # they change nothing for one process
from support.run_table import (TABLE_HEAD, epoch_row, recipe_table, result_text, say_batches,
                               saying_finished, seeds_text)
from support.strong_augmentation import Strong, distort, random_coarse

import torch  # after support/__init__.py, which says why
import torch.nn.functional as F


# --- The recipes ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Augment:
    """Ranges of the random changes that each training image goes through; 0 is no change."""
    degrees: float = 0  # rotation, ± degrees
    shift: float = 0  # translation, ± pixels, in x and in y
    scale: float = 0  # size, ± a fraction
    shear: float = 0  # slant, ± pixels sideways for each pixel upwards
    crop: float = 0  # probability of a centre crop of 22×22 pixels, resized to 28×28
    strong: Strong | None = None  # other pens, bending and the like: only `robust` has these


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on, besides the data and the seed."""
    about: str
    model: str
    epochs: int = 10
    batch_size: int = 64
    lr: float = 0.001  # learning rate: the highest one of the schedule
    schedule: str = "constant"  # constant, step or one-cycle
    step_size: int = 5  # for step: epochs between two steps
    gamma: float = 0.1  # for step: what the learning rate is multiplied by
    betas: tuple[float, float] = (0.9, 0.999)  # how long Adam remembers gradients and their squares
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augment: Augment = field(default_factory=Augment)
    val_fraction: float = 0.1  # of the training images, held out to choose the epoch
    best_by: str = "accuracy"  # what makes an epoch the best on those: accuracy or loss
    forms: int = 0  # images to add of each form that support/forms.py can draw
    composed: int = 0  # pictures composed of digits, for examples of what is no digit
    patience: int = 0  # epochs without a better one before it stops early; 0: never
    settled: bool = False  # batch normalisation keeps its means, and nothing drops out
    precise_bn: bool = False  # after an epoch its means are measured anew, without augmentation

    def __post_init__(self):
        check_settings(self, SCHEDULES)


SCHEDULES = ("constant", "step", "one-cycle")
# The affine ranges in which a digit stays one that somebody might have written.
AFFINE = Augment(degrees=10, shift=2, scale=0.1, shear=0.1)
# The loss chooses the epoch: on 3,000 images the last epochs' accuracies differ by chance only.
OWN = Recipe("", "small", batch_size=128, lr=0.01, schedule="one-cycle", weight_decay=1e-4,
             val_fraction=0.05, best_by="loss", augment=AFFINE, precise_bn=True)
NOT_AUGMENTED = replace(OWN, augment=Augment(), precise_bn=False)

RECIPES = {
    "small": replace(OWN, about="the default: two to three minutes", label_smoothing=0.1),
    "tiny10k": replace(OWN, about="below 10,000 parameters", model="tiny10k", epochs=30, lr=0.02,
                       label_smoothing=0.05),
    "tiny5k": replace(OWN, about="below 5,000", model="tiny5k", epochs=30, batch_size=256, lr=0.03),
    "tiny2k": replace(OWN, about="below 2,000", model="tiny2k", epochs=30, lr=0.02),
    # Augmentation makes no difference: so few parameters hardly learn by heart.
    "golf": replace(NOT_AUGMENTED, about="98% with few", model="golf", epochs=40, lr=0.06),
    # A single epoch: no time to learn by heart, so no augmentation; gradients are soon out of date,
    # so a short memory; smoothed labels, so that digits already read leave the steps to others.
    "quick": replace(NOT_AUGMENTED, about="99% in a second or two", model="quick", epochs=1,
                     batch_size=512, lr=0.06, betas=(0.7, 0.9), label_smoothing=0.1),
    "accurate": replace(OWN, about="as accurate as a few minutes allow", model="accurate",
                        epochs=16, label_smoothing=0.1,
                        augment=Augment(degrees=15, shift=2, scale=0.15, shear=0.2)),
    "robust": replace(OWN, about="for pretrained.pt: digits of all kinds", model="robust",
                      epochs=12, label_smoothing=0.1, precise_bn=False, forms=200, composed=5000,
                      augment=Augment(degrees=12, shift=2, scale=0.12, shear=0.15, strong=Strong(
                          pen=1, elastic=0.4, stretch=1, coarse=0.45))),
    "wide": Recipe("three-layer CNN with early stopping", "wide", epochs=20, patience=5),
    "dropout": Recipe("two-layer CNN with dropout", "dropout", batch_size=100),
    "compact": Recipe("24,488 parameters, StepLR, rotation and crops", "compact", batch_size=256,
                      lr=0.01, schedule="step", augment=Augment(degrees=15, crop=0.1)),
    "baseline": Recipe("85% / 15% split, raw logits", "baseline", epochs=5, val_fraction=0.15),
    "lenet": Recipe("two-layer CNN on hand-read IDX files", "lenet"),
}
# For --from: few images, as few as ten; small steps and settled means, or it forgets what it knew.
FINE_TUNING = replace(OWN, about="a trained network learns a few images more", epochs=8,
                      batch_size=8, lr=0.0002, val_fraction=0.2, settled=True, precise_bn=False)


# --- The schedules --------------------------------------------------------------------------------

def step_lr(lr: float, epoch: int, step_size: int, gamma: float) -> float:
    """StepLR: after every `step_size` epochs (counted from 0) the rate is multiplied by `gamma`."""
    return lr * gamma ** (epoch // step_size)


WARM_UP = 0.2  # of the run, in which the one-cycle schedule rises


def one_cycle(lr: float, progress: float) -> float:
    """One cycle (Smith and Topin, "Super-convergence", 2018): up in a straight line to `lr`, down
    to nothing as a cosine. `progress` goes from 0 to 1 over the run."""
    if progress < WARM_UP:
        return lr * progress / WARM_UP
    return lr * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of training step `step` (from 0), with `steps` steps in an epoch."""
    if recipe.schedule == "step":
        return step_lr(recipe.lr, step // steps, recipe.step_size, recipe.gamma)
    if recipe.schedule == "one-cycle":  # + 1: neither the first rate nor the last is 0
        return one_cycle(recipe.lr, (step + 1) / (recipe.epochs * steps + 1))
    return recipe.lr


# --- Early stopping -------------------------------------------------------------------------------

@dataclass
class EarlyStopping:
    """Remembers the best epoch, and says when `patience` epochs in a row were not better."""
    patience: int  # 0: never stop
    best: tuple[float, float] | None = None
    waited: int = 0

    def better(self, score: tuple[float, float]) -> bool:
        """Whether this epoch's score is the best so far; if so, it is remembered as the best. The
        first number decides, at a tie the second."""
        if self.best is None or score > self.best:
            self.best = score
            self.waited = 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        return 0 < self.patience <= self.waited


# --- One epoch ------------------------------------------------------------------------------------

@dataclass
class Run:
    """A training run: what it learns from, on one device unless mapped, and how far it is."""
    recipe: Recipe
    images: torch.Tensor | MappedImages  # (N, H, W) uint8, to train on
    labels: torch.Tensor  # (N,) int64
    val_images: torch.Tensor  # held out, to choose the epoch
    val_labels: torch.Tensor
    net: model.Network  # with the history of the epochs so far
    parallel: torch.nn.Module  # net; under torchrun it is wrapped, and averages the gradients
    optimiser: torch.optim.Optimizer
    generator: torch.Generator  # of the order of the images and of their augmentation
    precision: str  # of convolutions and matrix products: float32 or bfloat16
    stopping: EarlyStopping
    learn: Callable  # `train_step`, below; on CUDA it is recorded, and replayed
    best: dict[str, torch.Tensor] = field(default_factory=dict)  # the best epoch's weights
    seconds: list[float] = field(default_factory=list)  # that each epoch's training took

    @property
    def steps(self) -> int:  # of an epoch
        return math.ceil(len(self.labels) / self.recipe.batch_size)


def train_epoch(run: Run) -> tuple[float, float]:
    """Train for one epoch; returns its mean loss and accuracy. Raises what check_finite does.

    No step waits for the device: the losses stay there as tensors, and are read at the end, and
    ten times a second for the progress bar."""
    recipe = run.recipe
    device = run.labels.device
    count = len(run.labels)
    epoch = len(run.net.history)  # from 0
    order = torch.randperm(count, generator=run.generator, device=device)
    batches = order.split(recipe.batch_size)  # the last one may be short
    losses = torch.zeros(len(batches), device=device)
    accuracies = torch.zeros(len(batches), device=device)
    run.net.train(not recipe.settled)
    with (Progress(count, f"epoch {epoch + 1}/{recipe.epochs}") as bar,
          own_random_numbers(run.generator)):
        for step, batch in enumerate(batches):
            rate = learning_rate(recipe, epoch * len(batches) + step, len(batches))
            set_learning_rate(run.optimiser, rate)
            losses[step], accuracies[step] = run.learn(run, batch)  # `train_step`, below
            if bar.due():
                check_finite(losses, run)  # here it waits for the device
                bar.show((step + 1) * recipe.batch_size, f"  loss {losses[step].item():.3f}")
    average_buffers(run.net)
    losses, accuracies = averaged(losses), averaged(accuracies)
    check_finite(losses, run)
    sizes = torch.tensor([float(len(batch)) for batch in batches])  # a short batch counts less
    # Each step's accuracy times its images: a whole number, but for rounding.
    correct = round((accuracies.double() @ sizes.double()).item())
    return (losses @ sizes / count).item(), correct / count


def train_step(run: Run, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Learn from the images of these numbers, (B,) int64. Returns their mean loss and their
    accuracy, both still on the device."""
    net = run.net
    index, weight = share(batch)  # all of it and 1; of several processes, each has a part
    x = augment(run.images[index], run.recipe.augment, run.generator)  # (B, H, W)
    x = standardise(x, net.mean, net.std)  # (B, 1, H, W)
    y = run.labels[index]  # (B,)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
        logits = run.parallel(x)  # (B, classes)
    smoothing = run.recipe.label_smoothing
    loss = weight * F.cross_entropy(logits.float(), y, label_smoothing=smoothing)
    run.optimiser.zero_grad()
    loss.backward()
    run.optimiser.step()
    return loss.detach(), weight * (logits.argmax(1) == y).float().mean()


def validate(run: Run) -> tuple[float, float]:
    """Loss and accuracy on the held-out images. The loss is the one that is trained for: the plain
    one would punish what label smoothing teaches."""
    index, weight = share(torch.arange(len(run.val_labels), device=run.val_labels.device))
    result = evaluate(run.net, run.val_images[index], run.val_labels[index])
    # Log-probabilities may stand for logits: the softmax leaves them as they are.
    loss = F.cross_entropy(result.log_probabilities, result.labels,
                           label_smoothing=run.recipe.label_smoothing).item()
    loss, accuracy = averaged(weight * torch.tensor([loss, result.accuracy], dtype=torch.float64))
    check_finite(loss.view(1), run)
    return loss.item(), accuracy.item()


# --- One run --------------------------------------------------------------------------------------

def train(recipe: Recipe, digits: Digits, seed: int = 0, device: str = "auto",
          precision: str = "auto", base: model.Network | None = None,
          graph: bool = True) -> model.Network:
    """Train a network, from the weights of `base` (whose classes these are) or from fresh ones, and
    return it as it was in its best epoch, by the validation images; .history has a row of each. It
    writes nothing, prints nothing but a progress bar on a terminal, and never looks at the test
    images. Raises UsageError for settings that can't work."""
    run = start(recipe, digits, seed, device, precision, base, graph)
    for _ in epochs(run):
        pass  # `train_to_file`, below, prints a row here, and writes a checkpoint
    return finish(run)


def start(recipe: Recipe, digits: Digits, seed: int = 0, device: str = "auto",
          precision: str = "auto", base: model.Network | None = None, graph: bool = True) -> Run:
    """Split the data, move it to the device, and copy `base` or build a network. With `graph`, a
    training step on CUDA is recorded and replayed (support/captured.py)."""
    device = pick_device(device)
    precision, _ = pick_precision(precision, device)
    torch.manual_seed(seed)  # for the first weights and for dropout
    generator = torch.Generator(device).manual_seed(seed)
    training, validation = digits.split(recipe.val_fraction, seed)
    composes = learns_other(recipe, digits)
    images = picked(digits.train_images, training, digits.mapped and not composes)
    if base is None:
        net = model.build(recipe.model, digits.classes, composes).to(device)
        net.mean, net.std = mean_std(images)  # the held-out images are not to be known
        net.labels, net.inverted = digits.labels, digits.inverted
    else:
        net = copy.deepcopy(base).to(device)  # what it learned holds for its own mean and std
        net.inverted = base.inverted or digits.inverted
        net.history = []
    net.content, _ = content_of(digits)  # how infer.py is to prepare a picture
    images = images.to(device)
    labels = digits.train_labels[training].to(device)
    if net.other and composes:
        images, labels = with_others(images, labels, recipe.composed, seed)
        images, labels = with_forms(images, labels, recipe.forms, generator)
    optimiser = torch.optim.AdamW(net.parameters(), betas=recipe.betas, fused=device.type != "mps",
                                  weight_decay=recipe.weight_decay)  # 0: the same as Adam
    return Run(recipe=recipe, images=images, labels=labels,
               val_images=digits.train_images[validation].to(device),
               val_labels=digits.train_labels[validation].to(device),
               net=net, parallel=averaging(net), optimiser=optimiser, generator=generator,
               precision=precision, stopping=EarlyStopping(recipe.patience),
               learn=recorded(train_step, images, graph))


def epochs(run: Run) -> Iterator[dict]:
    """Train until the recipe's epochs are over, or until early stopping; after each epoch, yield
    its row of the history. It goes on where the run stands."""
    history, recipe = run.net.history, run.recipe
    while len(history) < recipe.epochs and not run.stopping.stop:
        started = time.perf_counter()
        loss, accuracy = train_epoch(run)
        run.seconds.append(time.perf_counter() - started)
        if recipe.precise_bn:  # some 5,000 images tell the means as well as all
            model.precise_bn(run.net, run.images[:: max(1, len(run.labels) // 5000)])
        val_loss, val_accuracy = validate(run)
        if recipe.best_by == "loss":
            score = (-val_loss, val_accuracy)
        else:
            score = (val_accuracy, -val_loss)
        better = run.stopping.better(score)
        if better:
            run.best = {name: tensor.clone() for name, tensor in run.net.state_dict().items()}
        epoch = len(history) + 1
        rate = learning_rate(recipe, epoch * run.steps - 1, run.steps)  # of its last step
        history.append({"epoch": epoch, "lr": rate, "train_loss": loss, "train_accuracy": accuracy,
                        "val_loss": val_loss, "val_accuracy": val_accuracy, "best": better})
        yield history[-1]


def finish(run: Run) -> model.Network:
    """The network of the best epoch, in eval mode. With smoothed labels it learns to say less than
    it knows, so the last layer is divided by the temperature that makes its confidence right."""
    net = run.net
    net.load_state_dict(run.best)
    if run.recipe.label_smoothing:
        images, labels = run.val_images, run.val_labels
        if net.other and run.recipe.composed:  # its probability is to be right, too
            images, labels = with_others(images, labels, run.recipe.composed // 10, NEW_SEED)
        temperature = best_temperature(predict_all(net, images), labels)
        last = list(net.children())[-1]
        with torch.no_grad():
            for weights in last.parameters():
                weights /= temperature
    return net.eval()


# --- Affine augmentation --------------------------------------------------------------------------

def random_affine(count: int, ranges: Augment, generator: torch.Generator) -> torch.Tensor:
    """`count` random affine matrices (count, 2, 3), each from an output pixel to the input pixel
    that it is read from, in coordinates of -1 to 1 across the image, x before y."""
    u = torch.rand(count, 6, generator=generator, device=generator.device) * 2 - 1  # each in -1..1
    angle = u[:, 0] * math.radians(ranges.degrees)
    zoom = 1 / (1 + u[:, 1] * ranges.scale)
    shear = u[:, 2] * ranges.shear
    # Reading 22 of 28 pixels is the crop and its resizing in one step.
    cropped = u[:, 5] < 2 * ranges.crop - 1  # with probability `crop`
    zoom = torch.where(cropped, zoom * (22 / model.SIZE), zoom)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # The rotation, times [[1, shear], [0, 1]], times the zoom; then the shift.
    rows = torch.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1).view(count, 2, 2)
    shift = u[:, 3:5].unsqueeze(2) * (2 * ranges.shift / model.SIZE)
    return torch.cat([rows, shift], 2)


def apply_affine(images: torch.Tensor, matrices: torch.Tensor, moves=0) -> torch.Tensor:
    """(B, H, W) images transformed by (B, 2, 3) matrices: bilinear, black outside, float32.
    `moves` (B, H, W, 2) are added to where each pixel is read from, x before y, in -1 to 1."""
    count, height, width = images.shape
    x = (torch.arange(width, device=images.device) * 2 + 1) / width - 1  # centres of the pixels
    y = (torch.arange(height, device=images.device) * 2 + 1) / height - 1
    ones = torch.ones(height * width, device=images.device)
    pixels = torch.stack([x.repeat(height), y.repeat_interleave(width), ones])  # (3, H * W)
    # One matrix product for the whole batch; F.affine_grid makes B tiny ones, and is slower.
    grid = (matrices.reshape(-1, 3) @ pixels).view(count, 2, height, width).permute(0, 2, 3, 1)
    return F.grid_sample(images.unsqueeze(1).float(), grid + moves, align_corners=False).squeeze(1)


def augment(images: torch.Tensor, ranges: Augment, generator: torch.Generator) -> torch.Tensor:
    """(B, H, W) uint8 images, each changed at random within the ranges: (B, H, W) float32, 0 to
    255; the images themselves, uint8, where there is nothing to change."""
    if ranges == Augment():
        return images
    matrices = random_affine(len(images), ranges, generator)
    if ranges.strong is None:
        return apply_affine(images, matrices)
    images, matrices, moves = distort(images, matrices, ranges.strong, generator)
    return random_coarse(apply_affine(images, matrices, moves), ranges.strong.coarse, generator)


# --- At the command line --------------------------------------------------------------------------

def recipe_of(options: argparse.Namespace, base: model.Network | None) -> Recipe:
    """The recipe, with the settings that are given. Raises UsageError for what can't work."""
    if base is not None and options.recipe is None:
        options.recipe = "fine-tuning"
        recipe = replace(FINE_TUNING, model=base.name)
    else:
        options.recipe = options.recipe or "small"
        recipe = RECIPES[choose(options.recipe, RECIPES, "--recipe")]
    if base is not None and recipe.model != base.name:
        raise UsageError(f"--from {options.base} holds the network {base.name}, but the recipe "
                         f"{options.recipe} trains {recipe.model}; leave --recipe out")
    # An option for a setting that is not given is not there: argparse.SUPPRESS is its default.
    given = {f.name: getattr(options, f.name) for f in fields(Recipe) if hasattr(options, f.name)}
    check_run(options)
    return replace(recipe, **given)


def train_to_file(run: Run, digits: Digits, out: Path, log) -> dict:
    """Train, and put the best epoch into the checkpoint `out` at the end; until then, all of the
    run lies in a file beside it. The test images are read once, at the end. Returns the figures of
    the run, with "checkpoint" None if it learned nothing; `log` gets the rows."""
    for row in epochs(run):
        keep_state(run, out)
        say(epoch_row(row, run.seconds[-1], len(run.labels)), log)
    net = finish(run)
    test_accuracy = None
    if len(digits.test_labels):
        test_accuracy = evaluate(net, digits.test_images, digits.test_labels).accuracy
    best = [row for row in net.history if row["best"]][-1]
    result = {"epochs": len(net.history), "best_epoch": best["epoch"],
              "val_accuracy": best["val_accuracy"], "test_accuracy": test_accuracy,
              "train_seconds": sum(run.seconds)}
    net.run = {**net.run, "result": result, "samples": sample_images(run, augment)}
    return {**result, "checkpoint": end(run, out, model.save)}


def train_seeds(outs: dict[int, Path], recipe: Recipe, base: model.Network | None,
                options: argparse.Namespace, arguments: list[str], log) -> int:
    """Train a network for each seed, to its checkpoint in `outs`. Returns the exit status."""
    device = pick_device(options.device)
    precision, why = pick_precision(options.precision, device)
    set_threads()
    keep_freed_memory()
    started = time.perf_counter()
    digits = in_turn(lambda: load_digits(options.data, may_download(options), options.mirror))
    prepare(digits, options.data, base, options.content, log)
    data = digits.hashes()
    count = model.parameters(base or model.build(recipe.model, digits.classes,
                                                 learns_other(recipe, digits)))
    say(f"recipe {options.recipe}: network {recipe.model}, {count:,} parameters", log)
    say(f"device {device}, {threads_text()}, {precision}: {why}", log)
    results = []
    for seed, out in outs.items():
        settings = {**asdict(recipe), "seed": seed, "precision": precision, "from": options.base,
                    "content": digits.content, "val_count": digits.val_count}
        wanted = describe_run(options.recipe, arguments, device, data, settings)
        result = finished(out, wanted, bool(results)) if options.resume else None
        if result is None:
            run = start(recipe, digits, seed, options.device, options.precision, base,
                        not options.no_graph)
            run.net.run = wanted
            say_batches(recipe.batch_size, len(run.labels), hasattr(options, "batch_size"), log)
            with saying_finished(results), until_the_end(run, out, options.resume, model.save):
                say(f"seed {seed}; * marks the best epoch so far, by validation {recipe.best_by}\n"
                    f"{TABLE_HEAD}", log)
                result = train_to_file(run, digits, out, log)
        results.append(result)
        say(result_text(result, recipe.best_by), log)
        if options.json:
            say(json.dumps({"recipe": options.recipe, "model": recipe.model, "parameters": count,
                            "seed": seed, **result,
                            "total_seconds": time.perf_counter() - started}, allow_nan=False))
        started = time.perf_counter()
    if options.seeds > 1:
        say(seeds_text(results), log)
    return int(any(result["checkpoint"] is None for result in results))


def main(arguments: list[str]) -> int:
    parser = Parser("Train a digit classifier. The best epoch, by validation, is kept.")
    add_data_arguments(parser)
    add_training_arguments(parser, SCHEDULES)
    options = parser.parse_args(arguments)
    log = sys.stderr if options.json else sys.stdout  # what people read
    if options.list:
        say(recipe_table(RECIPES, lambda recipe: model.parameters(
            model.build(recipe.model, other=recipe.composed > 0))), log)
        return 0
    base = model.load(options.base) if options.base else None
    recipe = recipe_of(options, base)
    outs = checkpoints(Path(options.out), range(options.seed, options.seed + options.seeds))
    with only_run(outs.values()):
        return train_seeds(outs, recipe, base, options, arguments, log)


if __name__ == "__main__":
    run_script(together(main))

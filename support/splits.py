"""Which images a model learned from, so that it is measured on those that are meant: `digits` is an
idx_data.Digits, `run` what a checkpoint says of the run that made it.
"""
import sys

from support.command_line import say
from support.content import check_fit, renumber
from support.errors import UsageError

import torch

SPLITS = ("test", "val", "train")


def pick_split(digits, name: str, run: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels of a split; "val" and "train" are those of the model's own run. Raises
    UsageError if there are none, or the run does not say which, or was on other data."""
    if name == "test":
        if not len(digits.test_labels):
            raise UsageError("--split test: the data set has no test images; give --split val")
        return digits.test_images, digits.test_labels
    val_count, fraction, seed = split_settings(run, digits)
    if not val_count and (fraction is None or seed is None):
        raise UsageError(f"--split {name}: the checkpoint does not say what images it learned from")
    if learned_from_other_images(run, digits) or val_count != digits.val_count:
        raise UsageError(f"--split {name}: the model learned from other data; see --data")
    training, validation = digits.split(fraction, seed)
    index = training if name == "train" else validation
    return digits.train_images[index], digits.train_labels[index]


def split_settings(run: dict, digits) -> tuple[int, float | None, int | None]:
    """What decides which images a model learned from: how many its data set held out itself, as
    many as `digits` does where an older checkpoint does not say it; if none, the fraction that was
    held out, and the seed of the split, None where the checkpoint does not say."""
    settings = run.get("settings", {})
    val_count = settings.get("val_count", digits.val_count)
    if val_count:
        return val_count, None, None
    return 0, settings.get("val_fraction"), settings.get("seed")


def learned_from_other_images(run: dict, digits) -> bool:
    """Whether a run says that it learned from other training images than these. Its test images may
    be others: a model may be measured on one's own."""
    made = run.get("data", {})
    here = digits.hashes()
    return any(name in made and made[name] != here[name] for name in here if "train" in name)


def is_own_data(run: dict, digits) -> bool:
    """Whether a run says that it was on this very data set, and what it held out of it."""
    val_count, fraction, seed = split_settings(run, digits)
    known = val_count > 0 or None not in (fraction, seed)
    return run.get("data") == digits.hashes() and val_count == digits.val_count and known


def is_of_other_data(net, digits) -> bool:
    """Whether a network learned from other images than these, or knows their classes by other
    names."""
    other_names = net.class_names[: digits.classes] != digits.class_names
    return other_names or learned_from_other_images(net.run, digits)


def check_together(names: list[str], nets: list, split_name: str, digits) -> None:
    """Raise UsageError if the networks, from checkpoints of these names, cannot be evaluated as an
    ensemble."""
    first = nets[0]
    settings = split_settings(first.run, digits)
    for name, net in zip(names, nets):
        if net.classes != first.classes:
            raise UsageError(f"{names[0]} knows {first.classes} classes, {name} knows "
                             f"{net.classes}: an ensemble needs the same ones")
        if split_name != "test" and split_settings(net.run, digits) != settings:
            raise UsageError(f"--split {split_name}: {names[0]} and {name} learned from different "
                             "images; give one of them, or --split test")


def prepare_for(nets: list, names: list[str], digits, folder: str, split_name: str) -> None:
    """Check that an idx_data.Digits, read from `folder`, is for one network or an ensemble, from
    checkpoints of these names, and give its classes their numbers, in place; warn on stderr of a
    network that was trained on other data. Raises UsageError for what cannot be evaluated."""
    check_together(names, nets, split_name, digits)
    check_fit(digits, folder, nets[0].classes)
    renumber(digits, nets[0].class_names)  # its folders may be those of some classes only
    for name, net in zip(names, nets):
        if is_of_other_data(net, digits):
            say(f"{name} was trained on other data than {folder} holds: what it calls a class may "
                "be another one there", sys.stderr)

"""What a model got right: loss, accuracy, the confusion matrix, precision and recall of each digit.

    python evaluate.py                     the model trained here last, on the test images
    python evaluate.py a.pt --split val    another one, on the images that chose its epoch
"""
import json
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import model
from idx_data import (Digits, Parser, UsageError, add_data_arguments, choose,
                      load_digits, pick_device, run_script, say, set_threads, split, standardise)

SPLITS = ("test", "val", "train")


# --- From images to figures -----------------------------------------------------------------------

def predict(net: model.Network, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Log-probabilities (N, classes), float32, of (N, H, W) uint8 images, on the network's device."""
    training = net.training
    net.eval()
    with torch.inference_mode():
        logits = [net(standardise(batch, net.mean, net.std)) for batch in images.split(batch_size)]
    net.train(training)
    return F.log_softmax(torch.cat(logits).float(), dim=1)


@dataclass
class Result:
    """How well log-probabilities (N, classes) fit labels (N,): all the figures follow from these."""
    log_probabilities: torch.Tensor
    labels: torch.Tensor

    @property
    def predictions(self) -> torch.Tensor:
        return self.log_probabilities.argmax(1)

    @property
    def loss(self) -> float:
        """The mean cross-entropy, in nats."""
        return F.nll_loss(self.log_probabilities, self.labels).item()

    @property
    def errors(self) -> int:
        return int((self.predictions != self.labels).sum())

    @property
    def accuracy(self) -> float:
        return 1 - self.errors / len(self.labels)

    @property
    def confusion(self) -> torch.Tensor:
        """(classes, classes) int64: how often the true class (row) was predicted as (column)."""
        classes = self.log_probabilities.shape[1]
        pairs = self.labels * classes + self.predictions
        return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu()


def evaluate(net: model.Network, images: torch.Tensor, labels: torch.Tensor, batch_size: int = 1000) -> Result:
    """Evaluate a network on (N, H, W) uint8 images and (N,) labels that lie on its device."""
    return Result(predict(net, images, batch_size), labels)


def class_scores(confusion: torch.Tensor) -> torch.Tensor:
    """Precision, recall and F1 (classes, 3) of each class; 0 where there is nothing to divide by."""
    right = confusion.diagonal().double()
    predicted, true = confusion.sum(0), confusion.sum(1)
    precision, recall = right / predicted.clamp(min=1), right / true.clamp(min=1)
    return torch.stack([precision, recall, 2 * right / (predicted + true).clamp(min=1)], 1)


# --- At the command line --------------------------------------------------------------------------

def pick_split(digits: Digits, name: str, run: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels of a split; "val" and "train" are those of the run that made the model."""
    choose(name, SPLITS, "--split")
    if name == "test":
        return digits.test_images, digits.test_labels
    settings = run.get("settings", {})
    if not {"val_fraction", "seed"} <= set(settings):
        raise UsageError(f"--split {name}: the checkpoint does not say which images it was trained on")
    parts = split(len(digits.train_labels), settings["val_fraction"], settings["seed"])
    index = parts[name == "val"]
    return digits.train_images[index], digits.train_labels[index]


def text_report(result: Result) -> str:
    """Loss, accuracy, confusion matrix and scores, for a terminal of 80 columns."""
    confusion, classes = result.confusion, len(result.confusion)
    lines = [f"images     {len(result.labels):,}", f"loss       {result.loss:.4f}",
             f"accuracy   {result.accuracy:.2%}", f"errors     {result.errors:,}", ""]
    if classes <= 12:
        lines.append("confusion matrix (rows: true, columns: predicted)")
        lines.append("     " + "".join(f"{k:>6}" for k in range(classes)))
        lines += [f"{k:>5}" + "".join(f"{n:>6}" for n in row) for k, row in enumerate(confusion.tolist())]
    else:
        lines.append("most frequent confusions")
        off = confusion - confusion.diagonal().diag()
        for index in off.flatten().argsort(descending=True)[:15].tolist():
            true, predicted = divmod(index, classes)
            lines.append(f"  {true:>3} read as {predicted:>3}: {off[true, predicted]:>6}")
    lines += ["", f"{'class':>5}{'images':>10}{'precision':>12}{'recall':>12}{'F1':>12}"]
    for k, scores in enumerate(class_scores(confusion).tolist()):
        lines.append(f"{k:>5}{int(confusion[k].sum()):>10,}" + "".join(f"{s:>12.2%}" for s in scores))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = Parser("Evaluate a model: loss, accuracy, confusion matrix, scores of each class.")
    parser.add_argument("checkpoint", nargs="?", default="model.pt", help="the model to evaluate")
    add_data_arguments(parser)
    parser.add_argument("--split", default="test", help=f"images to evaluate on: {', '.join(SPLITS)}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON object to standard output")
    options = parser.parse_args(arguments)
    device = pick_device(options.device)
    choose(options.split, SPLITS, "--split")
    set_threads()
    net = model.load(options.checkpoint, device)
    digits = load_digits(options.data, mirror=options.mirror)
    check_fit(digits, net.classes)
    images, labels = pick_split(digits, options.split, net.run)
    result = evaluate(net, images.to(device), labels.to(device))
    if options.json:
        say(json.dumps({"checkpoints": [options.checkpoint], "parameters": model.parameters(net),
                        "split": options.split, "images": len(labels), "loss": result.loss,
                        "accuracy": result.accuracy, "errors": result.errors,
                        "confusion": result.confusion.tolist()}))
    else:
        say(f"{options.checkpoint}: {net.name}, {model.parameters(net):,} parameters, {options.split} split")
        say(text_report(result))
    return 0


def check_fit(digits: Digits, classes: int = 1000) -> None:
    """Raise UsageError if the data set is not of the size or the classes that the networks take."""
    size = tuple(digits.train_images.shape[1:])
    if size != (model.SIZE, model.SIZE):
        raise UsageError(f"the networks take images of {model.SIZE} × {model.SIZE} pixels, this data set "
                         f"has {size[0]} × {size[1]}; resize it first")
    if digits.classes > classes:
        raise UsageError(f"the model knows {classes} classes, the data set has {digits.classes}")


if __name__ == "__main__":
    run_script(main)

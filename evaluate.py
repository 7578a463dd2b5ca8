"""What a network got right: from log-probabilities to figures, and a report of them.

    python evaluate.py                     the model trained here last, on the test images
    python evaluate.py a.pt b.pt c.pt      each of them, and the mean of their probabilities
    python evaluate.py --tta               every image also shifted by a pixel to each side
    python evaluate.py --split val         the images that chose the model's epoch
    python evaluate.py --report docs --pictures curves,mistakes

It prints the figures and writes the folder report/ with index.html and each picture as a file.
Everything that is measured follows from one tensor, the log-probabilities (N, classes), and the
labels (N,): see `Result`. How tables are set and pictures drawn is in support/result_table.py and
support/report.py.
"""
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import model
from idx_data import load_digits, standardise
from support import report
from support.arrays import as_tensors
from support.command_line import (Parser, add_evaluation_arguments, choose, may_download,
                                  run_script, say)
from support.compositions import examples
from support.errors import FormatError, in_file
from support.machine import pick_device, set_threads
from support.report import PICTURES
from support.result_table import as_json, figure_table, score_table, text_report
from support.splits import SPLITS, is_own_data, pick_split, prepare_for

import torch  # after support/__init__.py, which says why
import torch.nn.functional as F

# Test images of MNIST whose labels reviewers judge wrong (Northcutt, Athalye and Mueller,
# "Pervasive Label Errors in Test Sets", 2021): a model that is right scores about 99.85%.
DISPUTED = {947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729}

LARGEST_LOGIT = 1e30  # the sum of a million such losses is still a number of float32


# --- From images to log-probabilities -------------------------------------------------------------

def predict_all(net: model.Network, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Log-probabilities (N, logits), float32, of (N, H, W) uint8 images on the net's device. A
    network that knows *other* has one more than classes, the last. Raises FormatError for one whose
    weights are so large that no probabilities follow."""
    was_training = net.training
    net.eval()  # dropout is off, and batch normalisation uses what it learned in training
    with torch.inference_mode():
        logits = [net(standardise(batch, net.mean, net.std)) for batch in images.split(batch_size)]
    net.train(was_training)
    logits = torch.cat(logits).float()
    if not (logits.abs() < LARGEST_LOGIT).all():  # NaN is not, either
        raise FormatError(f"expected finite logits of the network {net.name}, found NaN, infinity "
                          "or almost so: its weights are too large; train it with a lower --lr")
    return F.log_softmax(logits, dim=1)


def predict(net: model.Network, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Log-probabilities (N, classes) of images that are known to be of one of the classes: *other*
    is left out, and the softmax taken over the rest."""
    return F.log_softmax(predict_all(net, images, batch_size)[:, : net.classes], dim=1)


def mean_probabilities(parts: list[torch.Tensor]) -> torch.Tensor:
    """The logarithm of the mean of probabilities, given as log-probabilities (N, classes) each: the
    answer of an ensemble. Sums of exponentials would underflow, `logsumexp` does not."""
    return torch.stack(parts).logsumexp(0) - math.log(len(parts))


def shifted(images: torch.Tensor, down: int, across: int) -> torch.Tensor:
    """(N, H, W) images moved by whole pixels; black comes in."""
    # Padding on the left, right, top and bottom; where it is negative, pixels are cut off.
    return F.pad(images, (across, -across, down, -down))


def predict_shifted(net: model.Network, images: torch.Tensor,
                    batch_size: int = 1000) -> torch.Tensor:
    """`predict`, as the mean over the nine shifts of up to a pixel (test-time augmentation)."""
    parts = []
    for across in (-1, 0, 1):
        for down in (-1, 0, 1):
            parts.append(predict(net, shifted(images, down, across), batch_size))
    return mean_probabilities(parts)


# --- From log-probabilities to figures ------------------------------------------------------------

class Prediction(NamedTuple):
    """What the network said of one image."""
    number: int  # of the image
    predicted: int  # class
    true: int  # class
    probability: float  # of the predicted class


@dataclass
class Result:
    """How well log-probabilities (N, classes) fit labels (N,): all figures follow from these."""
    log_probabilities: torch.Tensor
    labels: torch.Tensor
    names: list[str] | None = None  # of the classes; None: their numbers

    @property
    def class_names(self) -> list[str]:
        return self.names or [str(label) for label in range(self.log_probabilities.shape[1])]

    @property
    def predictions(self) -> torch.Tensor:
        """The most probable class of each image, (N,) int64."""
        return self.log_probabilities.argmax(1)

    @property
    def loss(self) -> float:
        """The mean cross-entropy, in nats: minus the log-probability of the true class."""
        return F.nll_loss(self.log_probabilities, self.labels).item()

    @property
    def errors(self) -> int:
        return int((self.predictions != self.labels).sum())

    @property
    def accuracy(self) -> float:
        return (len(self.labels) - self.errors) / len(self.labels)

    @property
    def half_interval(self) -> float:
        """Half the 95% confidence interval of the accuracy (Agresti and Coull, 1998): what other
        images of the same kind, as many, would change it by."""
        count = len(self.labels) + 4
        share = (self.errors + 2) / count
        return 1.96 * math.sqrt(share * (1 - share) / count)

    @property
    def confusion(self) -> torch.Tensor:
        """(classes, classes) int64: how often the true class (row) was predicted as (column)."""
        classes = self.log_probabilities.shape[1]
        pairs = self.labels * classes + self.predictions  # true and predicted class in one number
        return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu()

    @property
    def class_scores(self) -> torch.Tensor:
        """Precision, recall and F1 (classes, 3) of each class. Precision is 0 for one that was
        never predicted, recall for one that never occurs."""
        confusion = self.confusion
        correct = confusion.diagonal().double()
        predicted = confusion.sum(0)  # how often each class was the answer
        true = confusion.sum(1)  # how often it was the label
        precision = correct / predicted.clamp(min=1)
        recall = correct / true.clamp(min=1)
        f1 = 2 * correct / (predicted + true).clamp(min=1)  # the harmonic mean of the two
        return torch.stack([precision, recall, f1], 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al., 2017), 15 bins of equal width: how far confidence
        (the probability of the predicted class) is from accuracy."""
        confidence, predictions = self.log_probabilities.cpu().double().exp().max(1)
        correct = (predictions == self.labels.cpu()).double()
        bins = (confidence * 15).ceil().long().clamp(1, 15) - 1
        # Of each bin, the number of its images × (their accuracy - their mean confidence).
        gaps = torch.bincount(bins, correct - confidence)
        return gaps.abs().sum().item() / len(self.labels)

    @property
    def mistakes(self) -> list[int]:
        """The images that it gets wrong, those first whose true class it thought least likely."""
        losses = F.nll_loss(self.log_probabilities, self.labels, reduction="none").tolist()
        wrong = (self.predictions != self.labels).nonzero().flatten().tolist()
        return sorted(wrong, key=lambda i: -losses[i])

    def answers(self, numbers: list[int]) -> list[Prediction]:
        """What it said of these images."""
        predictions = self.predictions.tolist()
        labels = self.labels.tolist()
        return [Prediction(i, predictions[i], labels[i],
                           self.log_probabilities[i, predictions[i]].exp().item())
                for i in numbers]


def evaluate(net: model.Network, images: torch.Tensor, labels: torch.Tensor, batch_size: int = 1000,
             tta: bool = False) -> Result:
    """Evaluate a network on (N, 28, 28) uint8 images and (N,) labels: tensors or arrays. Raises
    UsageError for others."""
    images, labels = as_tensors(images, labels, model.SIZE, net.classes,
                                next(net.parameters()).device)
    if tta:
        return Result(predict_shifted(net, images, batch_size), labels, net.labels)
    return Result(predict(net, images, batch_size), labels, net.labels)


COMPOSED = 200  # pictures, with some 900 *others* among what is proposed and made up
NEW_SEED = 2**63  # no run has it: with the run's own, the paper and the marks would be those it saw


def others_recognised(net: model.Network, images: torch.Tensor,
                      labels: torch.Tensor) -> tuple[int, int]:
    """Of what looks like a digit, but is none: how many there are in pictures composed of (N, 28,
    28) uint8 digits that the network did not learn from, and how many of them it calls *other*."""
    digits = images.cpu().numpy(), labels.cpu().numpy()
    seen, known = examples(*digits, range(COMPOSED), NEW_SEED, net.classes)
    others = torch.from_numpy(seen[known == net.classes]).to(images.device)
    found = predict_all(net, others).argmax(1) == net.classes
    return len(others), int(found.sum())


def best_temperature(log_probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """The number that logits (N, classes) are to be divided by so that they fit labels (N,) best
    (temperature scaling: Guo et al., "On calibration of modern neural networks", 2017).
    Log-probabilities may stand for logits: they differ by the same number for all classes."""
    temperatures = torch.linspace(0.3, 2, 171, device=labels.device)  # 0.30, 0.31, ..., 2.00
    losses = torch.stack([F.cross_entropy(log_probabilities / t, labels) for t in temperatures])
    return temperatures[losses.argmin()].item()


# --- The report -----------------------------------------------------------------------------------

def draw(net: model.Network, result: Result, images: torch.Tensor,
         disputed: set[int]) -> dict[str, str]:
    """The pictures by name, each as SVG, or a sentence that says why it cannot be drawn. `images`
    are those of the result; `disputed`: the numbers of those whose labels reviewers judge wrong."""
    stages = report.stages(net, standardise(images[:1], net.mean, net.std))
    own = Result(predict(net, images[:1]), result.labels[:1])  # of this net, not of an ensemble
    first_answer = own.answers([0])[0]
    wrong, names = result.mistakes, result.class_names
    return {
        "curves": report.curves(net.name, net.history, net.run),
        "confusion": report.confusion_matrix(result.confusion, names),
        "filters": report.filters(net),
        "samples": report.samples(net.run.get("samples"), net.class_names),
        "mistakes": report.mistakes(images, result.answers(wrong[:64]), len(wrong), disputed,
                                    names),
        "activations": report.activations(images[0], stages, first_answer, names)}


def report_page(nets: list[model.Network], result: Result, figures: list[list[str]],
                split_name: str, pictures: dict[str, str]) -> str:
    """The report as one HTML file; training, filters and layers are those of the first model."""
    who = nets[0].name
    if len(nets) > 1:
        who = f"{len(nets)} models together, pictures of {who}"
    title = f"{who}: {result.accuracy:.2%} of the {split_name} images right"
    lead = (f"{result.errors:,} of {len(result.labels):,} images are misread. After ±: 95% "
            "interval. ECE: expected calibration error.")
    upright = [list(column) for column in zip(*figures)]  # one column for each model: narrower
    tables = {"Figures": upright, "Each class": score_table(result)}
    return report.page(title, lead, pictures, tables, model.summary(nets[0]), nets[0].run)


# --- At the command line --------------------------------------------------------------------------

def parse(arguments: list[str]):
    """The settings; `pictures` is None or a list, `report` None where none is written."""
    parser = Parser("Evaluate models: figures as text, and a report with pictures.")
    add_evaluation_arguments(parser, SPLITS, PICTURES)
    options = parser.parse_args(arguments)
    choose(options.split, SPLITS, "--split")
    if options.pictures is not None:
        options.pictures = options.pictures.split(",")
        for name in options.pictures:
            choose(name, PICTURES, "--pictures")
    if options.report is None and (options.pictures or not options.json):
        options.report = "report"
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.report:
        report.check_folder(Path(options.report), options.pictures)
    device = pick_device(options.device)
    set_threads()
    names = options.checkpoints
    if not names:
        names = [str(model.find_checkpoint())]
        say(f"checkpoint {names[0]}", sys.stderr)
    nets = [model.load(name, device, options.model) for name in names]
    digits = load_digits(options.data, may_download(options), options.mirror)
    prepare_for(nets, names, digits, options.data, options.split)
    images, labels = pick_split(digits, options.split, nets[0].run)
    images, labels = images.to(device), labels.to(device)

    results = []
    for name, net in zip(names, nets):
        with in_file(name):
            results.append(evaluate(net, images, labels, tta=options.tta))
    if len(nets) > 1:
        together = mean_probabilities([result.log_probabilities for result in results])
        results.append(Result(together, results[0].labels, nets[0].labels))

    others = None
    if nets[0].other and is_own_data(nets[0].run, digits):
        held_out, held_out_labels = pick_split(digits, "val", nets[0].run)
        others = others_recognised(nets[0], held_out.to(device), held_out_labels)

    result = results[-1]
    sizes = [model.parameters(net) for net in nets]
    figures = figure_table(names, nets, sizes, results)
    disputed = DISPUTED if options.split == "test" and digits.is_mnist() else set()
    if options.json:
        say(as_json(names, nets, sizes, results, others, options))
    else:
        shifts = ", each also shifted by a pixel" if options.tta else ""
        say(f"{len(labels):,} {options.split} images{shifts}\n")
        say(text_report(figures, result, disputed, others))
    if options.report:  # last: the figures are known, even if it cannot be written
        pictures = draw(nets[0], result, images, disputed)
        page = None
        if options.pictures:
            pictures = {name: pictures[name] for name in options.pictures}
        else:
            page = report_page(nets, result, figures, options.split, pictures)
        report.write(Path(options.report), pictures, page)
    return 0


if __name__ == "__main__":
    run_script(main)

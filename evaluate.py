"""What a model got right, as figures, text and pictures: the report of one model or of several.

    python evaluate.py                     the model trained here last, on the test images
    python evaluate.py a.pt b.pt c.pt      each of them, and the mean of their probabilities
    python evaluate.py --tta               every image also shifted by a pixel to each side
    python evaluate.py --split val         the images that chose the model's epoch
    python evaluate.py --report docs --pictures curves,confusion,filters,mistakes

It prints the figures and writes the folder report/ with index.html and each picture as a file.
Read it in this order: figures, text for a terminal, the few things that all pictures are made of,
the eight pictures, the page, the command line.
"""
import argparse
import json
import math
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import model
from idx_data import Digits, load_digits, split, standardise
from support.command_line import Parser, add_data_arguments, choose, plain, run_script, say
from support.drawing import (EDGE, FONT, INNER, WIDTH, bold, columns_for, diverging, escape, image,
                             line, montage, rect, svg, tag, text, ticks)
from support.errors import UsageError
from support.files import write_whole
from support.machine import pick_device, set_threads

import torch
import torch.nn.functional as F
from torch import nn

SPLITS = ("test", "val", "train")
# Test images of MNIST whose labels reviewers judge wrong (Northcutt, Athalye and Mueller,
# "Pervasive Label Errors in Test Sets", 2021): a model that is right scores about 99.85%.
DISPUTED = {947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729}


# --- From images to figures -----------------------------------------------------------------------

def predict(net: model.Network, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Log-probabilities (N, classes), float32, of (N, H, W) uint8 images on the net's device."""
    training = net.training
    net.eval()
    with torch.inference_mode():
        logits = [net(standardise(batch, net.mean, net.std)) for batch in images.split(batch_size)]
    net.train(training)
    return F.log_softmax(torch.cat(logits).float(), dim=1)


def mean_probabilities(parts: list[torch.Tensor]) -> torch.Tensor:
    """The logarithm of the mean of probabilities, given as log-probabilities (N, classes) each."""
    return torch.stack(parts).logsumexp(0) - math.log(len(parts))


def shifted(images: torch.Tensor, right: int, down: int) -> torch.Tensor:
    """(N, H, W) images moved by whole pixels; black comes in. A negative padding cuts off."""
    return F.pad(images, (right, -right, down, -down))


def predict_shifted(net: model.Network, images: torch.Tensor, batch_size=1000) -> torch.Tensor:
    """`predict`, as the mean over the nine shifts of up to a pixel (test-time augmentation)."""
    return mean_probabilities([predict(net, shifted(images, right, down), batch_size)
                               for right in (-1, 0, 1) for down in (-1, 0, 1)])


@dataclass
class Result:
    """How well log-probabilities (N, classes) fit labels (N,): all figures follow from these."""
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
        return (len(self.labels) - self.errors) / len(self.labels)

    @property
    def noise(self) -> float:
        """Half the 95% interval of the accuracy (Agresti and Coull, 1998): what other images of the
        same kind, as many, would change it by."""
        count = len(self.labels) + 4
        share = (self.errors + 2) / count
        return 1.96 * math.sqrt(share * (1 - share) / count)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al., 2017), 15 bins of equal width: how far confidence
        is from accuracy. In a bin, images × |accuracy - confidence| is |sum of right - confidence|.
        """
        confidence, predictions = self.log_probabilities.cpu().double().exp().max(1)
        bins = (confidence * 15).ceil().long().clamp(1, 15) - 1
        gaps = torch.bincount(bins, (predictions == self.labels.cpu()).double() - confidence)
        return gaps.abs().sum().item() / len(self.labels)

    @property
    def confusion(self) -> torch.Tensor:
        """(classes, classes) int64: how often the true class (row) was predicted as (column)."""
        classes = self.log_probabilities.shape[1]
        pairs = self.labels * classes + self.predictions
        return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu()

    @property
    def mistakes(self) -> list[int]:
        """The images that it gets wrong, those first whose true class it thought least likely."""
        loss = F.nll_loss(self.log_probabilities, self.labels, reduction="none").tolist()
        wrong = (self.predictions != self.labels).nonzero().flatten().tolist()
        return sorted(wrong, key=lambda i: -loss[i])

    def answer(self, i: int) -> tuple[int, int, float]:
        """Of image i: the predicted class, the true one, and the probability of the predicted."""
        best = int(self.predictions[i])
        return best, int(self.labels[i]), self.log_probabilities[i, best].exp().item()


def evaluate(net: model.Network, images: torch.Tensor, labels: torch.Tensor, batch_size: int = 1000,
             tta: bool = False) -> Result:
    """Evaluate a network on (N, H, W) uint8 images and (N,) labels that lie on its device."""
    return Result((predict_shifted if tta else predict)(net, images, batch_size), labels)


def class_scores(confusion: torch.Tensor) -> torch.Tensor:
    """Precision, recall and F1 (classes, 3) of each class; 0 where nothing can be divided."""
    right = confusion.diagonal().double()
    predicted, true = confusion.sum(0), confusion.sum(1)
    precision, recall = right / predicted.clamp(min=1), right / true.clamp(min=1)
    return torch.stack([precision, recall, 2 * right / (predicted + true).clamp(min=1)], 1)


def confusions(confusion: torch.Tensor, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (true, predicted, how often), at most `count`."""
    off = (confusion - confusion.diagonal().diag()).flatten()
    order = off.argsort(descending=True, stable=True)[:count].tolist()
    return [(*divmod(i, len(confusion)), int(off[i])) for i in order if off[i]]


# --- Tables, and text for those who read ----------------------------------------------------------
# A table is a list of rows of cells; the first row names the columns. Terminal and page share them.

def figure_table(result: Result) -> list[list[str]]:
    return [["images", f"{len(result.labels):,}"], ["errors", f"{result.errors:,}"],
            ["accuracy", f"{result.accuracy:.2%} ± {result.noise:.2%}"],
            ["loss", f"{result.loss:.4f}"],
            ["calibration error (ECE)", f"{result.calibration_error:.2%}"]]


def member_table(names, nets, results) -> list[list[str]]:
    """The figures of each checkpoint, and last those of the ensemble."""
    sizes = [model.parameters(net) for net in nets]
    return [["model", "accuracy", "errors", "loss", "parameters"]] + [
        [plain(name), f"{each.accuracy:.2%}", f"{each.errors:,}", f"{each.loss:.4f}", f"{size:,}"]
        for name, size, each in zip([*names, "their mean"], [*sizes, sum(sizes)], results)]


def score_table(confusion: torch.Tensor) -> list[list[str]]:
    rows = zip(confusion.sum(1).tolist(), class_scores(confusion).tolist())
    return [["class", "images", "precision", "recall", "F1"]] + [
        [str(k), f"{count:,}", *(f"{score:.2%}" for score in scores)]
        for k, (count, scores) in enumerate(rows)]


def mistake_table(result: Result, disputed: set[int]) -> list[list[str]]:
    """The ten worst mistakes; a star marks a label that reviewers judge wrong."""
    rows = [["image", "predicted", "true", "probability"]]
    for i in result.mistakes[:10]:
        read, true, chance = result.answer(i)
        rows.append([f"{i}{'*' * (i in disputed)}", str(read), str(true), f"{chance:.1%}"])
    return rows


def layer_table(net: model.Network) -> list[list[str]]:
    return [["layer", "output", "weights", "mult-adds"]] + [
        [name, " × ".join(map(str, shape)), f"{count:,}", f"{work:,}"]
        for name, _, shape, count, work in model.trace(net)] + [
        ["total", "", f"{model.parameters(net):,}", f"{model.multiply_adds(net):,}"]]


def run_tables(net: model.Network) -> dict[str, list[list[str]]]:
    """Whatever the checkpoint tells of the run that made it: caption and table. Empty for bare
    weights."""
    tables = {}

    def add(caption: str, name: str, value, depth: int = 0) -> None:
        if isinstance(value, dict) and depth < 4:
            for key in value:
                longer = f"{name} {key}" if name == "augment" else str(key)
                add(caption, longer, value[key], depth + 1)
        elif not isinstance(value, torch.Tensor):  # the sample images have a picture of their own
            if isinstance(value, float):
                value = f"{value:.2%}" if name.endswith("accuracy") else f"{value:.6g}"
            row = [plain(name).replace("_", " "), plain(value)]
            tables.setdefault(caption, [["", ""]]).append(row)

    captions = {"settings": "Settings", "data": "SHA-256 of the data"}
    for key, value in net.run.items():
        add(captions.get(key, "How it was made"), str(key), value)
    return tables


def aligned(rows: list[list[str]], *widths: int) -> str:
    """A table as lines: the first column to the left, the others to the right; more than there are
    widths is left out."""
    return "\n".join(f"{row[0]:<{widths[0]}}"
                     + "".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:]))
                     for row in rows)


def text_report(result: Result, width: int = 80) -> str:
    """The figures, confusion matrix and scores of each class, in lines of `width` characters."""
    counts = result.confusion.tolist()
    cell = len(str(max(map(max, counts)))) + 2
    if 4 + cell * len(counts) <= width:
        rows = [["", *map(str, range(len(counts)))]]
        rows += [[str(k), *(str(n or ".") for n in row)] for k, row in enumerate(counts)]
        matrix = "rows: true, columns: predicted\n" + aligned(rows, 4, *[cell] * len(counts))
    else:
        matrix = "\n".join(["most frequent confusions"] + [
            f"  {true:>3} read as {read:>3}  {count:>6,}"
            for true, read, count in confusions(result.confusion, 15)])
    return "\n\n".join([aligned(figure_table(result), 24, 16), matrix,
                        aligned(score_table(result.confusion), 5, 8, 11, 8, 8)])


def text_page(names, nets, results, disputed, width: int) -> str:
    """All that a terminal of `width` columns shows; layers and run are those of the first model."""
    result, net, wide = results[-1], nets[0], width >= 57  # narrow: the last column is left out
    parts = [text_report(result, width)]
    if len(nets) > 1:
        room = width - (36 if wide else 25)
        short = [name if len(name) <= room else f"...{name[3 - room :]}" for name in names]
        parts.insert(0, aligned(member_table(short, nets, results), room, 9, 7, 9, *[11] * wide))
    if result.errors:
        note = "\n* reviewers judge the label wrong" * bool(disputed & set(result.mistakes[:10]))
        worst = aligned(mistake_table(result, disputed), 7, 10, 6, 13)
        parts.append(f"worst mistakes\n{worst}{note}")
    parts.append(aligned(layer_table(net), 16, 14, 10, *[13] * wide))
    if history := good_history(net):
        values = [row["val_accuracy"] for row in history]
        parts.append("validation accuracy, lowest to highest\n"
                     f"{min(values):.2%} {sparkline(values)} {max(values):.2%}")
    for caption, rows in run_tables(net).items():
        parts.append("\n".join([caption.lower()] + [
            textwrap.fill(f"{name:<24}{value}", width, subsequent_indent=" " * 24,
                          break_on_hyphens=False) for name, value in rows[1:]]))
    return "\n\n".join(parts + ["The checkpoint does not tell how it was made."] * (not net.run))


def sparkline(values: list[float], stream=None) -> str:
    """Values as a line of at most 20 blocks, from the lowest to the highest; of ASCII characters
    where the stream (standard output if none is given) cannot show blocks."""
    levels = "▁▂▃▄▅▆▇█"
    try:
        levels.encode(getattr(stream or sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        levels = "_.-~=+*#"
    last, count = len(values) - 1, min(20, len(values))
    values = [values[round(i * last / max(1, count - 1))] for i in range(count)]
    low, high = min(values, default=0), max(values, default=0)
    return "".join(levels[round(7 * (value - low) / (high - low or 1))] for value in values)


# --- The pictures ---------------------------------------------------------------------------------
# Each function returns the text of one SVG, or a plain sentence that says why there is none.

def good_history(net: model.Network) -> list[dict]:
    """The rows of the history, if each holds the figures that the curves show; else none."""
    keys = [f"{part}_{measure}" for part in CURVES for measure in ("loss", "accuracy")]
    good = all(isinstance(row, dict) and isinstance(row.get(key), float) and math.isfinite(row[key])
               for row in net.history for key in keys)
    return net.history if good else []


def setting(net: model.Network, name: str) -> int:
    """A whole number among the settings of the run; 0 if it has no such setting."""
    settings = net.run.get("settings")
    value = settings.get(name) if isinstance(settings, dict) else None
    return value if isinstance(value, int) else 0


def curves(net: model.Network) -> str:
    """Loss and accuracy, training and validation, over the epochs; the best epoch is marked."""
    rows = good_history(net)
    if not rows:
        return "The checkpoint holds no history of its training, so there are no curves."
    done = len(rows)
    planned = max(done, min(setting(net, "epochs"), 10 * done))
    best = max((e for e, row in enumerate(rows, 1) if row.get("best")), default=done)
    words = (f"Best epoch {best}: validation accuracy {rows[best - 1]['val_accuracy']:.2%}, "
             f"loss {rows[best - 1]['val_loss']:.4f}.")
    if planned > done:
        patience = setting(net, "patience")
        words += (f" Stopped early after epoch {done} of {planned}: {patience} in a row were no "
                  "better." if patience and net.run.get("result") else
                  f" Saved after epoch {done} of {planned}.")
    left, right, high = 58, WIDTH - EDGE - 8, 150

    def across(epoch: float) -> float:
        return left + (right - left) * ((epoch - 1) / (planned - 1) if planned > 1 else 0.5)

    parts = []
    if planned > done:
        x = across(done)
        parts.append(rect(x, 56, right - x, 2 * high + 56, "shade", opacity=0.6))
    for x, (name, look) in zip((EDGE, EDGE + 110), CURVES.values()):
        parts += [line(x, 8, x + 26, 8, stroke_width=2.5, **look), text(x + 33, 12.5, name)]
    for i, measure in enumerate(("loss", "accuracy")):
        parts += panel(rows, measure, best, 56 + i * (high + 56), high, left, right, across)
    step, bottom = max(1, round(planned / 10)), 2 * high + 134
    parts += [text(across(e), bottom, e, "soft", "middle", 12) for e in range(1, planned + 1)
              if e == 1 or e % step == 0]
    parts.append(text((left + right) / 2, bottom + 22, "epoch", "soft", "middle"))
    return svg("curves", bottom + 36, f"The training of {net.name}", words, parts)


CURVES = {"train": ("training", {"class_": "second", "stroke_dasharray": "5 3"}),
          "val": ("validation", {"class_": "first"})}


def panel(rows, measure, best, y, high, left, right, across) -> list[str]:
    """The curves of one measure: the loss on a logarithmic scale, the accuracy on a linear one."""
    scale = (lambda value: math.log10(max(value, 1e-6))) if measure == "loss" else float
    values = [scale(row[f"{part}_{measure}"]) for part in CURVES for row in rows]
    margin = max(0.08 * (max(values) - min(values)), 0.01)
    low, top = min(values) - margin, max(values) + margin
    marks, form = [m * 10.0**k for k in range(-6, 7) for m in (1, 2, 5)], "{:.4g}"
    if measure == "accuracy":
        top = min(1, top)
        marks, form = ticks(low, top), "{:.4g}%"
    marks = [mark for mark in marks if low <= scale(mark) <= top]
    if len(marks) > 8:
        marks = [mark for mark in marks if f"{mark:e}"[0] == "1"]
    if len(marks) < 2:
        marks = ticks(10**low, 10**top)

    def down(value: float) -> float:
        return y + high * (top - scale(value)) / (top - low)

    parts = [bold(EDGE, y - 12, measure + ", logarithmic" * (measure == "loss"))]
    for mark in marks:
        words = form.format(mark * (100 if "%" in form else 1))
        parts += [line(left, down(mark), right, down(mark)),
                  text(left - 8, down(mark) + 4, words, "soft", "end", 12)]
    parts.append(line(across(best), y, across(best), y + high, "first", stroke_dasharray="2 3"))
    for part, (name, look) in CURVES.items():
        points = [(across(e), down(row[f"{part}_{measure}"])) for e, row in enumerate(rows, 1)]
        parts.append(tag("polyline", points=" ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in points),
                         stroke_width=2, **look))
        for e, (cx, cy) in enumerate(points, 1):
            words = f"epoch {e}, {name} {measure} {rows[e - 1][f'{part}_{measure}']:.6g}"
            parts.append(tag("circle", tag("title", words), cx=cx, cy=cy, stroke_width=2,
                             r=5 if part == "val" and e == best else 2, class_=look["class_"]))
    return parts


def confusion_matrix(result: Result) -> str:
    """Rows true, columns predicted. The diagonal is grey: the colour belongs to the mistakes, on a
    square-root scale, so that a single one shows beside a hundred. Above 12 classes there are no
    numbers in the cells; the most frequent mistakes are listed beneath."""
    counts = result.confusion.tolist()
    n, worst = len(counts), max([1, *(count for *_, count in confusions(result.confusion, 1))])
    words = (f"{result.errors:,} of {len(result.labels):,} images misread. Rows: true class; "
             "columns: predicted class. Grey: right. Colour: mistakes, stronger for more.")
    cell, left, y = min(72, (INNER - 36) / n), EDGE + 36, 42
    size = min(14, 1.5 * cell / len(str(max(map(max, counts)))))  # the longest number fits its cell
    label, gap = min(13, max(10, 0.8 * cell)), min(2, cell / 8)
    every = math.ceil((0.65 * label * len(str(n - 1)) + 4) / cell)  # so that labels keep apart
    middle, parts = n * cell / 2, []
    parts += [text(left + middle, 14, "predicted", "soft", "middle"),
              text(0, 0, "true", "soft", "middle",
                   transform=f"translate({EDGE + 8} {y + middle:.0f}) rotate(-90)")]
    for true, row in enumerate(counts):
        at = (true + 0.5) * cell
        if true % every == 0:
            parts += [text(left + at - gap / 2, y - 7, true, anchor="middle", size=label),
                      text(left - 7, y + at + 0.34 * label, true, anchor="end", size=label)]
        for read, count in enumerate(row):
            right = true == read
            if not (count or right or n <= 60):
                continue  # a million empty cells would help nobody
            strength = 1.0 if right else 0.15 + 0.6 * math.sqrt(count / worst) if count else 0.4
            parts.append(rect(left + read * cell, y + true * cell, cell - gap, cell - gap,
                              "heat" if count and not right else "shade",
                              tag("title", f"true {true}, predicted {read}: {count}"),
                              fill_opacity=strength))
            if count and n <= 12:
                parts.append(text(left + (read + 0.5) * cell - gap / 2, y + at + 0.3 * size, count,
                                  anchor="middle", size=float(size), pointer_events="none"))
    y += n * cell + 14
    if n > 12 and result.errors:
        parts.append(bold(EDGE, y + 18, "Most frequent mistakes"))
        for i, (true, read, count) in enumerate(confusions(result.confusion, 12)):
            parts.append(text(EDGE + i // 6 * 210, y + 40 + i % 6 * 19,
                              f"{true} read as {read}: {count:,}"))
        y += 150
    return svg("confusion", y, "What it mistakes for what", words, parts)


def filters(net: model.Network) -> str:
    """The weights of the first convolution, on a scale with zero in its middle."""
    layer = next((layer for layer in net.children() if isinstance(layer, nn.Conv2d)), None)
    if layer is None:
        return "This network has no convolution, so there are no filters to show."
    weights = layer.weight.detach().cpu().float()[:, 0]  # (filters, h, w)
    shown, largest = weights[:64], weights.abs().max().item() or 1.0
    words = ("{} filters of {} × {} pixels".format(*weights.shape)
             + ", the first 64" * (len(weights) > 64)
             + ". Orange weights answer to ink, blue ones to its absence.")
    columns = columns_for(len(shown), (8, 6, 5))
    sheet = montage(diverging(shown / largest), columns, 6)
    width = min(INNER, 68 * columns)
    y, middle = width * sheet.shape[0] / sheet.shape[1] + 26, WIDTH / 2
    scale = diverging(torch.linspace(-1, 1, 200).expand(12, 200))
    parts = [image(EDGE + (INNER - width) / 2, 4, width, sheet, f"filters in rows of {columns}"),
             image(middle - 100, y, 200, scale, "scale")]
    parts += [text(middle + 100 * k, y + 30, words, "soft", "middle")
              for k, words in ((-1, f"−{largest:.2f}"), (0, "0"), (1, f"+{largest:.2f}"))]
    return svg("filters", y + 44, "The first convolution", words, parts)


def samples(net: model.Network, digits: Digits) -> str:
    """Training images of each class and what the recipe's augmentation made of them: training keeps
    a few of both in the checkpoint. Where it did not, the images alone, from the data set."""
    kept = net.run.get("samples")  # (classes, 1 + variants, H, W) uint8
    if torch.is_tensor(kept) and kept.dtype == torch.uint8 and kept.ndim == 4 and kept.numel():
        groups, gap = list(kept), 8
        words = ("Above: a training image of each class. Beneath: what the recipe's augmentation "
                 "makes of it, each time anew." if kept.shape[1] > 1 else
                 "A training image of each class. The recipe augments nothing.")
    else:
        groups = [digits.train_images[digits.train_labels == k][:4] for k in range(digits.classes)]
        words, gap = "Training images. The checkpoint does not hold augmented ones.", 0
    deep, columns = (max(map(len, groups)), len(groups)) if len(groups) <= 12 else (2, 10)
    size, parts, y = min(72, INNER / columns), [], 0
    for k, group in enumerate(groups[:60]):
        x, y = EDGE + k % columns * size, k // columns * (deep * size + gap + 34)
        parts.append(text(x + size / 2 - 1, y + 16, k, anchor="middle"))
        for j, pixels in enumerate(group[:deep]):
            parts.append(image(x, y + 24 + j * size + gap * (j > 0), size - 2, pixels.numpy(),
                               f"class {k}" + f", augmented {j}" * bool(gap and j)))
    return svg("samples", y + 24 + deep * size + gap + 12, "What it was trained on", words, parts)


def network(net: model.Network) -> str:
    """The layers from input to logits; a bar is as wide as the side of the layer's maps."""
    words = (f"{model.parameters(net):,} parameters, {model.multiply_adds(net):,} multiply-adds an "
             "image. Bars: the side of the maps that a layer gives; blue: layers that learn.")
    parts = [text(EDGE, 14, "layer", "soft", size=12), text(344, 14, "output", "soft", "end", 12),
             text(WIDTH - EDGE, 14, "parameters", "soft", "end", 12)]
    rows = [("input", None, (1, model.SIZE, model.SIZE), 0), *(row[:4] for row in model.trace(net))]
    for i, (name, layer, shape, count) in enumerate(rows):
        y, side = 40 + 25 * i, shape[-1] if len(shape) == 3 else 1
        if isinstance(layer, nn.Conv2d):
            name += " {}×{}".format(*layer.kernel_size)
        bar = "blue" if count else "shade"
        parts += [text(EDGE, y, name), rect(180 - 1.5 * side, y - 14, 3 * side + 2, 19, bar, rx=2),
                  text(344, y, " × ".join(map(str, shape)), anchor="end")]
        parts += [text(WIDTH - EDGE, y, f"{count:,}", anchor="end")] * bool(count)
    return svg("network", y + 16, f"The network {net.name}, from image to logits", words, parts)


def tiles(result: Result, images: torch.Tensor, index: list[int], marked=()):
    """Images in rows of eight, each with predicted / true class, probability and number; those in
    `marked` have a dashed frame. Returns the parts and their height."""
    size, parts = INNER / 8, []
    for place, i in enumerate(index):
        x, y = EDGE + place % 8 * size, 4 + place // 8 * (size + 52)
        read, true, chance = result.answer(i)
        words = f"image {i}: predicted {read}, true {true}, probability {chance:.4f}"
        words += ", label disputed" * (i in marked)
        parts.append(image(x + 2, y, size - 4, images[i].cpu().numpy(), words))
        if i in marked:
            parts.append(rect(x, y - 2, size, size, "first", stroke_width=2.5,
                              stroke_dasharray="4 2"))
        x, y = x + size / 2, y + size
        write, look = (text, "ink") if read == true else (bold, "wrong")
        parts += [write(x, y + 12, f"{read} / {true}", look, "middle"),
                  text(x, y + 27, f"{chance:.1%}", "soft", "middle", 12),
                  text(x, y + 41, f"#{i}", "soft", "middle", 11)]
    return parts, -(-len(index) // 8) * (size + 52) + 8


def predictions(result: Result, images: torch.Tensor, index: list[int]) -> str:
    words = (f"{len(index)} images drawn at random: predicted / true class, the probability of the "
             "answer, the image's number. Mistakes are bold.")
    parts, height = tiles(result, images, index)
    return svg("predictions", height, "A sample of its answers", words, parts)


def mistakes(result: Result, images: torch.Tensor, disputed: set[int]) -> str:
    """The images that it gets wrong, worst first; `disputed`: labels that reviewers judge wrong."""
    wrong = result.mistakes
    if not wrong:
        return f"It reads all {len(result.labels):,} images right: there are no mistakes to show."
    marked = disputed & set(wrong[:64])
    words = (f"The worst 64 of {len(wrong):,}" if len(wrong) > 64 else f"All {len(wrong)}") + (
        ", worst first: predicted / true class, the probability of the answer, the image's number."
        + f" Dashed frame: reviewers judge the label wrong ({len(marked)})." * bool(marked))
    parts, height = tiles(result, images, wrong[:64], marked)
    return svg("mistakes", height, "What it gets wrong", words, parts)


def stages(net: model.Network, picture: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What one (H, W) image is after each stage: (layer, maps (C, h, w)). A stage ends before the
    next convolution, linear layer or pooling over the whole map."""
    idle = (nn.Dropout, nn.Dropout2d, nn.Flatten)  # in evaluation these change no value
    starts = (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d)
    layers, found = list(net.named_children()), []
    x = standardise(picture[None], net.mean, net.std)
    with torch.inference_mode():
        for i, (name, layer) in enumerate(layers):
            x = layer(x)
            after = [other for _, other in layers[i + 1 :] if not isinstance(other, idle)]
            if not isinstance(layer, idle) and after and isinstance(after[0], starts):
                found.append((name, x[0].reshape(*x.shape[1:], *[1] * (4 - x.ndim)).float().cpu()))
    return found


def activations(net: model.Network, picture: torch.Tensor) -> str:
    """One image after each stage of the network, as grids, and the probabilities at the end."""
    words = "From pixels to an answer. Bright: strong; black: nothing; each stage on its own scale."
    parts = [image(EDGE, 6, 84, picture.cpu().numpy(), "the image"), bold(EDGE + 98, 20, "input"),
             text(EDGE + 98, 39, f"one map of {picture.shape[0]} × {picture.shape[1]}", "soft")]
    y = 120
    for name, maps in stages(net, picture):
        count, h, w = maps.shape
        shown = maps[: 32 if h > 1 else 96]
        what = (f"{count} maps of {h} × {w}" if h > 1 else f"{count} numbers")
        what += f", {len(shown)} shown" * (count > len(shown))
        what += "; blue: below zero" * bool(shown.min() < 0)
        shown = shown / shown.abs().quantile(0.995).clamp(min=1e-9)  # a bright dot would darken all
        grey = (shown.clamp(0, 1) * 255).byte().numpy()[..., None].repeat(3, 3)
        columns = columns_for(len(shown), (32, 25, 24, 20) if h == 1 else (12, 16, 10, 8))
        sheet = montage(diverging(shown) if shown.min() < 0 else grey, columns)
        width = INNER * min(1, columns / (20 if h == 1 else 8))
        parts += [bold(EDGE, y, f"after {name}"), text(WIDTH - EDGE, y, what, "soft", "end"),
                  image(EDGE, y + 8, width, sheet, f"after {name}: {what}")]
        y += width * sheet.shape[0] / sheet.shape[1] + 36
    chances = predict(net, picture[None])[0].exp().tolist()
    best = sorted(sorted(range(len(chances)), key=lambda k: -chances[k])[:10])
    parts.append(bold(EDGE, y, "probabilities"))
    for i, k in enumerate(best):
        x, high = EDGE + (i + 0.5) * INNER / len(best), max(1, 48 * chances[k])
        parts += [rect(x - 13, y + 78 - high, 26, high, "blue"),
                  text(x, y + 98, k, "ink", "middle", 14)]
        if chances[k] >= 0.005:
            parts.append(text(x, y + 72 - high, f"{chances[k]:.0%}", "soft", "middle", 12))
    return svg("activations", y + 112, "One image inside the network", words, parts)


# --- The page -------------------------------------------------------------------------------------

PAGE_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1d20;--soft:#5c6168;--line:#d5d8dc}
@media(prefers-color-scheme:dark){
:root{--paper:#15171a;--ink:#e9eaec;--soft:#a4a9b1;--line:#3a3f46}}
body{margin:0 auto;max-width:1400px;padding:16px 12px 64px;background:var(--paper);color:var(--ink);
line-height:1.5;FONT}
header,h2,section>p,figure>p,figure>div{margin:0 14px}h1{font-size:1.9rem;line-height:1.2}
h2{font-size:1.3rem;margin-top:40px;padding-top:20px;border-top:1px solid var(--line)}
p{max-width:44em}.soft{color:var(--soft)}header .soft{overflow-wrap:anywhere}
section{columns:3 360px;column-gap:24px}figure{margin:0 0 20px;break-inside:avoid}
svg{display:block;width:100%;height:auto;max-width:520px}div{overflow-x:auto;max-width:492px}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;font-size:1rem;padding:9px 0 4px}
td,th{padding:3px 0 3px 10px;text-align:right;font-weight:400;border-bottom:1px solid var(--line);
vertical-align:top}th{color:var(--soft)}
td:first-child,th:first-child{text-align:left;padding-left:0}
.numbers td+td{white-space:nowrap}.numbers td{overflow-wrap:anywhere}
.words td{white-space:nowrap}.words td+td{text-align:left;white-space:normal;overflow-wrap:anywhere}
@media(max-width:480px){body{padding:8px 0 40px}}
""".replace("FONT", FONT)


def table(caption: str, rows: list[list[str]], kind: str = "numbers") -> str:
    head, *body = [[escape(cell) for cell in row] for row in rows]
    lines = [tag("tr", *(tag("th", cell, scope="col") for cell in head))] * any(head)
    lines += [tag("tr", *(tag("td", cell) for cell in row)) for row in body]
    return tag("figure", tag("div", tag("table", tag("caption", caption), *lines, class_=kind)))


def note(words: str, class_: str = "soft") -> str:
    return tag("p", escape(words), class_=class_)


def page(names, nets, results, split_name: str, pictures: dict[str, str]) -> str:
    """The report as one HTML file with all pictures in it; nothing is fetched from elsewhere."""
    result, net, several = results[-1], nets[0], len(nets) > 1
    who = f"{len(nets)} models together" if several else net.name
    title = f"{who}: {result.accuracy:.2%} of the {split_name} images right"
    lead = (f"{result.errors:,} of {len(result.labels):,} images are misread. On other images of "
            f"the same kind, the accuracy would differ by up to {100 * result.noise:.2f} points "
            "(95% interval).")
    shown = {name: tag("figure", drawn if drawn.startswith("<svg") else note(drawn))
             for name, drawn in pictures.items()}
    members = [table("The models, and their mean", member_table(names, nets, results))] * several
    made = [table(caption, rows, "words") for caption, rows in run_tables(net).items()]
    sections = {
        "Answers": [*members, table("Figures", figure_table(result)), shown["confusion"],
                    table("Each class", score_table(result.confusion)), shown["predictions"],
                    shown["mistakes"]],
        "Training": [shown["curves"], shown["samples"],
                     *(made or [note("The checkpoint does not tell how it was made.")])],
        "Inside": [shown["network"], shown["filters"], shown["activations"],
                   table("Layers", layer_table(net))]}
    body = [tag("header", tag("h1", escape(title)), note(lead, "lead"), note(" · ".join(names)),
                note(f"Training and Inside are of the first model, {names[0]}.") * several)]
    for heading, parts in sections.items():
        body += [tag("h2", heading), tag("section", *parts)]
    # The browser, too, is told to fetch nothing.
    policy = "default-src 'none';img-src data:;style-src 'unsafe-inline'"
    return "<!DOCTYPE html>\n" + tag("html", tag(
        "head", tag("meta", charset="utf-8"), tag("title", escape(title)),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("style", PAGE_STYLE)), tag("body", tag("main", *body)), lang="en") + "\n"


PICTURES = ("curves", "confusion", "filters", "samples", "network", "predictions", "mistakes",
            "activations")


def draw(net, result, images, digits, disputed, seed) -> dict[str, str]:
    """All the pictures, by name; `seed` chooses the sample of images."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(images), generator=generator)[:24].tolist()
    inked = max(index, key=lambda i: int(images[i].sum()))  # much ink shows more inside
    return {"curves": curves(net), "confusion": confusion_matrix(result), "filters": filters(net),
            "samples": samples(net, digits), "network": network(net),
            "predictions": predictions(result, images, index),
            "mistakes": mistakes(result, images, disputed),
            "activations": activations(net, images[inked])}


def write_report(folder: Path, pictures: dict[str, str], html_page: str | None) -> None:
    """Each picture as a file of its own, and the page. A picture that could not be drawn is said on
    stderr, and one that an older run left there is taken away: it would be of another model."""
    files = {folder / f"{name}.svg": drawn for name, drawn in pictures.items()}
    if html_page:
        files[folder / "index.html"] = html_page
    for path, words in files.items():
        if words.startswith("<"):
            write_whole(path, lambda file: file.write(words.encode()))
        else:
            path.unlink(missing_ok=True)
            say(words, sys.stderr)
    say(f"wrote {list(files)[-1]}" + f" and {len(files) - 1} others" * (len(files) > 1), sys.stderr)


# --- At the command line --------------------------------------------------------------------------

def learned_from(run: dict) -> tuple:
    """What decides which images a model saw: fraction held out and seed, None where unknown."""
    settings = run.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    fraction, seed = settings.get("val_fraction"), settings.get("seed")
    known = type(fraction) is float and type(seed) is int and 0 <= seed < 2**63
    return (fraction, seed) if known else (None, None)


def pick_split(digits: Digits, name: str, run: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels of a split; "val" and "train" are those of the model's own run."""
    choose(name, SPLITS, "--split")
    if name == "test":
        return digits.test_images, digits.test_labels
    fraction, seed = learned_from(run)
    if fraction is None or seed is None:
        raise UsageError(f"--split {name}: the checkpoint does not say what images it learned from")
    if isinstance(data := run.get("data"), dict) and data != digits.hashes():
        raise UsageError(f"--split {name}: the model learned from other data; see --data")
    index = split(len(digits.train_labels), fraction, seed)[name == "val"]
    return digits.train_images[index], digits.train_labels[index]


def check_fit(digits: Digits, folder: str, classes: int = 1000) -> None:
    """Raise UsageError if the data set is not of the size or the classes that the networks take."""
    size = tuple(digits.train_images.shape[1:])
    if size != (model.SIZE, model.SIZE):
        raise UsageError(f"the networks take images of {model.SIZE} × {model.SIZE} pixels, those "
                         f"in {folder} have {size[0]} × {size[1]}; resize them first")
    if digits.classes > classes:
        raise UsageError(f"the model knows {classes} classes, {folder} has {digits.classes}; "
                         "train a model on it")


def check_together(names: list[str], nets: list[model.Network], split_name: str) -> None:
    """Raise UsageError if the models cannot be evaluated as an ensemble."""
    for name, net in zip(names, nets):
        if net.classes != nets[0].classes:
            raise UsageError(f"{names[0]} knows {nets[0].classes} classes, {name} knows "
                             f"{net.classes}: an ensemble needs the same ones")
        if split_name != "test" and learned_from(net.run) != learned_from(nets[0].run):
            raise UsageError(f"--split {split_name}: {names[0]} and {name} learned from different "
                             "images; give one of them, or --split test")


def make_parser() -> Parser:
    parser = Parser("Evaluate models: figures as text, and a report with pictures.")
    unset = {"default": argparse.SUPPRESS}  # no "(default: None)" in --help
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", **unset,
                        help="models to evaluate; of several, also the mean of their probabilities "
                        "(default: model.pt here, else the project's pretrained.pt)")
    add_data_arguments(parser)
    parser.add_argument("--split", default="test", help=f"images to evaluate: {', '.join(SPLITS)}")
    parser.add_argument("--model", metavar="NAME", help="network of a bare state_dict", **unset)
    parser.add_argument("--tta", action="store_true",
                        help="average over shifts of up to a pixel, nine times the work")
    parser.add_argument("--report", metavar="DIR", **unset, help="folder of the report "
                        "(default: report; with --json, none is written)")
    parser.add_argument("--pictures", metavar="NAMES", **unset, help="write these pictures alone, "
                        "without the page; separated by commas, some of " + ", ".join(PICTURES))
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="seed of the sample of images in predictions.svg")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON object to stdout")
    return parser


def as_json(names, nets, results, options, folder) -> str:
    def figures(result):
        return {"loss": result.loss, "accuracy": result.accuracy, "errors": result.errors,
                "calibration_error": result.calibration_error}

    result = results[-1]
    members = [{"checkpoint": name, "model": net.name, "parameters": model.parameters(net),
                **figures(each)} for name, net, each in zip(names, nets, results)]
    scores = [dict(zip(("precision", "recall", "f1"), row))
              for row in class_scores(result.confusion).tolist()]
    return json.dumps({"checkpoints": names, "parameters": sum(map(model.parameters, nets)),
                       "split": options.split, "images": len(result.labels), **figures(result),
                       "confusion": result.confusion.tolist(), "classes": scores,
                       "mistakes": result.mistakes, "tta": options.tta, "members": members,
                       "report": folder})


def main(arguments: list[str]) -> int:
    options = make_parser().parse_args(arguments)
    choose(options.split, SPLITS, "--split")
    some = hasattr(options, "pictures")
    wanted = options.pictures.split(",") if some else PICTURES
    for name in wanted:
        choose(name, PICTURES, "--pictures")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed must be from 0 to 2^63 - 1, not {options.seed}")
    folder = getattr(options, "report", "report" if some or not options.json else None)
    device = pick_device(options.device)
    set_threads()

    names = getattr(options, "checkpoints", None) or [str(model.find_checkpoint())]
    if not hasattr(options, "checkpoints"):
        say(f"checkpoint {names[0]}", sys.stderr)
    nets = [model.load(name, device, getattr(options, "model", None)) for name in names]
    check_together(names, nets, options.split)
    digits = load_digits(options.data, mirror=options.mirror)
    check_fit(digits, options.data, nets[0].classes)
    images, labels = (part.to(device) for part in pick_split(digits, options.split, nets[0].run))
    results = [evaluate(net, images, labels, tta=options.tta) for net in nets]
    if len(nets) > 1:
        together = mean_probabilities([result.log_probabilities for result in results])
        results.append(Result(together, labels))

    disputed = DISPUTED if options.split == "test" and digits.is_mnist() else set()
    if folder:
        pictures = draw(nets[0], results[-1], images, digits, disputed, options.seed)
        whole = None if some else page(names, nets, results, options.split, pictures)
        write_report(Path(folder), {name: pictures[name] for name in wanted}, whole)
    if options.json:
        say(as_json(names, nets, results, options, folder))
        return 0
    for name, net in zip(names, nets):
        say(f"{plain(name)}: {net.name}, {model.parameters(net):,} parameters")
    say(f"{options.split} split" + ", each image also shifted by a pixel" * options.tta + "\n")
    width = min(80, shutil.get_terminal_size().columns)
    say(text_page(names, nets, results, disputed, width))
    return 0


if __name__ == "__main__":
    run_script(main)

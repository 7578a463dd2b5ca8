"""The report: eight pictures, the page made of them, and tables as text.

A picture is a function of what evaluate.py hands it; it returns the text of one SVG, or a plain
sentence that says why there is none. An `answer` is evaluate.Answer: the image's number, the
predicted class, the true one, and the probability of the predicted one.
"""
import math
import sys
from pathlib import Path

from support.command_line import printable, say
from support.drawing import (EDGE, FONT, INNER, WIDTH, bold, columns_for, diverging, escape, image,
                             line, montage, rect, svg, tag, text, ticks)
from support.files import write_whole

import torch
from torch import nn


# --- The curves of a training ---------------------------------------------------------------------

CURVES = {"train": ("training", {"class_": "second", "stroke_dasharray": "5 3"}),
          "val": ("validation", {"class_": "first"})}
LEFT = 58  # the panels' left edge, right edge and height
RIGHT = WIDTH - EDGE - 8
HIGH = 150


def good_history(history: list) -> list[dict]:
    """The rows of a history, if each holds the figures that the curves show; else none."""
    keys = [f"{part}_{measure}" for part in CURVES for measure in ("loss", "accuracy")]
    for row in history:
        if not isinstance(row, dict):
            return []
        for key in keys:
            if not isinstance(row.get(key), float) or not math.isfinite(row[key]):
                return []
    return history


def curves(name: str, history: list, run: dict) -> str:
    """Loss and accuracy, training and validation, over the epochs; the best epoch is marked."""
    rows = good_history(history)
    if not rows:
        return "The checkpoint holds no history of its training, so there are no curves."
    done = len(rows)
    planned = max(done, min(setting(run, "epochs", int) or done, 10 * done))
    best = done
    for epoch, row in enumerate(rows, 1):
        if row.get("best"):
            best = epoch
    chosen_by = setting(run, "best_by", str)
    words = f"Best epoch {best}"
    if chosen_by in ("accuracy", "loss"):
        words += f", by validation {chosen_by}"
    words += (f": validation accuracy {rows[best - 1]['val_accuracy']:.2%}, "
              f"loss {rows[best - 1]['val_loss']:.4f}.")
    if planned > done:
        words += " " + why_it_ended(run, done, planned)

    def across(epoch: int) -> float:
        share = (epoch - 1) / (planned - 1) if planned > 1 else 0.5
        return LEFT + (RIGHT - LEFT) * share

    parts = []
    if planned > done:  # the epochs that never came are shaded
        x = across(done)
        parts.append(rect(x, 56, RIGHT - x, 2 * HIGH + 56, "shade", opacity=0.6))
    x = EDGE
    for part, look in CURVES.values():
        parts += [line(x, 8, x + 26, 8, stroke_width=2.5, **look), text(x + 33, 12.5, part)]
        x += 110
    parts += panel(rows, "loss", best, 56, across)
    parts += panel(rows, "accuracy", best, 56 + HIGH + 56, across)
    bottom = 2 * HIGH + 134
    step = max(1, round(planned / 10))
    for epoch in range(1, planned + 1):
        if epoch == 1 or epoch % step == 0:
            parts.append(text(across(epoch), bottom, epoch, "soft", "middle", 12))
    parts.append(text((LEFT + RIGHT) / 2, bottom + 22, "epoch", "soft", "middle"))
    return svg("curves", bottom + 36, f"The training of {name}", words, parts)


def setting(run: dict, name: str, kind: type):
    """One of the settings of the run; None if it has none of that name and kind."""
    settings = run.get("settings")
    if isinstance(settings, dict) and isinstance(settings.get(name), kind):
        return settings[name]
    return None


def why_it_ended(run: dict, done: int, planned: int) -> str:
    """A run that reached its end has a result; one that was interrupted has none yet."""
    patience = setting(run, "patience", int)
    if patience and run.get("result"):
        return f"Stopped early after epoch {done} of {planned}: {patience} in a row were no better."
    return f"Saved after epoch {done} of {planned}."


def log_loss(loss: float) -> float:
    return math.log10(max(loss, 1e-6))


def panel(rows: list[dict], measure: str, best: int, y: float, across) -> list[str]:
    """The curves of one measure: the loss on a logarithmic scale, the accuracy on a linear one.
    `across` gives the x of an epoch, `y` is the upper edge."""
    scale = log_loss if measure == "loss" else float
    values = [scale(row[f"{part}_{measure}"]) for part in CURVES for row in rows]
    margin = max(0.08 * (max(values) - min(values)), 0.01)
    low, top = min(values) - margin, max(values) + margin
    if measure == "loss":
        heading = "loss, logarithmic"
        marks = [(mark, f"{mark:.4g}") for mark in loss_marks(low, top)]
    else:
        heading = "accuracy"
        top = min(1, top)
        marks = [(mark, f"{100 * mark:.4g}%") for mark in ticks(low, top)]

    def down(value: float) -> float:
        return y + HIGH * (top - scale(value)) / (top - low)

    parts = [bold(EDGE, y - 12, heading)]
    for mark, words in marks:
        parts += [line(LEFT, down(mark), RIGHT, down(mark)),
                  text(LEFT - 8, down(mark) + 4, words, "soft", "end", 12)]
    parts.append(line(across(best), y, across(best), y + HIGH, "first", stroke_dasharray="2 3"))
    for part, (name, look) in CURVES.items():
        values = [row[f"{part}_{measure}"] for row in rows]
        points = [(across(epoch), down(value)) for epoch, value in enumerate(values, 1)]
        parts.append(tag("polyline", points=" ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in points),
                         stroke_width=2, **look))
        for epoch, (cx, cy) in enumerate(points, 1):
            words = f"epoch {epoch}, {name} {measure} {values[epoch - 1]:.6g}"
            radius = 5 if part == "val" and epoch == best else 2
            parts.append(tag("circle", tag("title", words), cx=cx, cy=cy, stroke_width=2,
                             r=radius, class_=look["class_"]))
    return parts


def loss_marks(low: float, high: float) -> list[float]:
    """Round numbers whose decimal logarithms lie from `low` to `high`: 1, 2, 5, 10, 20, ..."""
    powers = [10.0**k for k in range(-6, 7)]
    marks = [times * power for power in powers for times in (1, 2, 5)]
    marks = [mark for mark in marks if low <= math.log10(mark) <= high]
    if len(marks) > 8:
        marks = [mark for mark in marks if mark in powers]
    if len(marks) < 2:
        marks = ticks(10**low, 10**high)
    return marks


# --- Right and wrong answers ----------------------------------------------------------------------

def confusion_matrix(confusion: torch.Tensor, frequent: list[tuple[int, int, int]]) -> str:
    """The confusion matrix (classes, classes), rows true, columns predicted; `frequent` are the
    most frequent mistakes (true, predicted, how often), the first one first.

    The diagonal is grey: the colour belongs to the mistakes, on a square-root scale, so that a
    single one shows beside a hundred. Above 12 classes there are no numbers in the cells; the most
    frequent mistakes are listed beneath."""
    counts = confusion.tolist()
    classes = len(counts)
    images = int(confusion.sum())
    errors = images - int(confusion.diagonal().sum())
    words = (f"{errors:,} of {images:,} images misread. Rows: true class; "
             "columns: predicted class. Grey: right. Colour: mistakes, stronger for more.")

    cell = min(72, (INNER - 36) / classes)
    gap = min(2, cell / 8)
    left, top = EDGE + 36, 42
    middle = classes * cell / 2
    digits = len(str(int(confusion.max())))
    number_size = float(min(14, 1.5 * cell / digits))  # the longest number fits its cell
    label_size = min(13, max(10, 0.8 * cell))
    label_width = 0.65 * label_size * len(str(classes - 1)) + 4
    every = math.ceil(label_width / cell)  # so that labels keep apart

    parts = [text(left + middle, 14, "predicted", "soft", "middle"),
             text(0, 0, "true", "soft", "middle",
                  transform=f"translate({EDGE + 8} {top + middle:.0f}) rotate(-90)")]
    for true, row in enumerate(counts):
        centre = (true + 0.5) * cell
        if true % every == 0:
            parts += [text(left + centre - gap / 2, top - 7, true, anchor="middle",
                           size=label_size),
                      text(left - 7, top + centre + 0.34 * label_size, true, anchor="end",
                           size=label_size)]
        for predicted, count in enumerate(row):
            if count == 0 and true != predicted and classes > 60:
                continue  # a million empty cells would help nobody
            colour, opacity = "shade", 1.0
            if true != predicted and count == 0:
                opacity = 0.4
            elif true != predicted:
                _, _, most = frequent[0]
                colour, opacity = "heat", 0.15 + 0.6 * math.sqrt(count / most)
            parts.append(rect(left + predicted * cell, top + true * cell, cell - gap, cell - gap,
                              colour, tag("title", f"true {true}, predicted {predicted}: {count}"),
                              fill_opacity=opacity))
            if count and classes <= 12:
                parts.append(text(left + (predicted + 0.5) * cell - gap / 2,
                                  top + centre + 0.3 * number_size, count, anchor="middle",
                                  size=number_size, pointer_events="none"))
    height = top + classes * cell + 14
    if classes > 12 and errors:
        parts.append(bold(EDGE, height + 18, "Most frequent mistakes"))
        for i, (true, predicted, count) in enumerate(frequent[:12]):  # two columns of six
            parts.append(text(EDGE + i // 6 * 210, height + 40 + i % 6 * 19,
                              f"{true} read as {predicted}: {count:,}"))
        height += 150
    return svg("confusion", height, "What it mistakes for what", words, parts)


def predictions(images: torch.Tensor, answers: list) -> str:
    """A sample of the images (N, H, W) uint8 with their answers."""
    words = (f"{len(answers)} images drawn at random: predicted / true class, the probability of "
             "the answer, the image's number. Mistakes are bold.")
    parts, height = tiles(images, answers, set())
    return svg("predictions", height, "A sample of its answers", words, parts)


def mistakes(images: torch.Tensor, worst: list, count: int, disputed: set[int]) -> str:
    """The answers that are wrong, worst first, at most 64 of `count`, with their images (N, H, W)
    uint8. `disputed`: numbers of images whose labels reviewers judge wrong."""
    if not count:
        return f"It reads all {len(images):,} images right: there are no mistakes to show."
    worst = worst[:64]
    words = f"All {count}"
    if count > len(worst):
        words = f"The worst {len(worst)} of {count:,}"
    words += ", worst first: predicted / true class, the probability of the answer, the image's "
    words += "number."
    marked = disputed & {answer.number for answer in worst}
    if marked:
        words += f" Dashed frame: reviewers judge the label wrong ({len(marked)})."
    parts, height = tiles(images, worst, marked)
    return svg("mistakes", height, "What it gets wrong", words, parts)


def tiles(images: torch.Tensor, answers: list, marked: set[int]) -> tuple[list[str], float]:
    """Images in rows of eight, each with predicted / true class, probability and number; those in
    `marked` have a dashed frame. Returns the parts and their height."""
    size = INNER / 8
    row_height = size + 52
    parts = []
    for place, answer in enumerate(answers):
        x = EDGE + place % 8 * size
        y = 4 + place // 8 * row_height
        words = (f"image {answer.number}: predicted {answer.predicted}, true {answer.true}, "
                 f"probability {answer.probability:.4f}")
        if answer.number in marked:
            words += ", label disputed"
        pixels = images[answer.number].cpu().numpy()
        parts.append(image(x + 2, y, size - 4, pixels, words))
        if answer.number in marked:
            parts.append(rect(x, y - 2, size, size, "first", stroke_width=2.5,
                              stroke_dasharray="4 2"))
        x += size / 2
        y += size
        classes = f"{answer.predicted} / {answer.true}"
        if answer.predicted == answer.true:
            parts.append(text(x, y + 12, classes, "ink", "middle"))
        else:
            parts.append(bold(x, y + 12, classes, "wrong", "middle"))
        parts += [text(x, y + 27, f"{answer.probability:.1%}", "soft", "middle", 12),
                  text(x, y + 41, f"#{answer.number}", "soft", "middle", 11)]
    return parts, math.ceil(len(answers) / 8) * row_height + 8


# --- What it learned from -------------------------------------------------------------------------

def samples(kept, groups: list[torch.Tensor]) -> str:
    """Training images of each class and what the recipe's augmentation made of them: training keeps
    a few of both in the checkpoint, `kept` (classes, 1 + variants, H, W) uint8. Where it did not,
    the images alone, from the data set: `groups`, for each class a few (n, H, W) uint8."""
    gap = 0  # between the image itself and what was made of it
    words = "Training images. The checkpoint does not hold augmented ones."
    if is_samples(kept):
        groups = list(kept)
        gap = 8
        if kept.shape[1] > 1:
            words = ("Above: a training image of each class. Beneath: what the recipe's "
                     "augmentation makes of it, each time anew.")
        else:
            words = "A training image of each class. The recipe augments nothing."
    columns = len(groups)
    rows = max(map(len, groups))
    if len(groups) > 12:
        columns, rows = 10, 2
    size = min(72, INNER / columns)
    group_height = rows * size + gap + 34
    parts = []
    for k, group in enumerate(groups[:60]):
        x = EDGE + k % columns * size
        y = k // columns * group_height
        parts.append(text(x + size / 2 - 1, y + 16, k, anchor="middle"))
        for j, pixels in enumerate(group[:rows]):
            label = f"class {k}"
            below = y + 24 + j * size
            if j > 0 and gap:
                label += f", augmented {j}"
                below += gap
            parts.append(image(x, below, size - 2, pixels.numpy(), label))
    return svg("samples", y + group_height + 2, "What it was trained on", words, parts)


def is_samples(kept) -> bool:
    """Whether what a checkpoint holds as its sample images is that: (classes, n, H, W) uint8."""
    return (torch.is_tensor(kept) and kept.dtype == torch.uint8 and kept.ndim == 4
            and kept.numel() > 0)


# --- Inside the network ---------------------------------------------------------------------------

def filters(net: nn.Module) -> str:
    """The weights of the first convolution, on a scale with zero in its middle."""
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        return "This network has no convolution, so there are no filters to show."
    weights = convolutions[0].weight.detach().cpu().float()[:, 0]  # on the image's one channel
    count, high, wide = weights.shape
    shown = weights[:64]
    words = f"{count} filters of {high} × {wide} pixels"
    if count > 64:
        words += ", the first 64"
    words += ". Orange weights answer to ink, blue ones to its absence."
    largest = weights.abs().max().item() or 1.0
    columns = columns_for(len(shown), (8, 6, 5))
    sheet = montage(diverging(shown / largest), columns, gap=6)
    width = min(INNER, 68 * columns)
    middle = WIDTH / 2
    y = width * sheet.shape[0] / sheet.shape[1] + 26
    scale = diverging(torch.linspace(-1, 1, 200).expand(12, 200))
    parts = [image(EDGE + (INNER - width) / 2, 4, width, sheet, f"filters in rows of {columns}"),
             image(middle - 100, y, 200, scale, "scale"),
             text(middle - 100, y + 30, f"−{largest:.2f}", "soft", "middle"),
             text(middle, y + 30, "0", "soft", "middle"),
             text(middle + 100, y + 30, f"+{largest:.2f}", "soft", "middle")]
    return svg("filters", y + 44, "The first convolution", words, parts)


def network(name: str, input_shape: tuple[int, ...], layers: list) -> str:
    """The layers (rows of model.trace) from input to logits; a bar is as wide as the side of the
    layer's maps."""
    parameters = sum(layer.parameters for layer in layers)
    work = sum(layer.multiply_adds for layer in layers)
    words = (f"{parameters:,} parameters, {work:,} multiply-adds an image. "
             "Bars: the side of the maps that a layer gives; blue: layers that learn.")
    parts = [text(EDGE, 14, "layer", "soft", size=12), text(344, 14, "output", "soft", "end", 12),
             text(WIDTH - EDGE, 14, "parameters", "soft", "end", 12)]
    rows = [("input", input_shape, 0)]
    for layer in layers:
        label = layer.name
        if isinstance(layer.module, nn.Conv2d):
            high, wide = layer.module.kernel_size
            label += f" {high}×{wide}"
        rows.append((label, layer.shape, layer.parameters))
    y = 40
    for label, shape, count in rows:
        side = shape[-1] if len(shape) == 3 else 1
        colour = "blue" if count else "shade"
        parts += [text(EDGE, y, label),
                  rect(180 - 1.5 * side, y - 14, 3 * side + 2, 19, colour, rx=2),
                  text(344, y, " × ".join(map(str, shape)), anchor="end")]
        if count:
            parts.append(text(WIDTH - EDGE, y, f"{count:,}", anchor="end"))
        y += 25
    return svg("network", y - 9, f"The network {name}, from image to logits", words, parts)


def stages(net: nn.Module, x: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What one standardised image (1, 1, H, W) is after each stage of the network: the name of the
    stage's last layer, and maps (C, h, w) or numbers (n,), float32. The next convolution or linear
    layer begins a new stage."""
    found = []
    last = None
    with torch.inference_mode():
        for name, layer in net.named_children():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and last:
                found.append(last)
            x = layer(x)
            # In evaluation, dropout and flattening change no value.
            if not isinstance(layer, (nn.Dropout, nn.Dropout2d, nn.Flatten)):
                last = (name, x[0].float().cpu())
    return found


def activations(picture: torch.Tensor, stages: list[tuple[str, torch.Tensor]],
                probabilities: list[float]) -> str:
    """One image (H, W) uint8, what it is after each of the network's `stages` as grids, and the
    probabilities of the classes at the end."""
    words = "From pixels to an answer. Bright: strong; black: nothing; each stage on its own scale."
    high, wide = picture.shape
    parts = [image(EDGE, 6, 84, picture.cpu().numpy(), "the image"), bold(EDGE + 98, 20, "input"),
             text(EDGE + 98, 39, f"one map of {high} × {wide}", "soft")]
    y = 120
    for name, maps in stages:
        height, drawn = stage(name, maps, y)
        parts += drawn
        y += height
    parts += probability_bars(probabilities, y)
    return svg("activations", y + 112, "One image inside the network", words, parts)


def stage(name: str, maps: torch.Tensor, y: float) -> tuple[float, list[str]]:
    """One stage of `activations`, from `y` on: its height and its parts."""
    if maps.ndim == 1:
        maps = maps[:, None, None]
    count, high, wide = maps.shape
    if high > 1:
        words = f"{count} maps of {high} × {wide}"
        shown = maps[:32]
        columns = columns_for(len(shown), (12, 16, 10, 8))
        full_row = 8  # so many fill the width; fewer are not made larger
    else:
        words = f"{count} numbers"
        shown = maps[:96]
        columns = columns_for(len(shown), (32, 25, 24, 20))
        full_row = 20
    if count > len(shown):
        words += f", {len(shown)} shown"
    scaled = shown / shown.abs().quantile(0.995).clamp(min=1e-9)  # a bright dot would darken all
    if shown.min() < 0:
        words += "; blue: below zero"
        colours = diverging(scaled)
    else:
        grey = (scaled.clamp(0, 1) * 255).byte().numpy()
        colours = grey[..., None].repeat(3, axis=3)
    sheet = montage(colours, columns)
    width = INNER * min(1, columns / full_row)
    parts = [bold(EDGE, y, f"after {name}"), text(WIDTH - EDGE, y, words, "soft", "end"),
             image(EDGE, y + 8, width, sheet, f"after {name}: {words}")]
    return width * sheet.shape[0] / sheet.shape[1] + 36, parts


def probability_bars(probabilities: list[float], y: float) -> list[str]:
    """The ten most probable classes, in the order of the classes."""
    by_probability = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    shown = sorted(by_probability[:10])
    parts = [bold(EDGE, y, "probabilities")]
    for i, k in enumerate(shown):
        x = EDGE + (i + 0.5) * INNER / len(shown)
        high = max(1, 48 * probabilities[k])
        parts += [rect(x - 13, y + 78 - high, 26, high, "blue"),
                  text(x, y + 98, k, "ink", "middle", 14)]
        if probabilities[k] >= 0.005:
            parts.append(text(x, y + 72 - high, f"{probabilities[k]:.0%}", "soft", "middle", 12))
    return parts


# --- Tables ---------------------------------------------------------------------------------------
# A table is a list of rows of cells; the first row names the columns.

def aligned(rows: list[list[str]]) -> str:
    """A table as lines: the first column to the left, the others to the right, each as wide as its
    widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells))
    return "\n".join(lines)


def sparkline(values: list[float]) -> str:
    """Values as a line of at most 20 blocks, from the lowest to the highest."""
    blocks = "▁▂▃▄▅▆▇█"
    count = min(20, len(values))
    shown = [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]
    low = min(shown, default=0)
    height = max(shown, default=0) - low or 1  # a level line has no height
    return "".join(blocks[round(7 * (value - low) / height)] for value in shown)


def layer_table(layers: list) -> list[list[str]]:
    """The rows of model.trace, and their sum."""
    rows = [["layer", "output", "parameters", "multiply-adds"]]
    for layer in layers:
        rows.append([layer.name, " × ".join(map(str, layer.shape)), f"{layer.parameters:,}",
                     f"{layer.multiply_adds:,}"])
    parameters = sum(layer.parameters for layer in layers)
    work = sum(layer.multiply_adds for layer in layers)
    return [*rows, ["total", "", f"{parameters:,}", f"{work:,}"]]


UNKNOWN_RUN = "The checkpoint does not tell how it was made."


def run_tables(run: dict) -> dict[str, list[list[str]]]:
    """Whatever a checkpoint tells of the run that made it: caption and table of names and values,
    whose columns have no names. Empty for bare weights."""
    captions = {"settings": "Settings", "data": "SHA-256 of the data"}
    tables = {}
    for key, value in run.items():
        caption = captions.get(key, "How it was made")
        for row in named_values(str(key), value):
            tables.setdefault(caption, [["", ""]]).append(row)
    return tables


def run_text(run: dict) -> str:
    """`run_tables` as text."""
    if not run:
        return UNKNOWN_RUN
    parts = []
    for caption, rows in run_tables(run).items():
        lines = [f"{name:<23} {value}" for name, value in rows[1:]]
        parts.append("\n".join([caption.lower(), *lines]))
    return "\n\n".join(parts)


def named_values(name: str, value, depth: int = 0):
    """The rows [name, value] of a value in the run, or of all the values inside it. At most four
    deep: a checkpoint may come from anybody."""
    if isinstance(value, torch.Tensor):
        return  # the sample images have a picture of their own
    if isinstance(value, dict) and depth < 4:
        for key, inner in value.items():
            longer = f"augment {key}" if name == "augment" else str(key)
            yield from named_values(longer, inner, depth + 1)
        return
    if isinstance(value, float):
        value = f"{value:.2%}" if name.endswith("accuracy") else f"{value:.6g}"
    yield [printable(name).replace("_", " "), printable(value)]


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
    head, *body = rows
    lines = [tag("caption", caption)]
    if any(head):
        lines.append(tag("tr", *(tag("th", escape(cell), scope="col") for cell in head)))
    for row in body:
        lines.append(tag("tr", *(tag("td", escape(cell)) for cell in row)))
    return tag("figure", tag("div", tag("table", *lines, class_=kind)))


def note(words: str, class_: str = "soft") -> str:
    return tag("p", escape(words), class_=class_)


def figure(drawn: str) -> str:
    """A picture, or the sentence that says why there is none."""
    return tag("figure", drawn if drawn.startswith("<svg") else note(drawn))


def page(title: str, lead: str, checkpoints: list[str], pictures: dict[str, str],
         tables: dict[str, list[list[str]]], run: dict) -> str:
    """The report as one HTML file with all pictures in it; nothing is fetched from elsewhere.
    `tables` are named figures, scores, layers and, for several checkpoints, members."""
    header = [tag("h1", escape(title)), note(lead, "lead"), note(" · ".join(checkpoints))]
    members = []
    if len(checkpoints) > 1:
        header.append(note(f"Training and Inside are of the first model, {checkpoints[0]}."))
        members.append(table("The models, and their mean", tables["members"]))
    made = [table(caption, rows, "words") for caption, rows in run_tables(run).items()]
    if not made:
        made.append(note(UNKNOWN_RUN))
    shown = {name: figure(drawn) for name, drawn in pictures.items()}
    answers = [*members, table("Figures", tables["figures"]), shown["confusion"],
               table("Each class", tables["scores"]), shown["predictions"], shown["mistakes"]]
    training = [shown["curves"], shown["samples"], *made]
    inside = [shown["network"], shown["filters"], shown["activations"],
              table("Layers", tables["layers"])]
    body = [tag("header", *header), tag("h2", "Answers"), tag("section", *answers),
            tag("h2", "Training"), tag("section", *training),
            tag("h2", "Inside"), tag("section", *inside)]
    # The browser, too, is told to fetch nothing.
    policy = "default-src 'none';img-src data:;style-src 'unsafe-inline'"
    head = tag("head", tag("meta", charset="utf-8"), tag("title", escape(title)),
               tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
               tag("meta", http_equiv="Content-Security-Policy", content=policy),
               tag("style", PAGE_STYLE))
    whole = tag("html", head, tag("body", tag("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def write(folder: Path, pictures: dict[str, str], html_page: str | None) -> None:
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
    *others, last = files
    message = f"wrote {last}"
    if others:
        message += f" and {len(others)} others"
    say(message, sys.stderr)

"""The report: six pictures, and the page made of them.

A picture is a function of what evaluate.py hands it; it returns the text of one SVG, or a plain
sentence that says why there is none. An `answer` is evaluate.Prediction: the image's number, the
predicted class, the true one, and the probability of the predicted one.
"""
import math
import sys
from pathlib import Path

from support.command_line import printable, say, shortened
from support.drawing import (EDGE, FONT, INNER, WIDTH, bold, diverging, escape, grid, image, line,
                             rect, svg, tag, text, ticks)
from support.errors import UsageError
from support.files import check_writable, write_whole

import torch
from torch import nn


PICTURES = ("curves", "confusion", "filters", "samples", "mistakes", "activations")


# --- The names of classes -------------------------------------------------------------------------

LONG = 3  # characters; longer names are those of folders, and need more room than numbers
NAME_WIDTH = 66  # in SVG's units, beside and above the confusion matrix


def fitted(x, y, name: str, room: float, size: float, anchor: str = "middle", **more) -> str:
    """The name of a class as text, squeezed into the room there is. All of it is in a tooltip."""
    words = shortened(name, 14)
    if 0.6 * size * len(words) > room:  # letters are about as wide as 0.6 of their size
        more |= {"textLength": room, "lengthAdjust": "spacingAndGlyphs"}
    tooltip = tag("title", escape(name)) if words != name else ""
    return tag("text", escape(words) + tooltip, x=x, y=y, text_anchor=anchor, font_size=size,
               **{"class_": "ink", **more})


# --- The curves of a training ---------------------------------------------------------------------

CURVES = {"train": ("training", {"class_": "second", "stroke_dasharray": "5 3"}),
          "val": ("validation", {"class_": "first"})}
LEFT = 58  # the panels' left edge, right edge and height
RIGHT = WIDTH - EDGE - 8
HIGH = 150


def curves(name: str, history: list[dict], run: dict) -> str:
    """Loss and accuracy, training and validation, over the epochs; the best epoch is marked."""
    if not history:
        return "The checkpoint holds no history of its training, so there are no curves."
    done = len(history)
    best = done
    for epoch, row in enumerate(history, 1):
        if row.get("best") is True:
            best = epoch
    settings = run.get("settings", {})
    words = f"Best epoch {best}"
    if "best_by" in settings:
        words += f", by validation {settings['best_by']}"
    words += (f": validation accuracy {history[best - 1]['val_accuracy']:.2%}, "
              f"loss {history[best - 1]['val_loss']:.4f}. The axis of the loss is logarithmic.")
    planned = settings.get("epochs", done)
    if planned > done and "result" in run:  # an interrupted run has no result yet
        words += f" Stopped early after epoch {done} of {planned}."
    elif planned > done:
        words += f" Saved after epoch {done} of {planned}."

    parts = []
    x = EDGE
    for part, look in CURVES.values():
        parts += [line(x, 8, x + 26, 8, stroke_width=2.5, **look), text(x + 33, 12.5, part)]
        x += 110
    parts += panel(history, "loss", log_loss, loss_labels, best, 56)
    parts += panel(history, "accuracy", float, accuracy_labels, best, 56 + HIGH + 56)
    bottom = 2 * HIGH + 134
    step = math.ceil(done / 10)
    for epoch in range(step, done + 1, step):
        parts.append(text(across(epoch, done), bottom, epoch, "soft", "middle", 12))
    parts.append(text((LEFT + RIGHT) / 2, bottom + 22, "epoch", "soft", "middle"))
    return svg("curves", bottom + 36, f"The training of {name}", words, parts)


def across(epoch: int, done: int) -> float:
    """The x of an epoch, of the `done` ones."""
    return LEFT + (RIGHT - LEFT) * (epoch - 0.5) / done


def panel(history: list[dict], measure: str, scale, label, best: int, y: float) -> list[str]:
    """The curves of one measure; `scale` turns a value into its place on the axis, `label` gives
    the labelled places from one to another. The upper edge is at `y`."""
    places = [scale(row[f"{part}_{measure}"]) for part in CURVES for row in history]
    margin = max(0.02, 0.08 * (max(places) - min(places)))
    low = min(places) - margin
    top = max(places) + margin

    def down(place: float) -> float:
        return y + HIGH * (top - place) / (top - low)

    done = len(history)
    x = across(best, done)
    parts = [bold(EDGE, y - 12, measure), line(x, y, x, y + HIGH, "first", stroke_dasharray="2 3")]
    for words, place in label(low, top):
        parts += [line(LEFT, down(place), RIGHT, down(place)),
                  text(LEFT - 8, down(place) + 4, words, "soft", "end", 12)]
    for part, (name, look) in CURVES.items():
        values = [row[f"{part}_{measure}"] for row in history]
        points = [(across(epoch, done), down(scale(value)))
                  for epoch, value in enumerate(values, 1)]
        parts.append(tag("polyline", points=" ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in points),
                         stroke_width=2, **look))
        for epoch, (cx, cy) in enumerate(points, 1):
            words = f"epoch {epoch}, {name} {measure} {values[epoch - 1]:.6g}"
            radius = 5 if part == "val" and epoch == best else 2
            parts.append(tag("circle", tag("title", words), cx=cx, cy=cy, stroke_width=2,
                             r=radius, class_=look["class_"]))
    return parts


def log_loss(loss: float) -> float:
    return math.log10(max(loss, 1e-6))


def loss_labels(low: float, top: float) -> list[tuple[str, float]]:
    """Five losses at equal distances on the logarithmic axis, then rounded."""
    digits = 1 if top - low > 0.2 else 2
    labels = {}  # two may round to the same
    for k in range(5):
        loss = float(f"{10 ** (low + k * (top - low) / 4):.{digits}g}")
        if low <= log_loss(loss) <= top:
            labels[f"{loss:g}"] = log_loss(loss)
    return list(labels.items())


def accuracy_labels(low: float, top: float) -> list[tuple[str, float]]:
    return [(f"{100 * mark:.4g}%", mark) for mark in ticks(low, min(1, top))]


# --- Right and wrong answers ----------------------------------------------------------------------

def confusion_matrix(confusion: torch.Tensor, names: list[str]) -> str:
    """The confusion matrix (classes, classes), rows true, columns predicted. The diagonal is grey:
    the colour belongs to the mistakes, on a square-root scale, so that a single one shows beside a
    hundred. Above 12 classes there are no numbers in the cells, but tooltips."""
    classes = len(confusion)
    images = int(confusion.sum())
    right = confusion.diagonal()
    errors = images - int(right.sum())
    most = max(1, int((confusion - right.diag()).max()))  # the most frequent mistake
    words = (f"{errors:,} of {images:,} images misread. Rows: true class; "
             "columns: predicted class. Grey: right. Colour: mistakes, stronger for more.")

    left, top = EDGE + 36, 42
    long = max(map(len, names)) > LONG
    if long:
        left, top = EDGE + 26 + NAME_WIDTH, 30 + NAME_WIDTH
    cell = min(72, (WIDTH - EDGE - left) / classes)
    digits = len(str(int(confusion.max())))
    number_size = float(min(14, 1.5 * cell / digits))  # the longest number fits its cell
    label_size = 13 if classes <= 12 and not long else 10
    every = math.ceil(classes / 20)  # so that labels keep apart
    whole = classes * cell
    parts = [text(left + whole / 2, 14, "predicted", "soft", "middle"),
             text(0, 0, "true", "soft", "middle",
                  transform=f"translate({EDGE + 8} {top + whole / 2:.0f}) rotate(-90)"),
             rect(left, top, whole, whole, "shade", fill_opacity=0.4)]
    for k in range(0, classes, every):
        centre = (k + 0.5) * cell
        if long:
            upwards = f"translate({left + centre + 4:.1f} {top - 7}) rotate(-90)"
            parts.append(fitted(0, 0, names[k], NAME_WIDTH, label_size, "start",
                                transform=upwards))
        else:
            parts.append(text(left + centre, top - 7, names[k], anchor="middle", size=label_size))
        parts.append(fitted(left - 7, top + centre + 4, names[k], NAME_WIDTH, label_size, "end"))
    for true, predicted in confusion.nonzero().tolist():
        count = int(confusion[true, predicted])
        x = left + predicted * cell
        y = top + true * cell
        colour, opacity = "shade", 1.0
        if true != predicted:
            colour, opacity = "heat", 0.15 + 0.6 * math.sqrt(count / most)
        answer = f"true {names[true]}, predicted {names[predicted]}: {count}"
        tooltip = tag("title", escape(answer))
        parts.append(rect(x, y, cell, cell, colour, tooltip, fill_opacity=opacity))
        if classes <= 12:
            parts.append(text(x + cell / 2, y + cell / 2 + 0.35 * number_size, count,
                              anchor="middle", size=number_size, pointer_events="none"))
    return svg("confusion", top + whole + 14, "What it mistakes for what", words, parts)


def mistakes(images: torch.Tensor, worst: list, count: int, disputed: set[int],
             names: list[str]) -> str:
    """The `worst` of `count` wrong answers, with their images (N, H, W) uint8 in rows of eight.
    `disputed`: numbers of images whose labels reviewers judge wrong; they have a dashed frame."""
    if not count:
        return f"It reads all {len(images):,} images right: there are no mistakes to show."
    words = (f"The worst {len(worst)} of {count:,}: predicted / true class, the probability of the "
             "answer, the image's number.")
    marked = disputed & {answer.number for answer in worst}
    if marked:
        words += f" Dashed frame: reviewers judge the label wrong ({len(marked)})."
    size = INNER / 8
    long = max(map(len, names)) > LONG  # then predicted and true class are beneath each other
    row_height = size + (64 if long else 52)
    parts = []
    for place, answer in enumerate(worst):
        x = EDGE + place % 8 * size
        y = 4 + place // 8 * row_height
        parts.append(image(x + 2, y, size - 4, images[answer.number].cpu().numpy()))
        if answer.number in marked:
            parts.append(rect(x, y - 2, size, size, "first", stroke_width=2.5,
                              stroke_dasharray="4 2"))
        x += size / 2
        y += size
        predicted, true = names[answer.predicted], names[answer.true]
        if long:
            parts += [fitted(x, y + 11, predicted, size - 4, 10, class_="wrong", font_weight=600),
                      fitted(x, y + 23, true, size - 4, 10)]
            y += 12
        else:
            parts.append(bold(x, y + 12, f"{predicted} / {true}", "wrong", "middle"))
        parts += [text(x, y + 27, f"{answer.probability:.1%}", "soft", "middle", 12),
                  text(x, y + 41, f"#{answer.number}", "soft", "middle", 11)]
    height = math.ceil(len(worst) / 8) * row_height + 8
    return svg("mistakes", height, "What it gets wrong", words, parts)


# --- What it learned from -------------------------------------------------------------------------

def samples(kept: torch.Tensor | None, names: list[str]) -> str:
    """Training images of each class and what the recipe's augmentation made of them: training keeps
    a few of both in the checkpoint, (classes, 1 + variants, H, W) uint8. Ten classes in a row."""
    if kept is None:
        return "The checkpoint holds no sample of what it was trained on."
    words = "A training image of each class. The recipe augments nothing."
    if kept.shape[1] > 1:
        words = ("Above: a training image of each class. Beneath: what the recipe's augmentation "
                 "makes of it, each time anew.")
    size = INNER / 10
    label_size = 10 if max(map(len, names)) > LONG else 13
    row_height = kept.shape[1] * size + 36
    parts = []
    for k, (name, versions) in enumerate(zip(names, kept.numpy())):
        x = EDGE + k % 10 * size
        y = k // 10 * row_height
        parts.append(fitted(x + size / 2 - 1, y + 16, name, size - 4, label_size))
        for j, pixels in enumerate(versions):
            parts.append(image(x, y + 24 + j * size, size - 2, pixels))
    height = math.ceil(len(kept) / 10) * row_height
    return svg("samples", height, "What it was trained on", words, parts)


# --- Inside the network ---------------------------------------------------------------------------

def filters(net: nn.Module) -> str:
    """The weights of the first convolution, on a scale with zero in its middle."""
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        return "This network has no convolution, so there are no filters to show."
    weights = convolutions[0].weight.detach().cpu().float()[:, 0]  # on the image's one channel
    count, high, wide = weights.shape
    largest = weights.abs().max().item() or 1.0
    words = f"{count} filters of {high} × {wide} pixels"
    if count > 64:
        words += ", the first 64"
    words += (f". Orange, to +{largest:.2f}: weights that answer to ink; blue, to "
              f"−{largest:.2f}: to its absence.")
    parts, height = grid(diverging(weights[:64] / largest), 8, 4)
    return svg("filters", height + 8, "The first convolution", words, parts)


def stages(net, x: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What one standardised image (1, 1, H, W) is after each stage of a model.Network: the name of
    the stage's last layer, and maps (C, h, w) or numbers (n,), float32. The next convolution or
    linear layer begins a new stage."""
    found = []
    last = None
    with torch.inference_mode():
        for name, layer in net.named_layers():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and last:
                found.append(last)
            x = layer(x)
            # In evaluation, dropout and flattening change no value.
            if not isinstance(layer, (nn.Dropout, nn.Dropout2d, nn.Flatten)):
                last = (name, x[0].float().cpu())
    return found


def activations(picture: torch.Tensor, stages: list[tuple[str, torch.Tensor]], answer,
                names: list[str]) -> str:
    """One image (H, W) uint8, and what it is after each of the network's `stages`."""
    words = ("From pixels to an answer. Orange: strong; white: nothing; blue: below zero; each "
             "stage on its own scale.")
    parts = [image(EDGE, 6, 84, picture.cpu().numpy()),
             bold(EDGE + 98, 20, f"image {answer.number}"),
             text(EDGE + 98, 39, f"read as {shortened(names[answer.predicted], 14)}, probability "
                                 f"{answer.probability:.1%}", "soft")]
    y = 120
    for name, maps in stages:
        if maps.ndim == 1:
            maps = maps[:, None, None]  # a number is a map of one pixel
        count, high, wide = maps.shape
        label = f"{count} maps of {high} × {wide}"
        if count > 32:
            label += ", 32 shown"
        parts += [bold(EDGE, y, f"after {name}"), text(WIDTH - EDGE, y, label, "soft", "end")]
        shown = maps[:32]
        scaled = shown / shown.abs().quantile(0.995).clamp(min=1e-9)  # one dot would fade all
        drawn, y = grid(diverging(scaled), 16, y + 8)
        parts += drawn
        y += 26
    return svg("activations", y - 12, "One image inside the network", words, parts)


# --- Tables ---------------------------------------------------------------------------------------

def run_tables(run: dict) -> dict[str, list[list[str]]]:
    """What a checkpoint tells of the run that made it, as tables without names of columns, by their
    captions: the plain values, then a table for each dictionary."""
    tables = {"Run": [["", ""]]}
    for key, value in run.items():
        if isinstance(value, dict):
            rows = [[plain(name), value_text(inner)] for name, inner in value.items()]
            tables[plain(key).capitalize()] = [["", ""], *rows]
        elif not isinstance(value, torch.Tensor):  # the sample images have a picture
            tables["Run"].append([plain(key), value_text(value)])
    return tables


def plain(name) -> str:
    return printable(name).replace("_", " ")


def value_text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{plain(name)} {printable(inner)}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value)


# --- The page -------------------------------------------------------------------------------------

PAGE_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1d20;--soft:#5c6168;--line:#d5d8dc}
@media(prefers-color-scheme:dark){
:root{--paper:#15171a;--ink:#e9eaec;--soft:#a4a9b1;--line:#3a3f46}}
body{margin:0 auto;max-width:1100px;padding:16px 8px 64px;background:var(--paper);color:var(--ink);
line-height:1.5;FONT}
h1,h2,p,figure>div{margin:0 14px 14px}h1{font-size:1.9rem;line-height:1.2}
h2{font-size:1.3rem;margin-top:40px;padding-top:20px;border-top:1px solid var(--line)}
p{max-width:44em;color:var(--soft);overflow-wrap:anywhere}
section{columns:2 440px;column-gap:24px}pre{font-size:.75rem}
figure{margin:0 0 20px;break-inside:avoid}
svg{display:block;width:100%;height:auto;max-width:520px}div{overflow-x:auto;max-width:492px}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;font-size:1rem;padding:9px 0 4px}
td,th{padding:3px 0 3px 10px;text-align:right;font-weight:400;border-bottom:1px solid var(--line);
vertical-align:top}th{color:var(--soft)}
td:first-child,th:first-child{text-align:left;padding-left:0}
.numbers td{white-space:nowrap}.words td+td{text-align:left;overflow-wrap:anywhere}
""".replace("FONT", FONT)


# The browser, too, is told to fetch nothing.
POLICY = "default-src 'none';img-src data:;style-src 'unsafe-inline'"


def table(caption: str, rows: list[list[str]], kind: str = "numbers") -> str:
    head, *body = rows
    lines = [tag("caption", escape(caption))]
    if any(head):
        lines.append(tag("tr", *(tag("th", escape(cell), scope="col") for cell in head)))
    for row in body:
        lines.append(tag("tr", *(tag("td", escape(cell)) for cell in row)))
    return tag("figure", tag("div", tag("table", *lines, class_=kind)))


def figure(drawn: str) -> str:
    """A picture, or the sentence that says why there is none."""
    if drawn.startswith("<svg"):
        return tag("figure", drawn)
    return tag("p", escape(drawn))


def page(title: str, lead: str, pictures: dict[str, str], tables: dict[str, list[list[str]]],
         layers: str, run: dict) -> str:
    """The report as one HTML file with all pictures in it; nothing is fetched from elsewhere.
    `tables` by their captions; `layers` is model.summary's text."""
    shown = {name: figure(drawn) for name, drawn in pictures.items()}
    measured = [table(caption, rows) for caption, rows in tables.items()]
    made = [table(caption, rows, "words") for caption, rows in run_tables(run).items()]
    # Lines of the layers are kept: each is escaped by itself.
    summary = tag("pre", "\n".join(escape(line) for line in layers.splitlines()))
    body = [tag("h1", escape(title)), tag("p", escape(lead)), tag("h2", "Answers"),
            tag("section", *measured, shown["confusion"], shown["mistakes"]),
            tag("h2", "Training"), tag("section", shown["curves"], shown["samples"], *made),
            tag("h2", "Inside"), tag("section", shown["filters"], shown["activations"],
                                     tag("figure", tag("div", summary)))]
    head = tag("head", tag("meta", charset="utf-8"), tag("title", escape(title)),
               tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
               tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
               tag("style", PAGE_STYLE))
    whole = tag("html", head, tag("body", tag("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


# --- Its files ------------------------------------------------------------------------------------

def check_folder(folder: Path, names: list[str] | None) -> None:
    """Raise UsageError if the report, or the pictures of these names alone, would replace a file
    that no report has written."""
    files = [f"{name}.svg" for name in names or PICTURES]
    if not names:
        files.append("index.html")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--report {folder}: expected a folder, found a file; name another")
    for name in files:
        path = folder / name
        check_writable(path, "--report: the file")
        if path.is_file() and not is_ours(path):
            raise UsageError(f"--report {folder}: the {name} there is not that of a report; "
                             "name another folder")


def is_ours(path: Path) -> bool:
    """Whether a report has written this file."""
    mark = f'aria-labelledby="{path.stem}-title {path.stem}-desc"'
    if path.suffix == ".html":
        mark = escape(POLICY)
    with open(path, "rb") as file:
        return mark.encode() in file.read(5000)


def write(folder: Path, pictures: dict[str, str], html_page: str | None) -> None:
    """Each picture as a file of its own, and the page. A picture that could not be drawn is said on
    stderr, and one that an older report left there is taken away: it would be of another model."""
    files = {folder / f"{name}.svg": drawn for name, drawn in pictures.items()}
    if html_page:
        files[folder / "index.html"] = html_page
    for path, words in files.items():
        if words.startswith("<"):
            write_whole(path, lambda file: file.write(words.encode()))
            say(f"wrote {path}", sys.stderr)
        else:
            if path.is_file() and is_ours(path):
                path.unlink()
            say(words, sys.stderr)

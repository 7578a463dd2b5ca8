"""What `evaluate.py` prints of its results: tables, which the page of the report shows, too, and
JSON. A `result` is an evaluate.Result. A table is a list of rows of cells; the first row names the
columns.
"""
import json

from support.command_line import printable, shortened


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


def figure_table(names: list[str], nets: list, sizes: list[int], results: list) -> list[list[str]]:
    """A row for each model; of several, one more for the mean of their probabilities. `sizes`: the
    parameters of each."""
    labels = [f"{printable(name)} ({net.name})" for name, net in zip(names, nets)]
    if len(nets) > 1:
        labels.append("their mean")
        sizes = [*sizes, sum(sizes)]
    rows = [["model", "parameters", "errors", "accuracy", "loss", "ECE"]]
    for label, size, result in zip(labels, sizes, results):
        rows.append([label, f"{size:,}", f"{result.errors:,}",
                     f"{result.accuracy:.2%} ± {result.half_interval:.2%}", f"{result.loss:.4f}",
                     f"{result.calibration_error:.2%}"])
    return rows


def score_table(result) -> list[list[str]]:
    """How well each class is recognised."""
    rows = [["class", "images", "precision", "recall", "F1"]]
    counts = result.confusion.sum(1).tolist()
    for name, count, scores in zip(result.class_names, counts, result.class_scores.tolist()):
        rows.append([shortened(name), f"{count:,}", *(f"{score:.2%}" for score in scores)])
    return rows


def mistake_table(result, disputed: set[int]) -> list[list[str]]:
    """The ten worst mistakes; a star marks a label that reviewers judge wrong (`disputed`)."""
    rows = [["image", "predicted", "true", "probability"]]
    names = [shortened(name) for name in result.class_names]
    for answer in result.answers(result.mistakes[:10]):
        star = "*" if answer.number in disputed else ""
        rows.append([f"{answer.number}{star}", names[answer.predicted], names[answer.true],
                     f"{answer.probability:.1%}"])
    return rows


def frequent_mistakes(result, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (true, predicted, how often), at most `count`."""
    found = []
    for true, row in enumerate(result.confusion.tolist()):
        for predicted, often in enumerate(row):
            if often and true != predicted:
                found.append((true, predicted, often))
    return sorted(found, key=lambda mistake: -mistake[2])[:count]


def confusion_text(result) -> str:
    """The matrix, where a line of 80 characters holds its rows; else its most frequent mistakes."""
    confusion = result.confusion
    names = [shortened(name) for name in result.class_names]
    width = len(str(int(confusion.max())))
    rows = [["", *(name.rjust(width) for name in names)]]
    for name, counts in zip(names, confusion.tolist()):
        rows.append([name, *(str(count or ".") for count in counts)])
    matrix = aligned(rows)
    if matrix.index("\n") <= 80:
        return "rows: true, columns: predicted\n" + matrix
    rows = [[f"  {names[true]} read as {names[predicted]}", f"{often:,}"]
            for true, predicted, often in frequent_mistakes(result, 15)]
    return "most frequent mistakes\n" + (aligned(rows) if rows else "  none")


def text_report(figures: list[list[str]], result, disputed: set[int],
                others: tuple[int, int] | None = None) -> str:
    """All that the terminal shows. `figures` is `figure_table`'s; `others`: how many *others* there
    were, and how many of them were recognised."""
    parts = [aligned(figures), confusion_text(result), aligned(score_table(result))]
    if result.errors:
        parts.append("worst mistakes\n" + aligned(mistake_table(result, disputed)))
    if disputed & set(result.mistakes[:10]):
        parts[-1] += "\n* reviewers judge the label wrong"
    if others:
        count, recognised = others
        parts.append(f"others: {recognised:,} of {count:,} recognised ({recognised / count:.1%}), "
                     "candidates that are no\ndigits in pictures composed of validation images")
    return "\n\n".join(parts)


def figures_json(result) -> dict:
    """The figures that each model has, and all of them together."""
    return {"loss": result.loss, "accuracy": result.accuracy, "errors": result.errors,
            "calibration_error": result.calibration_error}


def as_json(names: list[str], nets: list, sizes: list[int], results: list,
            others: tuple[int, int] | None, options) -> str:
    """One object for the last of the results, which is of all models together; those of each are
    its "members". `others` as in `text_report`."""
    result = results[-1]
    members = [{"checkpoint": name, "model": net.name, "parameters": size, **figures_json(each)}
               for name, net, size, each in zip(names, nets, sizes, results)]
    scores = [dict(zip(("precision", "recall", "f1"), row)) for row in result.class_scores.tolist()]
    found = {"checkpoints": names, "parameters": sum(sizes), "split": options.split,
             "images": len(result.labels), **figures_json(result),
             "confusion": result.confusion.tolist(), "labels": result.class_names,
             "classes": scores, "mistakes": result.mistakes, "tta": options.tta,
             "members": members, "report": options.report}
    if others:
        count, recognised = others
        found["others"] = {"images": count, "recognised": recognised}
    return json.dumps(found, allow_nan=False)

"""What `train.py` prints of a run: a row for each epoch, the result, and that of several seeds."""
import statistics
from pathlib import Path

TABLE_HEAD = "epoch       lr  train loss  accuracy  val loss  accuracy      s  images/s"


def epoch_row(row: dict, seconds: float, count: int) -> str:
    """A row of the table: an epoch's row of the history, which took so many seconds for `count`
    images."""
    text = (f"{row['epoch']:>5}{row['lr']:>9.2g}{row['train_loss']:>12.4f}"
            f"{row['train_accuracy']:>10.2%}{row['val_loss']:>10.4f}{row['val_accuracy']:>10.2%}"
            f"{seconds:>7.1f}{count / max(seconds, 1e-9):>10,.0f}")
    if row["best"]:
        text += " *"
    return text


def result_text(result: dict, best_by: str, out: Path) -> str:
    """The figures of a run that has ended; without test images there is no test accuracy."""
    test = "there are no test images, so there is no test accuracy"
    if result["test_accuracy"] is not None:
        test = f"test accuracy {result['test_accuracy']:.2%}"
    return (f"best epoch {result['best_epoch']}, by validation {best_by}; validation "
            f"accuracy {result['val_accuracy']:.2%}, saved in {out}\n"
            f"{test}, {result['train_seconds']:.1f} s of training")


def seeds_text(results: list[dict]) -> str:
    """The mean and standard deviation over the seeds."""
    part = "test"
    if results[0]["test_accuracy"] is None:
        part = "val"
    accuracies = [result[f"{part}_accuracy"] for result in results]
    name = {"test": "test", "val": "validation"}[part]
    return (f"{len(results)} seeds: {name} accuracy {statistics.mean(accuracies):.2%} ± "
            f"{statistics.stdev(accuracies):.2%}")

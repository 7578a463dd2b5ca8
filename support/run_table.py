"""What `train.py` prints of a run: a row for each epoch, the result, and that of several seeds."""
import statistics
from contextlib import contextmanager

from support.command_line import say
from support.errors import require


def recipe_table(recipes: dict, count_parameters) -> str:
    """A row for each train.Recipe by name; `count_parameters` counts those of its network."""
    lines = ["recipe    parameters  epochs  batch      lr  schedule   about"]
    for name, recipe in recipes.items():
        lines.append(f"{name:<10}{count_parameters(recipe):>10,}{recipe.epochs:>8}"
                     f"{recipe.batch_size:>7}{recipe.lr:>8g}  {recipe.schedule:<11}{recipe.about}")
    return "\n".join(lines)


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


def result_text(result: dict, best_by: str) -> str:
    """The figures of a run that has ended; without test images there is no test accuracy."""
    saved = "no better than always answering the most frequent class: not saved"
    if result["checkpoint"] is not None:
        saved = f"saved in {result['checkpoint']}"
    test = "there are no test images, so there is no test accuracy"
    if result["test_accuracy"] is not None:
        test = f"test accuracy {result['test_accuracy']:.2%}"
    return (f"best epoch {result['best_epoch']}, by validation {best_by}; validation "
            f"accuracy {result['val_accuracy']:.2%}, {saved}\n"
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


def say_batches(size: int, images: int, given: bool, log) -> None:
    """Say that a batch has fewer images than it should, where there are no more. Raises UsageError
    if its size was given."""
    if size > images:
        require(not given, "--batch-size", f"at most the {images:,} training images", size)
        say(f"batches of {images:,} images: there are no more to train on", log)


@contextmanager
def saying_finished(results: list[dict]):
    """An interruption says which models are finished already."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        words = list(interruption.args)
        models = [result["checkpoint"] for result in results if result["checkpoint"]]
        if models:
            words.append(f"finished before it: {', '.join(models)}")
        raise KeyboardInterrupt(*words) from None

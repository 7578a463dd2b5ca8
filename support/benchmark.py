"""The table of speeds. It prints figures and judges nothing.

    python test_all.py --benchmark         all of it
    python -m support.benchmark            the page to draw on alone

Two well-known scripts are written out here to be compared with. Times of a machine that does other
work too mean little: what is compared runs in turn, and ratios are printed.
"""
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev

import evaluate
import idx_data
import model
import train
from support import machine
from support.command_line import Progress
from support.png import png_bytes
from support.test_canvas import ask, start
from support.test_tools import HERE, data_folder, picture, written

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROUNDS = 5


# --- What it is compared with ---------------------------------------------------------------------

def fast_script(digits: idx_data.Digits, seed: int) -> tuple[float, float]:
    """tuomaso/train_mnist_fast: one epoch at batch 256 in file order, Adam, one-cycle, float32.
    Returns seconds and test accuracy."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(24, 32, 3),
                        nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(800, 256), nn.ReLU(),
                        nn.Linear(256, 10))
    optimiser = torch.optim.Adam(net.parameters(), 0.01, betas=(0.7, 0.9))
    x = digits.train_images.unsqueeze(1).float().div(255).sub(0.1307).div(0.3081)
    y = digits.train_labels
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01,
                                                   total_steps=math.ceil(len(y) / 256))
    started = time.perf_counter()
    for images, labels in zip(x.split(256), y.split(256)):
        optimiser.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimiser.step()
        schedule.step()
    seconds = time.perf_counter() - started
    net.mean, net.std, net.classes = 0.1307, 0.3081, 10  # as a model.Network has them,
    net.labels = None  # and that the classes have no other names than their numbers
    return seconds, evaluate.evaluate(net, digits.test_images, digits.test_labels).accuracy


class PerItem(torch.utils.data.Dataset):
    """Images normalised one at a time, as the usual examples do it."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return ((self.images[i].float() / 255 - 0.1307) / 0.3081).unsqueeze(0), self.labels[i]


def loader_epoch(net: nn.Module, optimiser, digits: idx_data.Digits, batch_size: int) -> float:
    """An epoch through a DataLoader over per-item normalised images. Returns seconds."""
    loader = torch.utils.data.DataLoader(PerItem(digits.train_images, digits.train_labels),
                                         batch_size, shuffle=True)
    net.train()
    started = time.perf_counter()
    for images, labels in loader:
        optimiser.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimiser.step()
    return time.perf_counter() - started


def dropout_through_loader(digits: idx_data.Digits) -> float:
    """An epoch of the network of `dropout`, as such scripts train it. Returns seconds."""
    net = model.build("dropout").to(memory_format=torch.contiguous_format)
    return loader_epoch(net, torch.optim.Adam(net.parameters()), digits, 100)


def pytorch_example(digits: idx_data.Digits) -> float:
    """One epoch of pytorch/examples, mnist/main.py, of which four are compared. Returns seconds."""
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128),
                        nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
    return loader_epoch(net, torch.optim.Adadelta(net.parameters(), 1.0), digits, 64)


# --- Measuring ------------------------------------------------------------------------------------

def measured(command: list[str]) -> tuple:
    """Run a command that prints JSON; returns that and its peak resident memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True, cwd=HERE)
    output = process.stdout.read()
    usage = os.wait4(process.pid, 0)[2]
    return json.loads(output), usage.ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def alone(function, root: Path) -> float:
    """What a function of this file returns for the data set, in a process of its own, as such a
    script runs: keep_freed_memory, called in this one, would make it faster too."""
    code = ("import sys, idx_data, support.benchmark; "
            f"print(support.benchmark.{function.__name__}(idx_data.load_digits(sys.argv[1])))")
    return measured([sys.executable, "-c", code, str(root)])[0]


def spread(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def benchmark() -> None:
    """Print the speed of everything on this machine."""
    root = (data_folder() or HERE / "data").absolute()
    digits = idx_data.load_digits(root)
    machine.set_threads()
    machine.keep_freed_memory()
    precision, why = machine.pick_precision("auto", torch.device("cpu"))
    print(f"{torch.get_num_threads()} threads, {precision} ({why}), torch {torch.__version__}, "
          f"Python {sys.version.split()[0]}\n")
    # Not those that compose pictures first, which takes minutes.
    names = [name for name, recipe in train.RECIPES.items() if not recipe.composed]
    with tempfile.TemporaryDirectory() as folder, Progress(len(names), "recipes") as bar:
        rows = []
        for name in names:
            rows.append(speed_row(name, digits, root, folder))
            bar.show(len(rows))
    print("recipe     parameters        training       inference   peak memory")
    print("\n".join(rows) + "\n")
    with Progress(ROUNDS, "comparing") as bar:
        lines = comparisons(digits, root, bar)
    print("\n".join(lines))
    print(page_to_draw_on())


def epoch_of(name: str, root: Path, folder: str, *options: str) -> tuple[dict, float]:
    """An epoch of train.py by this recipe: its JSON, and its peak memory in MB."""
    return measured([sys.executable, "train.py", "--recipe", name, "--epochs", "1", "--data",
                     str(root), "--out", f"{folder}/a.pt", "--json", *options])


def speed_row(name: str, digits: idx_data.Digits, root: Path, folder: str) -> str:
    result, memory = epoch_of(name, root, folder)
    net = model.load(f"{folder}/a.pt")
    times = []
    for _ in range(3):
        started = time.perf_counter()
        evaluate.predict(net, digits.test_images)
        times.append(time.perf_counter() - started)
    trained = len(digits.train_labels) * (1 - train.RECIPES[name].val_fraction)
    return (f"{name:<10}{result['parameters']:>11,}{trained / result['train_seconds']:>10,.0f} "
            f"img/s{len(digits.test_labels) / median(times):>10,.0f} img/s{memory:>11,.0f} MB")


def comparisons(digits: idx_data.Digits, root: Path, bar: Progress) -> list[str]:
    """`quick` with two scripts, an epoch of `small` with one of its first network, and one of
    `dropout` with one through a DataLoader."""
    seconds, accuracy = defaultdict(list), defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(ROUNDS):
            run = train.start(train.RECIPES["quick"], digits, seed, "cpu")
            for _ in train.epochs(run):
                pass
            seconds["quick"] += run.seconds
            test = evaluate.evaluate(train.finish(run), digits.test_images, digits.test_labels)
            accuracy["quick"].append(test.accuracy)
            took, correct = fast_script(digits, seed)
            seconds["fast"].append(took)
            accuracy["fast"].append(correct)
            for name, models in (("small", model.MODELS), ("first", model.EARLIER[0])):
                recipe = replace(train.RECIPES["small"], epochs=1)
                net = model.build("small", models=models)
                run = train.start(recipe, digits, seed, "cpu", base=net)
                next(train.epochs(run))
                seconds[name] += run.seconds
            all_images = ("--val-fraction", "0.0001")
            result, _ = epoch_of("dropout", root, folder, *all_images)
            seconds["dropout"].append(result["train_seconds"])
            seconds["loader"].append(alone(dropout_through_loader, root))
            if seed < 2:  # it takes minutes
                seconds["example"].append(4 * alone(pytorch_example, root))
            bar.show(seed + 1)
    typical = {name: median(values) for name, values in seconds.items()}
    text = {name: spread(values) for name, values in seconds.items()}
    return [f"to 99%: quick                  {text['quick']}, test accuracy "
            f"{mean(accuracy['quick']):.2%} ± {stdev(accuracy['quick']):.2%} over {ROUNDS} seeds",
            f"to 99%: well-known fast script {text['fast']}, {mean(accuracy['fast']):.2%}; "
            f"quick takes 1/{typical['fast'] / typical['quick']:.1f}",
            f"PyTorch's example, 4 epochs    {text['example']}; "
            f"quick takes 1/{typical['example'] / typical['quick']:.0f}",
            f"small, one epoch               {text['small']}; of its first network "
            f"{text['first']}, {typical['small'] / typical['first']:.2f} of the time",
            f"dropout, one epoch             {text['dropout']}; through a DataLoader "
            f"{text['loader']}, {typical['loader'] / typical['dropout']:.1f} times as long"]


# --- The page to draw on --------------------------------------------------------------------------

READS = 1000


def drawings() -> list[bytes]:
    """What the page sends: PNG files of 320 × 240 pixels with numbers of one to four digits."""
    files = []
    for number in ("7", "42", "365", "2026", "0", "1", "18", "9"):
        ink = written(number, 90, 8, gap=10, margin=0)
        page = np.zeros((240, 320), np.float32)
        top, left = (240 - ink.shape[0]) // 2, (320 - ink.shape[1]) // 2
        page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
        files.append(png_bytes(picture(page)))
    return files


def resident(process: subprocess.Popen) -> float:
    """The memory that a process has, in MB; nan where the system does not say."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except OSError:
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def page_to_draw_on() -> str:
    """READS drawings, one after the other: what each took the server by its own account, and its
    memory after the first tenth of them and at the end."""
    files, times, memory = drawings(), [], []
    with tempfile.TemporaryDirectory() as folder, Progress(READS, "reading") as bar:
        process, url = start(folder)
        for i in range(READS):
            _, _, headers = ask(f"{url}read", "POST", files[i % len(files)])
            times.append(float(headers["Server-Timing"].split("dur=")[1]))
            if i + 1 in (READS // 10, READS):
                memory.append(resident(process))
            bar.show(i + 1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        usage = os.wait4(process.pid, 0)[2]
    computed = 1000 * (usage.ru_utime + usage.ru_stime) / READS
    slow = sorted(times)[READS * 95 // 100]
    return (f"page to draw on, {READS:,} reads   median {median(times):.0f} ms, 95% within "
            f"{slow:.0f} ms; {computed:.0f} ms of processor time each\n"
            f"its memory                     {memory[0]:.0f} MB after {READS // 10} reads, "
            f"{memory[1]:.0f} MB at the end")


if __name__ == "__main__":
    print(page_to_draw_on())

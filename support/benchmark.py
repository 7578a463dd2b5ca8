"""The table of speeds: python test_all.py --benchmark. It judges nothing."""
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import evaluate
import idx_data
import model
import train
from support import machine
from support.command_line import Progress
from support.test_tools import HERE, data_folder

import numpy as np
import torch
import torch.nn.functional as F


def well_known_fast_script(digits, seed) -> tuple[float, float]:
    """One epoch at batch 256 in file order, Adam, one-cycle, float32. Returns seconds, accuracy."""
    torch.manual_seed(seed)
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(24, 32, 3),
                        nn.MaxPool2d(2),
                        nn.ReLU(), nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10))
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
    net.mean, net.std = 0.1307, 0.3081
    return seconds, evaluate.evaluate(net, digits.test_images, digits.test_labels).accuracy


class PerItem(torch.utils.data.Dataset):
    """Images normalised one at a time, as the usual examples do it."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return ((self.images[i].float() / 255 - 0.1307) / 0.3081).unsqueeze(0), self.labels[i]


def loader_epoch(net, optimiser, digits, batch_size) -> float:
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


def dropout_through_loader(digits) -> float:
    """An epoch of the network of `dropout`, as such scripts train it. Returns seconds."""
    net = model.build("dropout").to(memory_format=torch.contiguous_format)
    return loader_epoch(net, torch.optim.Adam(net.parameters()), digits, 100)


def pytorch_example(digits) -> float:
    """One epoch of PyTorch's own MNIST example, of which four are compared. Returns seconds."""
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128),
                        nn.ReLU(), nn.Dropout(0.5),
                        nn.Linear(128, 10))
    return loader_epoch(net, torch.optim.Adadelta(net.parameters(), 1.0), digits, 64)


def measured(command: list[str]) -> tuple:
    """Run a command that prints JSON; returns that and its peak resident memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True, cwd=HERE)
    output = process.stdout.read()
    usage = os.wait4(process.pid, 0)[2]
    return json.loads(output), usage.ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def alone(function, root) -> float:
    """What a function of this file returns for the data set, in a process of its own, as such a
    script runs: keep_freed_memory, called in this one, would make it faster too."""
    code = ("import sys, idx_data, support.benchmark; "
            f"print(support.benchmark.{function.__name__}(idx_data.load_digits(sys.argv[1])))")
    return measured([sys.executable, "-c", code, str(root)])[0]


def spread(values, unit: str = "s") -> str:
    values, digits = (1000 * np.array(values), 0) if unit == "ms" else (values, 2)
    return (f"{np.median(values):.{digits}f} {unit} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f})")


def benchmark() -> None:
    """Print the speed of everything on this machine. It judges nothing."""
    root = Path(data_folder() or HERE / "data").absolute()
    digits = idx_data.load_digits(root)
    machine.set_threads()
    device = torch.device("cpu")
    dtype, why = machine.pick_precision("auto", device)
    rounds = 5
    bar = Progress(len(train.RECIPES) + 3 * rounds + 7, "benchmark")
    done = itertools.count(1)

    def tick(value):
        bar.show(next(done))
        return value

    def seconds(function):
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    machine.keep_freed_memory()
    lines = [f"{torch.get_num_threads()} threads, {dtype} ({why}), torch {torch.__version__}, "
             f"Python {sys.version.split()[0]}", ""]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in idx_data.FILES:
            shutil.copy(idx_data.find_files(Path(root))[name], folder / name)
        arrays = {name: idx_data.read_idx(folder / name) for name in idx_data.FILES}
        raw = [seconds(lambda: idx_data.load_digits(folder)) for _ in range(5)]
        for name, array in arrays.items():
            idx_data.write_idx(folder / "gz" / f"{name}.gz", array)
        packed = [seconds(lambda: idx_data.load_digits(folder / "gz")) for _ in range(5)]
        lines.append(f"loading the data set     {spread(raw, 'ms')} raw, "
                     f"{spread(packed, 'ms')} gzip")
        generator = torch.Generator().manual_seed(0)

        def epoch_of(name, *options):
            return measured([sys.executable, "train.py", "--recipe", name, "--epochs", "1",
                             "--data", str(root), "--out", str(folder / "a.pt"), "--json",
                             *options])

        def augment_all(ranges):
            for batch in digits.train_images.split(256):
                train.augment(batch, ranges, generator)
        lines += ["", f"{'recipe':<10}{'parameters':>11}{'augmenting':>12}{'training':>16}"
                      f"{'inference':>16}{'peak memory':>14}"]
        for name, recipe in train.RECIPES.items():
            result, memory = epoch_of(name)
            net = model.load(folder / "a.pt")
            times = [seconds(lambda net=net: evaluate.predict(net, digits.test_images))
                     for _ in range(3)]
            ranges = recipe.augment
            ready = "" if ranges == train.Augment() else \
                f"{np.median([seconds(lambda r=ranges: augment_all(r)) for _ in range(3)]):.2f} s"
            rate = 60_000 * (1 - recipe.val_fraction) / result["train_seconds"]
            lines.append(tick(f"{name:<10}{result['parameters']:>11,}{ready:>12}"
                              f"{rate:>10,.0f} img/s"
                              f"{10000 / np.median(times):>10,.0f} img/s{memory:>11,.0f} MB"))

        quick, fast, accuracy = [], [], []
        for seed in range(rounds):
            result = train.train(train.RECIPES["quick"], digits, seed, device, dtype,
                                 folder / "q.pt",
                                 {"settings": {}, "data": {}}, open(os.devnull, "w"))
            quick.append(tick(result["train_seconds"]))
            accuracy.append(result["test_accuracy"])
            fast.append(tick(well_known_fast_script(digits, seed)))
            tick(0)
        example = [tick(4 * alone(pytorch_example, root)) for _ in range(2)]
        ours, through_loader = [], []
        for _ in range(5):
            ours.append(epoch_of("dropout", "--val-fraction", "0.0001")[0]["train_seconds"])
            through_loader.append(tick(alone(dropout_through_loader, root)))
        bar.close()
        times = [t for t, _ in fast]
        lines += ["",
                  f"to 99%: quick                  {spread(quick)}, "
                  f"test accuracy {np.mean(accuracy):.2%} "
                  f"± {np.std(accuracy, ddof=1):.2%} over {rounds} seeds",
                  f"to 99%: well-known fast script {spread(times)}, "
                  f"{np.mean([a for _, a in fast]):.2%}; "
                  f"quick takes 1/{np.median(times) / np.median(quick):.1f}",
                  f"PyTorch's example, 4 epochs    {spread(example)}; quick takes "
                  f"1/{np.median(example) / np.median(quick):.0f}",
                  f"dropout, one epoch             {spread(ours)}; "
                  f"through a DataLoader {spread(through_loader)}, "
                  f"{np.median(through_loader) / np.median(ours):.1f} times as long"]
    print("\n".join(lines))

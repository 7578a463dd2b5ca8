"""A training run and its files, whatever happens to it.

While a run goes on, all of it lies in `model.pt.resume`, its best model too, and `model.pt` stays
what it was. When the run ends or is interrupted, its best model takes that name, and the one that
was there stays as `model.previous.pt`. `run` is a train.Run, `out` the checkpoint that it writes.
"""
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from support.checkpoint import (RESULT, check_training, check_type, fill, read_torch, save_torch,
                                unpack)
from support.command_line import say
from support.errors import FormatError, UsageError, in_file, is_out_of_memory
from support.files import check_writable, read_file, write_whole
from support.processes import by_the_first, rank, while_all_are_there

import torch

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt


def state_path(out: Path) -> Path:
    """Where the state of the run lies that writes the checkpoint `out`."""
    return Path(f"{out}.resume")


def previous_path(out: Path) -> Path:
    """Where the model is kept that was `out` before."""
    return out.with_name(f"{out.stem}.previous{out.suffix}")


def checkpoints(out: Path, seeds: range) -> dict[int, Path]:
    """The checkpoint of each seed: `out` or, of several, that with the seed added to its name.
    Raises UsageError if one of them, or a file beside it, cannot be written."""
    check_writable(out, "--out")
    if len(seeds) == 1:
        outs = {seeds[0]: out}
    else:
        outs = {seed: out.with_name(f"{out.stem}-{seed}{out.suffix}") for seed in seeds}
    for name in outs.values():
        for path in (name, state_path(name), previous_path(name)):
            check_writable(path, "--out")
    return outs


# --- One run at a time ----------------------------------------------------------------------------

@contextmanager
def only_run(outs: list[Path]):
    """Let no other run write any of these checkpoints meanwhile. Raises UsageError if one does.

    A lock is the system's, on a hidden file beside the checkpoint: when the run ends, be it killed,
    the lock is gone. Only a killed run leaves the file, empty, and the next one takes it away."""
    with ExitStack() as locks:
        for out in outs:
            if rank() == 0:  # of several processes the first one writes
                locks.enter_context(locked(out))
        yield


@contextmanager
def locked(out: Path):
    real = Path(os.path.realpath(out))  # a link names the same checkpoint
    path = real.with_name(f".{real.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = None
    while file is None:
        file = open(path, "ab")
        if not try_lock(file):
            file.close()
            raise UsageError(f"{out}: another training is writing it; wait for its end, "
                             "or give another --out")
        if not lies_at(path, file):  # the run before has just taken it away
            file.close()
            file = None
    try:
        yield
    finally:
        if os.name == "nt":  # there, an open file cannot be taken away
            file.close()
        with suppress(OSError):
            path.unlink()
        file.close()


def lies_at(path: Path, file) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def try_lock(file) -> bool:
    """Lock an open file until it is closed; False if another process has locked it."""
    try:
        if os.name == "nt":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # some network disks have no locks; the run need not fail for that
    return True


# --- Nothing to go on with ------------------------------------------------------------------------

def check_finite(losses: torch.Tensor, run) -> None:
    """Raise UsageError if a loss is infinite or NaN: from then on nothing can be learned."""
    bad = losses[~losses.isfinite()]
    if len(bad):
        raise UsageError(f"the loss became {bad[0].item()} in epoch {len(run.net.history) + 1}; "
                         f"try --lr {min(run.recipe.lr / 10, 0.01):.2g}")


# --- The model in its place -----------------------------------------------------------------------

def has_learned(run) -> bool:
    """Whether the best epoch is better than always answering the most frequent class, on the
    validation images. Without a mistake it is, even if they are all of one class."""
    best = [row for row in run.net.history if row["best"]][-1]
    share = run.val_labels.bincount().max().item() / len(run.val_labels)
    return best["val_accuracy"] > share or best["val_accuracy"] == 1


def put_in_place(run, out: Path, save) -> bool:
    """Write the run's network to `out`, by save(network, path); the model of another run that is
    there stays as `previous_path`. Returns False where nothing was learned: then all stays."""
    if not has_learned(run):
        return False
    if out.exists() and not is_same_run(made_by(out), run.net.run):
        previous = previous_path(out)
        with open(out, "rb") as former:  # a copy: at each instant there is a model
            write_whole(previous, lambda file: shutil.copyfileobj(former, file))
        say(f"{previous} is the model that was {out} before", sys.stderr)
    save(run.net, out)
    return True


def made_by(path: Path) -> dict:
    """What the run says of itself whose model, or whose state, lies in a file; {} if none does."""
    try:
        made = read_torch(path).get("run")
        check_type("'run'", made, dict)
        check_training([], made)
    except (FormatError, FileNotFoundError):
        return {}
    return made


# --- Which run it was -----------------------------------------------------------------------------

def differences(made: dict, wanted: dict) -> list[str]:
    """In which settings two runs differ, in words. They are compared as text, for what a file says
    of a run may be anything."""
    now = wanted.get("settings", {})
    # Older files lack these.
    older = {"processes": 1, "val_count": now.get("val_count"), "precise_bn": False}
    before = {**older, **made.get("settings", {})}
    found = []
    for key in now:
        if str(before.get(key)) != str(now[key]):
            found.append(f"{key} {before.get(key)}, now {now[key]}")
            if key == "threads":
                found[-1] += f" (OMP_NUM_THREADS={before.get(key)} sets it)"
            if key == "processes":
                found[-1] += " (torchrun sets it)"
    if str(made.get("data")) != str(wanted.get("data")):
        found.append("other data")
    return found


def is_same_run(made: dict, other: dict) -> bool:
    """Whether what is said of two runs is said of one: it started in the same second, too."""
    return str(made.get("started")) == str(other.get("started")) and not differences(made, other)


def check_same_run(made: dict, wanted: dict) -> None:
    """Raise UsageError with the differences if a run had other settings or other data, FormatError
    if it is no run at all."""
    if not isinstance(made, dict) or not isinstance(made.get("settings"), dict):
        raise FormatError("expected the state of an interrupted run, found other data")
    found = differences(made, wanted)
    if found:
        raise UsageError(f"--resume: the earlier run had {'; '.join(found)}: give the same "
                         "settings, or train anew without --resume")


@by_the_first
def finished(out: Path, wanted: dict, begun: bool) -> dict | None:
    """For --resume: the figures of the run that is wanted, if its model lies in `out` and it has
    reached its end; None if there is something left to train. Raises UsageError if the model is of
    another run, and no interrupted one lies beside it; but not if an earlier seed was trained so
    (`begun`): then it is the model that this run is to replace."""
    state = state_path(out)
    made = made_by(out)
    if not made or state.exists() and not is_same_run(made_by(state), made):
        return None
    if not state.exists() and not begun:
        check_same_run(made, wanted)
    figures = made.get("result", {})
    if differences(made, wanted) or not RESULT.keys() <= figures.keys():
        return None
    say(f"{out}: this run has reached its end already", sys.stderr)
    state.unlink(missing_ok=True)  # killed just before it was removed
    return {**{name: figures[name] for name in RESULT}, "checkpoint": str(out)}


# --- An interrupted run ---------------------------------------------------------------------------

def snapshot(run) -> dict:
    """All that going on with a run needs: weights, the best ones, optimiser, random generators,
    early stopping, and the history so far. The schedule is a function of the step."""
    random = {"generator": run.generator.get_state(), "torch": torch.get_rng_state()}
    if run.generator.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(run.generator.device)
    return {"weights": run.net.state_dict(), "best": run.best, "random": random,
            "optimiser": run.optimiser.state_dict(), "stopping": asdict(run.stopping),
            "history": run.net.history, "seconds": run.seconds, "run": run.net.run}


@by_the_first
def keep_state(run, out: Path) -> None:
    """After an epoch: write all that going on with the run needs."""
    save_torch(snapshot(run), state_path(out))


def begin(run, out: Path, resuming: bool) -> None:
    """Before the first epoch: put back the state of an interrupted run, if that is wanted and there
    is one, and say what becomes of it if not."""
    path = state_path(out)
    if resuming and by_the_first(path.exists)():
        resume(run, path)
    elif resuming:
        say(f"there is no {path} to go on from: training from the start", sys.stderr)
    elif path.exists():
        say(f"{path} holds an interrupted run; --resume would have gone on with it", sys.stderr)
    elif out.exists():
        say(f"{out} is there already; at its end, this run replaces it and keeps it as "
            f"{previous_path(out)}", sys.stderr)


def resume(run, path: Path) -> None:
    """Put everything back as `snapshot` found it. Raises FormatError for a file that holds no such
    state, UsageError for the state of a run with other settings or other data."""
    advice = "; train anew without --resume"
    data = by_the_first(read_file)(path)
    with in_file(path, advice):
        state = unpack(data)
        check_same_run(state.get("run"), run.net.run)
        try:
            restore(run, state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError,
                IndexError) as error:
            raise FormatError("expected the state of an interrupted run of this recipe, found "
                              f"another ({error})") from None


def restore(run, state: dict) -> None:
    """`resume` for a state that may be anything: it raises what comes."""
    fill(run.net, state["best"])
    run.best = state["best"]
    fill(run.net, state["weights"])
    own_settings = {"param_groups": run.optimiser.state_dict()["param_groups"]}
    run.optimiser.load_state_dict({**state["optimiser"], **own_settings})
    for weights in run.net.parameters():  # the fused optimiser trusts the shapes
        of_one = run.optimiser.state[weights]
        shapes = [of_one[name].shape for name in ("exp_avg", "exp_avg_sq", "step")]
        if shapes != [weights.shape, weights.shape, torch.Size()]:
            raise ValueError("a shape of the optimiser's")
    run.generator.set_state(state["random"]["generator"])
    torch.set_rng_state(state["random"]["torch"])
    if run.generator.device.type == "cuda":
        torch.cuda.set_rng_state(state["random"]["cuda"], run.generator.device)
    first, second = state["stopping"]["best"]
    run.stopping.best = (float(first), float(second))
    run.stopping.waited = int(state["stopping"]["waited"])
    check_training(state["history"], state["run"])
    if not any(row["best"] is True for row in state["history"]):
        raise ValueError("a history without a best epoch")
    run.seconds = [float(seconds) for seconds in state["seconds"]]
    run.net.history = list(state["history"])
    run.net.run = state["run"]


@contextmanager
def until_the_end(run, out: Path, resuming: bool, save):
    """Go on with an interrupted run, if that is wanted; an interruption of this one puts the best
    model so far in its place, by save(network, path), and says how to go on; a lack of memory says
    which batch size to try."""
    begin(run, out, resuming)
    try:
        with while_all_are_there():
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(keep_best(run, out, save)) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = run.recipe.batch_size
        raise UsageError(f"{run.labels.device} ran out of memory at a batch of {size} images; "
                         f"try --batch-size {max(1, size // 2)}") from None


@by_the_first
def end(run, out: Path, save) -> str | None:
    """Put the model of a run that is over in its place, by save(network, path). Returns the place,
    None if nothing was learned."""
    saved = put_in_place(run, out, save)
    state_path(out).unlink()
    return str(out) if saved else None


def keep_best(run, out: Path, save) -> str:
    """Put the best model so far in its place, and say what became of it. It is the one that is in
    the saved state: what is in memory may be in the middle of a step."""
    if rank() > 0:
        return ""  # the first process says it
    path = state_path(out)
    if not is_same_run(made_by(path), run.net.run):  # there may be that of an older run
        return "no epoch was finished, so nothing was saved"
    state = read_torch(path)
    fill(run.net, state["best"])
    run.net.history, run.net.run = state["history"], state["run"]
    became = f"the best model so far is in {out}"
    if not put_in_place(run, out, save):
        became = ("the best model so far is no better than always answering the most frequent "
                  f"class, so {out} was left alone")
    return f"{became}; go on with the same command and --resume"

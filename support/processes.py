"""Several processes that train one network together, as torchrun starts them.

    torchrun --nproc-per-node 4 train.py --recipe small

Each has the same weights and the same order of the images. Of each batch it takes its share, and
before each step the gradients are averaged over the processes, so that all weights move alike. The
first process prints and writes the files. Without torchrun there is one process, and the functions
here give back what they are given. docs/scaling.md says what to expect of it.
"""
import functools
import hashlib
import os
import signal
import sys
import warnings
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta

from support.errors import UsageError

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def joined() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized()


def count() -> int:
    """How many processes train together."""
    if not joined():
        return 1
    return dist.get_world_size()


def rank() -> int:
    """This process's number, from 0."""
    if not joined():
        return 0
    return dist.get_rank()


def count_here() -> int:
    """How many of them torchrun has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


# --- What a training step needs -------------------------------------------------------------------

def share(batch: torch.Tensor) -> tuple[torch.Tensor, float]:
    """This process's part of a batch (B, ...), and what the mean over that part must be multiplied
    by: the mean over the processes is then the mean over the batch, even if the parts are not
    equal. Where there is nothing left for a process it gets one row, with the weight 0."""
    if count() == 1:
        return batch, 1.0
    part = batch[rank() :: count()]
    weight = len(part) * count() / len(batch)
    if len(part) == 0:
        part = batch[:1]
    return part, weight


def averaging(net: torch.nn.Module) -> torch.nn.Module:
    """The network, in a wrapper that averages the gradients over the processes while `backward`
    computes them. The weights of the first process become those of all."""
    if count() == 1:
        return net
    with warnings.catch_warnings():  # torch 2.13 has a new name for it, which 2.6 does not know
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(net, broadcast_buffers=False)  # average_buffers is enough


def averaged(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes, on the CPU."""
    tensor = tensor.cpu()
    if count() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        tensor /= count()
    return tensor


def average_buffers(net: torch.nn.Module) -> None:
    """After an epoch: the running means and variances of batch normalisation, which each process
    has from its own share of the images, become their means over the processes."""
    if count() > 1:
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.copy_(averaged(buffer))


@contextmanager
def own_random_numbers(generator: torch.Generator):
    """Meanwhile, each process draws random numbers of its own, from `generator` for augmentation
    and from torch's for dropout. Afterwards `generator` goes on alike in all."""
    if count() == 1:
        yield
        return
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item() + rank()
    alike = generator.get_state()
    generator.manual_seed(seed)
    torch.manual_seed(seed)
    yield
    generator.set_state(alike)


# --- What a run needs -----------------------------------------------------------------------------

def own_device(device: torch.device) -> torch.device:
    """The device that this process computes on: of several GPUs, each process has one. Raises
    UsageError where there are fewer."""
    if count() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise UsageError(f"--device {device}: several processes compute on cpu or on cuda, "
                         "where each has a GPU of its own")
    found, wanted = torch.cuda.device_count(), count_here()
    if found < wanted:
        raise UsageError(f"{wanted} processes on this machine need as many GPUs, found {found}; "
                         f"say torchrun --nproc-per-node {found}, or --device cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def in_turn(function):
    """function(), in the first process of each machine before the others: it may download what
    they then find."""
    if count() == 1:
        return function()
    first = os.environ["LOCAL_RANK"] == "0"
    if first:
        result = function()
    dist.all_reduce(torch.zeros(1))  # all wait for each other here
    if not first:
        result = function()
    return result


def by_the_first(function):
    """A function that the first process calls, for it reads or writes files; all get its result."""
    @functools.wraps(function)
    def for_all(*arguments):
        result = [None]
        if rank() == 0:
            result = [function(*arguments)]
        if count() > 1:
            dist.broadcast_object_list(result, device=torch.device("cpu"))
        return result[0]
    return for_all


def threads_text() -> str:
    """How many threads compute, in words."""
    text = f"{torch.get_num_threads()} threads"
    if count() > 1:
        text = f"{count()} processes with {text} each"
    return text


def command() -> str:
    """How a script is started with as many processes as now."""
    if count() == 1:
        return "python"
    text = "torchrun"
    if count_here() < count():
        text += f" --nnodes {count() // count_here()}"
    return f"{text} --nproc-per-node {count_here()}"


# --- Starting and ending together -----------------------------------------------------------------

# Processes on one machine meet in seconds; on many, the last may come much later.
PATIENCE = timedelta(minutes=10)
store = None  # numbers with names, which torchrun keeps: all processes can read and change them


def together(main):
    """main(arguments) -> exit status for a script that torchrun may have started several times. The
    first process speaks; the others only say errors that nobody else has said. When one ends too
    early, it is for the others as if they were interrupted."""
    def of_each(arguments: list[str]) -> int:
        if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
            return main(arguments)
        join()
        heed_signals_once()
        try:
            with speaking_alone():
                status = main(arguments)
        except Exception as error:
            if is_lost(error):
                end_as_the_others()
            if not says_first(str(error)):
                sys.exit(2)
            raise
        dist.destroy_process_group()
        # All is written. To leave at once spares torch's threads the end of Python, during which
        # they were seen to abort the process ("terminate called without an active exception").
        os._exit(status)
    return of_each


def join() -> None:
    """Meet the other processes. Raises UsageError where they don't come."""
    global store
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, number, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, store=store, rank=number, world_size=size)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).split("\n")[0]
        raise UsageError(f"the processes of torchrun did not find each other ({first_line}); see "
                         "docs/scaling.md") from None


@contextmanager
def speaking_alone():
    """The standard streams of all processes but the first lead nowhere."""
    with ExitStack() as streams:
        if rank() > 0:
            nowhere = streams.enter_context(open(os.devnull, "w"))
            streams.enter_context(redirect_stdout(nowhere))
            streams.enter_context(redirect_stderr(nowhere))
        yield


def says_first(message: str) -> bool:
    """Whether no other process has said this error yet: a wrong flag is wrong in all of them."""
    try:
        store.add("errors", 1)
        return store.add(hashlib.sha256(message.encode()).hexdigest(), 1) == 1
    except RuntimeError:  # torchrun has gone
        return True


def signals() -> list[int]:
    """Those that end a program politely."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def heed_signals_once() -> None:
    """The first signal to end is a Ctrl-C, the next ones are ignored: torchrun sends several, while
    the best model is being written."""
    for number in signals():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end_as_the_others)


def end_as_the_others(*_) -> None:
    """End in silence if another process has said an error, or is to say that it was interrupted;
    for the first process it is a Ctrl-C."""
    for number in signals():
        signal.signal(number, signal.SIG_IGN)
    try:
        errors = store.add("errors", 0)
    except RuntimeError:  # torchrun has gone
        errors = 0
    if errors:
        sys.exit(2)
    if rank() > 0:
        sys.exit(130)
    raise KeyboardInterrupt


def is_lost(error: Exception) -> bool:
    """Whether an error means that another process has ended."""
    kinds = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextmanager
def while_all_are_there():
    """If another process ends meanwhile, it is as if Ctrl-C were pressed: the best model so far is
    kept."""
    try:
        yield
    except RuntimeError as error:
        if is_lost(error):
            end_as_the_others()
        raise

"""A training step on an NVIDIA GPU, recorded once and then replayed (a CUDA graph).

A step of a small network is some hundred kernels, each of a few microseconds. The GPU is done with
one before Python has asked for the next, and waits most of the time. A graph is all of them, asked
for at once. What is recorded is fixed, the same kernels on the same memory, so all that differs
between two steps has to lie in tensors that stay where they are: the numbers of the images, the
learning rate, the state of the random generator, the weights. Source: "CUDA Graphs", in the notes
of PyTorch's documentation.
"""
from support.errors import UsageError, is_out_of_memory
from support.processes import count

import torch

# Steps that run as they are before the recording: libraries choose their kernels and take their
# memory in the first ones. PyTorch's documentation has three.
WARM_UP = 3


def recorded(step, images, wanted: bool):
    """step(run, batch), recorded if that is wanted and possible: on CUDA, with all images on the
    GPU, by one process (several wait for each other within a step)."""
    if wanted and can_be_recorded(images):
        torch.cuda.set_device(images.device)  # streams and graphs are of the current one
        return Captured(step)
    return step


def can_be_recorded(images) -> bool:
    return isinstance(images, torch.Tensor) and images.device.type == "cuda" and count() == 1


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """In its place, where it is a tensor that a recorded step reads."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class Captured:
    """step(run, batch) of one run, recorded as a graph. The batch (B,) int64 is copied to where the
    graph reads it, and the tensors that come back are overwritten by the next step. A batch of
    another size than the first, as the last of an epoch may be, runs as it is."""

    def __init__(self, step):
        self.step = step
        self.batch = None  # where the graph reads it
        self.left = WARM_UP
        self.graph = None

    def __call__(self, run, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.batch is None:
            self.prepare(run.optimiser, batch)
        if batch.shape != self.batch.shape:
            return self.step(run, batch)
        self.batch.copy_(batch)
        if self.left > 0:
            self.left -= 1
            return self.warm_up(run)
        if self.graph is None:
            self.graph = self.record(run)
        self.graph.replay()
        return self.results

    def prepare(self, optimiser: torch.optim.Optimizer, batch: torch.Tensor) -> None:
        """Give the batch and the learning rate places of their own; tell the optimiser, which else
        would refuse to be recorded."""
        self.batch = batch.clone()
        for group in optimiser.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=batch.device)
            group["capturable"] = True

    def warm_up(self, run) -> tuple[torch.Tensor, ...]:
        """A step as it is, but in a stream of its own, as it will be recorded."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results = self.step(run, self.batch)
        torch.cuda.current_stream().wait_stream(stream)
        return results

    def record(self, run) -> "torch.cuda.CUDAGraph":
        """Record a step; nothing is computed yet. Raises UsageError if it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(run.generator)  # torch's own, for dropout, is known to it
        try:
            with torch.cuda.graph(graph):
                self.results = self.step(run, self.batch)
        except RuntimeError as error:
            cause = error.__context__ or error  # to end a spoilt recording is an error, too
            if is_out_of_memory(cause):
                raise cause
            first_line = str(cause).split("\n")[0]
            raise UsageError(f"the training step cannot be recorded as a CUDA graph ({first_line});"
                             " say --no-graph") from None
        return graph

"""Networks as they were in earlier versions of the project, whose checkpoints are still read."""
from torch import nn


def earlier_networks(block, separable, head) -> list[dict]:
    """For each version, the newest last, the networks that have changed since: name -> builder, as
    in model.MODELS. `block`, `separable` and `head` are model.py's."""
    return [first_networks(block, head), *later_networks(block, separable, head)]


def first_networks(block, head) -> dict:
    """Those of the first version: their separable convolutions had ReLU and maxima."""
    def separable(channels: int, wider: int, padding: int = 0, pool: bool = False) -> list:
        each_by_itself = nn.Conv2d(channels, channels, 3, padding=padding, groups=channels,
                                   bias=False)
        return [each_by_itself, *block(channels, wider, kernel=1, pool=pool)]

    def small(classes: int) -> list[nn.Module]:
        return [*block(1, 16, padding=1), *block(16, 16, padding=1, pool=True),
                *block(16, 24, padding=1), *block(24, 32, padding=1, pool=True),
                *block(32, 32), *head(32, 5, classes)]

    def tiny10k(classes: int) -> list[nn.Module]:
        return [*block(1, 8), *block(8, 16, pool=True), *separable(16, 32, padding=1),
                *separable(32, 48, pool=True), *separable(48, 64, padding=1), *head(64, 5, classes)]

    def tiny5k(classes: int) -> list[nn.Module]:
        return [*block(1, 16, kernel=5, pool=True), *separable(16, 24, padding=1),
                *separable(24, 32, pool=True), *separable(32, 36, padding=1), *head(36, 5, classes)]

    def tiny2k(classes: int) -> list[nn.Module]:
        return [*block(1, 8, kernel=5, pool=True), *separable(8, 16), *separable(16, 20, pool=True),
                *separable(20, 20), *head(20, 2, classes)]

    def quick(classes: int) -> list[nn.Module]:
        return [*block(1, 16, kernel=5, stride=2), *block(16, 32, pool=True), nn.Flatten(),
                nn.Linear(800, 128, bias=False), nn.LayerNorm(128), nn.ReLU(),
                nn.Linear(128, classes)]

    return {"small": small, "tiny10k": tiny10k, "tiny5k": tiny5k, "tiny2k": tiny2k, "quick": quick}


def later_networks(block, separable, head) -> list[dict]:
    """Those that changed once more, in the order of their changes."""
    def second_small(classes: int) -> list[nn.Module]:
        return [*block(1, 16, kernel=5, padding=2, pool=True), *block(16, 24, padding=1),
                *block(24, 32, padding=1, pool=True), *block(32, 40), *head(40, 5, classes)]

    def quick(classes: int) -> list[nn.Module]:
        return [*block(1, 16, kernel=5, stride=2), *block(16, 16, pool=True), nn.Flatten(),
                nn.Linear(400, 128, bias=False), nn.LayerNorm(128), nn.ReLU(),
                nn.Linear(128, classes)]

    def accurate(classes: int) -> list[nn.Module]:
        return [*block(1, 24), *block(24, 32, pool=True), *block(32, 64), *block(64, 64, pool=True),
                *block(64, 128), *head(128, 2, classes)]

    def tiny5k(classes: int) -> list[nn.Module]:
        return [*block(1, 16, kernel=5, pool=True), *separable(16, 24, padding=1),
                *separable(24, 32, pool=True), *separable(32, 38, padding=1), *head(38, 5, classes)]

    def tiny2k(classes: int) -> list[nn.Module]:
        return [*block(1, 8, kernel=5, pool=True), *separable(8, 16), *separable(16, 20, pool=True),
                *separable(20, 22), *head(22, 2, classes)]

    def tiny10k(classes: int) -> list[nn.Module]:
        return [*block(1, 16, kernel=5, pool=True), *separable(16, 40, padding=1),
                *separable(40, 48, pool=True), *separable(48, 64, padding=1), *head(64, 5, classes)]

    def third_small(classes: int) -> list[nn.Module]:
        silu = nn.SiLU
        return [*block(1, 16, kernel=5, pool=True, activation=silu),
                *block(16, 32, activation=silu), *block(32, 32, pool=True, activation=silu),
                *block(32, 32, padding=1, activation=silu), *head(32, 4, classes)]

    return [{"small": second_small, "quick": quick}, {"accurate": accurate}, {"tiny5k": tiny5k},
            {"tiny2k": tiny2k, "tiny10k": tiny10k}, {"small": third_small}]

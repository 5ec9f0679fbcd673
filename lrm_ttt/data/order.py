"""Which scene comes when: a pure function of a seed and of the number of a batch, so that one integer is all the state
that a run must keep, on whatever number of processes it goes on.
"""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

# A mixture deals its shares in blocks of so many batches, so they hold over any stretch of training.
BLOCK = 1000
# Groups (shards) whose scenes are shuffled together: as many are open at a time.
POOL = 8


class SceneOrder:
    """Visit the scenes of a data set: each once an epoch, in an order that `key` decides.

    `groups` are the sizes of runs of consecutive scenes that lie together. Each epoch shuffles the groups, takes
    `POOL` of them at a time, and shuffles the scenes of those, so a disc or a network reads few files at once.
    """

    def __init__(self, groups: Sequence[int], *key: int) -> None:
        assert sum(groups) > 0, "an empty data set has no order"
        self.sizes = np.asarray(groups, dtype=np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.num_scenes = int(self.sizes.sum())
        self.key = key
        self._epoch = functools.lru_cache(2)(self._shuffled_groups)
        self._pool = functools.lru_cache(4)(self._shuffled_pool)

    def scene(self, visit: int) -> int:
        """Return the index of the scene that is visited after `visit` others."""
        epoch, place = divmod(visit, self.num_scenes)
        _, ends = self._epoch(epoch)
        pool = int(np.searchsorted(ends, place, side="right"))
        before = int(ends[pool - 1]) if pool else 0
        return int(self._pool(epoch, pool)[place - before])

    def _shuffled_groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the groups in this epoch's order, and the number of scenes up to the end of each pool."""
        order = shuffled(len(self.sizes), *self.key, epoch)
        ends = np.cumsum(self.sizes[order])
        return order, np.append(ends[POOL - 1 : -1 : POOL], ends[-1])

    def _shuffled_pool(self, epoch: int, pool: int) -> np.ndarray:
        order, _ = self._epoch(epoch)
        groups = order[pool * POOL : (pool + 1) * POOL]
        scenes = np.concatenate([self.starts[group] + np.arange(self.sizes[group]) for group in groups])
        return scenes[shuffled(len(scenes), *self.key, epoch, pool)]


class MixtureOrder:
    """Deal batches out to data sets by weight, and scenes to the batches of each.

    Every `BLOCK` batches hold each data set in exact proportion to its weight (by largest remainders, and once at
    least). A data set's own batches are counted, so that its epochs are exact too. `groups` has an entry for each data
    set; one without scenes (procedural ones have no number) gets batches alone.
    """

    def __init__(self, groups: Sequence[Sequence[int]], weights: Sequence[float], *key: int) -> None:
        self.slots = np.repeat(np.arange(len(weights)), deal(weights, BLOCK))
        self.orders = [SceneOrder(sizes, *key, index) if sizes else None for index, sizes in enumerate(groups)]
        self.key = key
        self._block = functools.lru_cache(2)(self._shuffled_block)

    def place(self, number: int) -> tuple[int, int]:
        """Return which data set batch `number` is drawn from, and how many of its batches came before."""
        block, slot = divmod(number, BLOCK)
        slots = self._block(block)
        source = int(slots[slot])
        return source, block * int((self.slots == source).sum()) + int((slots[:slot] == source).sum())

    def scenes(self, number: int, batch_size: int) -> tuple[int, tuple[int, ...]]:
        """Return the data set of batch `number` and the indices of its scenes there (none where it has no numbers).

        Batches must all have the same size for every scene to come once an epoch.
        """
        source, before = self.place(number)
        order = self.orders[source]
        visits = range(before * batch_size, (before + 1) * batch_size) if order else range(0)
        return source, tuple(order.scene(visit) for visit in visits) if order else ()

    def _shuffled_block(self, block: int) -> np.ndarray:
        return self.slots[shuffled(BLOCK, *self.key, block)]


def replacement(index: int, num_scenes: int, *key: int) -> int:
    """Return another scene of the same data set than the broken one at `index`, wherever it lies, as `key` decides."""
    if num_scenes == 1:
        return index
    return (index + 1 + int(_random(1, *key)[0]) % (num_scenes - 1)) % num_scenes


def deal(weights: Sequence[float], slots: int) -> list[int]:
    """Share `slots` out in proportion to `weights`, each at least one, by largest remainders."""
    assert 0 < len(weights) <= slots
    exact = [slots * weight / sum(weights) for weight in weights]
    dealt = [max(1, int(share)) for share in exact]
    while sum(dealt) != slots:
        step = 1 if sum(dealt) < slots else -1
        dealt[max(range(len(exact)), key=lambda index: step * (exact[index] - dealt[index]))] += step
    return dealt


def shuffled(count: int, *key: int) -> np.ndarray:
    """Return the numbers below `count` in an order that `key` decides, the same with every version of numpy."""
    return np.argsort(_random(count, *key), kind="stable")


def _random(count: int, *key: int) -> np.ndarray:
    """Return uniform 64-bit numbers. Bit generators keep their numbers over versions of numpy, which `shuffle` does
    not."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(count)

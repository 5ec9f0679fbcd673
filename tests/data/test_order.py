"""Which scene comes when."""

from collections import Counter

import numpy as np
import pytest

from lrm_ttt.data.order import BLOCK, POOL, MixtureOrder, SceneOrder, deal, replacement, shuffled

UNEVEN = tuple(1 + 7 * index % 11 for index in range(37))


@pytest.mark.parametrize("groups", [(12,), (1,) * 50, UNEVEN, (0, 3, 0, 5), (4,) * (2 * POOL)], ids=len)
def test_an_epoch_visits_each_scene_once(groups: tuple[int, ...]) -> None:
    size = sum(groups)
    order = SceneOrder(groups, 3)
    epochs = [[order.scene(epoch * size + place) for place in range(size)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_follows_from_the_number_alone() -> None:
    """Any visit can be asked for first, by anybody: this is why one integer resumes a run."""
    size = sum(UNEVEN)
    forwards = [SceneOrder(UNEVEN, 5).scene(visit) for visit in range(2 * size)]
    order = SceneOrder(UNEVEN, 5)
    assert [order.scene(visit) for visit in reversed(range(2 * size))] == forwards[::-1]
    assert [SceneOrder(UNEVEN, 6).scene(visit) for visit in range(2 * size)] != forwards


def test_few_groups_are_open_at_once() -> None:
    """All scenes of `POOL` groups come before any scene of others."""
    group_of = np.repeat(np.arange(len(UNEVEN)), UNEVEN)
    order, size = SceneOrder(UNEVEN, 1), sum(UNEVEN)
    groups = [int(group_of[order.scene(visit)]) for visit in range(size)]
    seen: list[set[int]] = [set()]
    for group in groups:
        if group not in seen[-1] and len(seen[-1]) == POOL:
            seen.append(set())
        seen[-1].add(group)
    assert len(seen) == -(-len(UNEVEN) // POOL)
    assert sum(map(len, seen)) == len(UNEVEN) == len(set.union(*seen))


def test_every_scene_may_come_at_any_place() -> None:
    """The mean place of a scene over many seeds is the middle. 6 sigma of a mean of 400 uniform places is 0.0866."""
    places = np.zeros(20)
    for seed in range(400):
        order = SceneOrder((5, 1, 10, 4), seed)
        places[[order.scene(visit) for visit in range(20)]] += (np.arange(20) + 0.5) / 20 / 400
    assert np.abs(places - 0.5).max() < 0.0866


def test_shares_are_exact_in_every_block() -> None:
    weights = (1.0, 0.5, 0.1234, 0.0001)
    order = MixtureOrder([(10,), (20,), (), (3,)], weights, 0, 0)
    dealt = deal(weights, BLOCK)
    assert sum(dealt) == BLOCK and dealt[3] == 1
    assert all(abs(count - BLOCK * weight / sum(weights)) <= 1 for count, weight in zip(dealt, weights, strict=True))
    for block in range(3):
        sources = [order.place(number)[0] for number in range(block * BLOCK, (block + 1) * BLOCK)]
        assert [sources.count(source) for source in range(4)] == dealt


def test_a_data_set_counts_its_own_batches() -> None:
    order = MixtureOrder([(10,), (), (7,)], (2.0, 1.0, 3.0), 0, 4)
    counted: Counter[int] = Counter()
    for number in range(2 * BLOCK + 100):
        source, before = order.place(number)
        assert before == counted[source]
        counted[source] += 1


def test_epochs_are_exact_within_a_mixture() -> None:
    sizes = ((5, 6), (), (4,) * 5)
    order = MixtureOrder(sizes, (0.3, 0.2, 0.5), 7, 0)
    visits: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number in range(200):
        source, scenes = order.scenes(number, 3)
        assert len(scenes) == (0 if source == 1 else 3)
        visits[source] += scenes
    for source in (0, 2):
        size, seen = sum(sizes[source]), visits[source]
        whole = len(seen) // size
        assert whole >= 4
        assert all(sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size)) for epoch in range(whole))


def test_view_groups_share_the_scenes_out() -> None:
    """Group g of n draws batches g, g + n, ...: together the same as a single process draws, whatever n is."""

    def drawn(num_groups: int) -> list[tuple[int, tuple[int, ...]]]:
        orders = [MixtureOrder([UNEVEN, (9,)], (3.0, 1.0), 2, 0) for _ in range(num_groups)]
        return [orders[number % num_groups].scenes(number, 2) for number in range(120)]

    assert drawn(1) == drawn(2) == drawn(8)


def test_another_seed_or_stage_is_another_order() -> None:
    def first(*key: int) -> list[tuple[int, tuple[int, ...]]]:
        order = MixtureOrder([UNEVEN, (9,)], (3.0, 1.0), *key)
        return [order.scenes(number, 2) for number in range(30)]

    assert len({tuple(first(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    assert first(0, 1) == first(0, 1)


def test_a_replacement_is_any_other_scene() -> None:
    found = Counter(replacement(4, 10, attempt) for attempt in range(9000))
    assert set(found) == set(range(10)) - {4}
    # 6 sigma of a binomial count about 1000.
    assert all(abs(count - 1000) < 180 for count in found.values())
    assert replacement(0, 1, 5) == 0


def test_the_shuffle_keeps_its_numbers() -> None:
    """A run that is resumed with newer packages must go on with the order that it began with."""
    assert shuffled(10, 1, 2, 3).tolist() == [6, 8, 5, 2, 4, 1, 7, 3, 0, 9]

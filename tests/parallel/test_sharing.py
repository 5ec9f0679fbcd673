"""How views are shared out: each belongs to one rank, evenly, chunk by chunk."""

import pytest
import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.parallel.sharing import Sharing, share_views
from lrm_ttt.parallel.view_group import ALONE, ViewGroup, make_view_groups


def sharing(num_views: int, size: int, step: int | None = None, rank: int = 0) -> Sharing:
    return share_views(num_views, ViewGroup(rank, size), step)


@pytest.mark.parametrize("step", [None, 2, 4, 6])
@pytest.mark.parametrize("size", [1, 2])
def test_every_view_belongs_to_one_rank_and_every_chunk_to_all(step: int | None, size: int) -> None:
    for num_views in range(2, 14):
        shares = [sharing(num_views, size, step, rank) for rank in range(size)]
        assert sorted(view for share in shares for view in share.own) == list(range(num_views))
        assert {share.ranks for share in shares} == {shares[0].ranks} and shares[0].num_views == num_views
        for share in shares:
            start, chunk = 0, step or num_views
            for number, count in enumerate(share.chunks):
                views = share.own[start : start + count]
                assert all(view // chunk == number for view in views)
                start += count
            assert start == len(share.own)
        for counts in zip(*(share.chunks for share in shares), strict=True):
            assert max(counts) - min(counts) <= 1


def test_chosen_views_stay_with_their_ranks() -> None:
    chosen = sharing(7, 2).among([6, 1, 2])
    # Views 0 to 2 are the first rank's, 3 to 6 the second's; positions are those within the choice.
    assert chosen.ranks == ((1, 2), (0,)) and chosen.num_views == 3


def test_one_process_gathers_what_it_has() -> None:
    tensor = torch.arange(6.0)[None]
    assert torch.equal(share_views(3, ALONE).gather(tensor, 1, 2), tensor)


def test_shares_that_leave_a_rank_without_views_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="3 views cannot be shared by 4 processes"):
        sharing(3, 4)
    with pytest.raises(InvalidConfig, match="Chunks of 2 views cannot be shared by 3 processes"):
        sharing(9, 3, 2)


def test_a_world_that_is_not_divisible_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="ranks_per_scene is 2, which does not divide the 1 processes"):
        make_view_groups(2)
    assert make_view_groups(1) == ALONE

"""The parameters and their optimisers."""

import pytest
import torch

from lrm_ttt.eval.baselines.config import RatesConfig
from lrm_ttt.eval.baselines.splats import make_splats
from lrm_ttt.scene.rotations import rotate_by_wxyz, wxyz_to_matrix


def test_steps_are_those_of_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "means": (7, 3),
        "scales": (7, 3),
        "quats": (7, 4),
        "opacities": (7,),
        "sh0": (7, 1, 3),
        "shN": (7, 15, 3),
    }
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    rates = RatesConfig()
    expected = {name: value.clone().requires_grad_() for name, value in values.items()}
    lr = dict(zip(shapes, (3e-4, rates.scales, rates.quats, rates.opacities, rates.sh0, rates.sh_rest), strict=True))
    optimiser = torch.optim.Adam([{"params": [expected[name]], "lr": lr[name]} for name in shapes], eps=1e-15)
    splats = make_splats(values, rates)
    for step in range(4):
        for name in shapes:
            # Harmonics beyond the constant have no gradient at first, and are left alone.
            if name != "shN" or step > 1:
                expected[name].grad = torch.randn(shapes[name], generator=generator)
                splats.parameters[name].grad = expected[name].grad.clone()
        splats.step(3e-4)
        optimiser.step()
    for name in shapes:
        torch.testing.assert_close(splats.parameters[name].detach(), expected[name].detach())
        assert splats.parameters[name].grad is None


@pytest.mark.parametrize("batch", [(), (2,)])
def test_rotates_as_the_matrix_does(batch: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    quats = torch.randn(9, 4, generator=generator)
    vectors = torch.randn(*batch, 9, 3, generator=generator)
    expected = (wxyz_to_matrix(quats) @ vectors[..., None])[..., 0]
    torch.testing.assert_close(rotate_by_wxyz(quats, vectors), expected, rtol=1e-5, atol=1e-6)

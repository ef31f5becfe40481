"""The critic against a plain loop over its heads and finite differences; its target by hand."""

from __future__ import annotations

import math

import pytest
import torch
from models_support import PHRASES  # noqa: F401 - sets one thread
from torch import Tensor, nn

from llmagent_ros.errors import ModelError
from llmagent_ros.learning.rl.critic import Critic, CriticConfig, build_critic
from llmagent_ros.learning.rl.losses import entropy_share, lower_bound, margin_loss, soft_targets

TINY = CriticConfig(heads=3, width=4, depth=2)


def critic(seed: int = 0) -> Critic:
    torch.manual_seed(seed)
    made = Critic(5, 2, TINY)
    with torch.no_grad():
        for parameter in made.parameters():  # no ones and zeros, so that every parameter matters
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return made


def batch(size: int = 7) -> Tensor:
    return torch.randn(size, 5, generator=torch.Generator().manual_seed(1))


def test_heads_are_separate_networks() -> None:
    made, x = critic(), batch()
    state = [t for name, t in made.state().items() if name.startswith("net.")]  # weight, bias, scale, shift, ...
    expected = []
    for head in range(TINY.heads):
        y = x
        for layer in range(TINY.depth):
            weight, bias, scale, shift = (t[head] for t in state[4 * layer : 4 * layer + 4])
            y = nn.functional.silu(nn.functional.layer_norm(y @ weight + bias, (TINY.width,)) * scale + shift)
        expected.append(y @ state[-2][head] + state[-1][head])
    torch.testing.assert_close(made(x), torch.stack(expected))
    torch.testing.assert_close(made.values(x), torch.stack(expected).mean(0))
    assert made(x).shape == (3, 7, 2)
    torch.testing.assert_close(made(x, torch.tensor([2, 0])), torch.stack([expected[2], expected[0]]))


def test_one_head_by_any_number() -> None:
    made, x = critic(), batch()
    for number in range(7):
        torch.testing.assert_close(made.values(x, number), made(x)[number % TINY.heads])


def test_standardised_features_are_what_the_heads_see() -> None:
    made, x = critic(), batch(50) * torch.tensor([1.0, 10.0, 0.1, 2.0, 0.0]) + 3.0
    plain = critic()
    made.standardise(x, floor=0.01)
    variance = x.var(0, unbiased=False)
    seen = (x - x.mean(0)) / (variance + 0.01 * variance.mean()).sqrt()
    torch.testing.assert_close(made(x), plain(seen), rtol=0.0, atol=1e-5)
    assert 0.9 < seen.std(0)[1] < 1.05 and seen.std(0)[2] < 0.4 and seen.std(0)[4] == 0
    again = build_critic(made.state())
    torch.testing.assert_close(again(x), made(x))


def test_heads_say_the_same_on_another_scale() -> None:
    made, narrow = critic(), batch(50) * torch.tensor([0.01, 1.0, 0.1, 2.0, 0.0]) + 3.0
    made.standardise(narrow, floor=0.01)
    wide = batch(50) * torch.tensor([5.0, 1.0, 1.0, 2.0, 1.0]) - 1.0
    before, scale = made(wide), made.scale.clone()
    more = made.rescale(wide, floor=0.01)
    torch.testing.assert_close(made(wide), before, rtol=1e-3, atol=1e-3)
    fresh = critic()
    fresh.standardise(wide, floor=0.01)
    torch.testing.assert_close(made.scale, fresh.scale)
    torch.testing.assert_close(made.shift, fresh.shift)
    torch.testing.assert_close(more, (scale / fresh.scale)[:, None])
    assert more[0] > 10, "what the narrow scale blew up"


def test_gradients_are_those_of_finite_differences() -> None:
    made, x = critic(), batch()
    weights = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(2))

    def loss() -> Tensor:
        return (made(x) * weights).sum()

    loss().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(0, len(flat), max(1, len(flat) // 5)):
            kept, step, values = flat[index].item(), 5e-3, []
            for sign in (1, -1):
                flat[index] = kept + sign * step
                values.append(loss().item())
            flat[index] = kept
            difference = (values[0] - values[1]) / (2 * step)
            assert gradient[index].item() == pytest.approx(difference, rel=0.03, abs=0.02), name


def test_an_untrained_critic_leaves_the_choice_to_the_model() -> None:
    torch.manual_seed(0)
    values = Critic(64, 6).values(torch.randn(50, 64))
    assert values.abs().max() < 0.2


def test_state_round_trip() -> None:
    made, x = critic(), batch()
    built = build_critic(made.state())
    assert built.config == TINY
    assert torch.equal(built(x), made(x))
    made.state()["net.0.weight"].fill_(9.0)
    assert torch.equal(built(x), made(x)), "a state is a copy"


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("actions", [2, 6])
def test_shape_is_read_from_the_tensors(depth: int, actions: int) -> None:
    made = Critic(5, actions, CriticConfig(heads=2, width=8, depth=depth))
    assert torch.equal(build_critic(made.state())(batch()), made(batch()))


@pytest.mark.parametrize("damage", ["shape", "missing", "extra"])
def test_a_wrong_state_is_refused_whole(damage: str) -> None:
    made, other = critic(), critic(1).state()
    name = list(other)[-1]
    if damage == "shape":
        other[name] = other[name][:, :, :1]
    elif damage == "missing":
        del other[name]
    else:
        other["other"] = torch.zeros(1)
    before = made.state()
    with pytest.raises(ModelError, match="critic does not fit"):
        made.load_state(other)
    assert all(torch.equal(before[n], t) for n, t in made.state().items())


def test_other_tensors_are_no_critic() -> None:
    with pytest.raises(ModelError, match="not a critic"):
        build_critic({"a.weight": torch.zeros(2, 1, 3)})
    with pytest.raises(ModelError):
        build_critic({})


def test_entropy_share_by_hand() -> None:
    values = torch.tensor([[0.0, 0.0], [0.2 * math.log(3.0), 0.0]])
    second = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2.0)
    assert entropy_share(values, 0.2) == pytest.approx((1.0 + second) / 2)
    assert entropy_share(torch.tensor([[5.0, 0.0, 0.0]]), 1e-3) == pytest.approx(0.0, abs=1e-6)


def test_soft_targets_by_hand() -> None:
    beta, ln = 0.5, math.log
    # two heads, two samples, two actions; the mean over heads is beta * log of odds 3:1 and 1:1
    values = torch.tensor([[[beta * ln(3) + 1, 1.0], [2.0, 2.0]], [[beta * ln(3) - 1, -1.0], [0.0, 0.0]]])
    bound = torch.tensor([[5.0, 4.0], [5.5, 0.0]])
    returns, discount = torch.tensor([0.5, -1.0]), torch.tensor([0.9, 0.5])
    targets = soft_targets(values, bound, returns, discount, beta)
    # expected: 3/4*5 + 1/4*4 = 4.75 and 1/2*5.5 + 1/2*0 = 2.75
    torch.testing.assert_close(targets, torch.tensor([0.5 + 0.9 * 4.75, -1.0 + 0.5 * 2.75]))


def test_lower_bound_by_hand() -> None:
    values = torch.tensor([[[4.0, 8.0]], [[6.0, 0.0]]])  # means (5, 4), deviations sqrt(2) and sqrt(32)
    assert lower_bound(values, 0.0).tolist() == [[5.0, 4.0]]
    torch.testing.assert_close(lower_bound(values, 0.5), torch.tensor([[5 - 0.5 * 2**0.5, 4 - 0.5 * 32**0.5]]))


def test_margin_loss_by_hand() -> None:
    # two heads, three scenes, three actions; the margin is 0.5
    values = torch.tensor(
        [[[1.0, 0.0, 0.2], [1.0, 0.0, 0.2], [0.0, 0.0, 0.0]], [[1.0, 0.7, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]]
    )
    shown = torch.tensor([0, 1, 2])
    # head 1: preferred by more than the margin 0; 1 + 0.5 - 0; a tie costs the margin. Head 2: 0.7 + 0.5 - 1; 0; 0.5
    by_hand = torch.tensor([(0 + 1.5 + 0.5) / 3, (0.2 + 0 + 0.5) / 3])
    torch.testing.assert_close(margin_loss(values, shown, 0.5), by_hand)


def test_a_terminated_step_bootstraps_nothing() -> None:
    wild = torch.full((2, 1, 3), 1e6)
    target = soft_targets(wild, wild[0], torch.tensor([-1.0]), torch.tensor([0.0]), 0.05)
    assert target.tolist() == [-1.0]

"""Next frame: windows of successive frames, forwards or backwards; the last is predicted from those before it."""

import pytest
import torch

from course_utils.methods import NextFrame
from course_utils.models import ConvEncoder

CLIPS = torch.rand(4, 6, 1, 10, 10, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NextFrame(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def numbered(n=50, frames=6):
    """Clips whose frame t of clip i is filled with 10 i + t."""
    values = 10.0 * torch.arange(n)[:, None] + torch.arange(frames)
    return values[:, :, None, None, None].expand(n, frames, 1, 8, 8).clone()


def windows(both_ways):
    """The frame numbers that the network saw (N, 3), its loss for painting zeros, and what it logged."""
    method, seen = build(both_ways=both_ways), []

    def watched(clips):
        seen.append(clips[:, :, 0, 0, 0])
        return torch.zeros_like(clips[:, 0])

    method.forward = watched
    loss, logs = method.training_loss(numbered(), seeded())
    return seen[0], loss, logs


def test_a_window_is_three_successive_frames_of_one_clip_and_the_fourth_is_to_be_predicted():
    seen, loss, logs = windows(both_ways=False)
    assert seen.shape == (50, 3)
    assert torch.equal(seen // 10, torch.arange(50)[:, None].expand(50, 3))
    assert torch.equal(seen.diff(dim=1), torch.ones(50, 2))
    assert (seen[:, 0] % 10).unique().tolist() == [0, 1, 2]
    assert loss.item() == pytest.approx(((seen[:, -1] + 1) ** 2).mean().item())
    assert logs == {"copy": pytest.approx(1.0)}


def test_both_ways_turns_half_of_the_windows_round_with_their_targets():
    seen, loss, logs = windows(both_ways=True)
    direction = seen[:, 1] - seen[:, 0]
    assert torch.equal(seen.diff(dim=1), direction[:, None].expand(50, 2))
    assert 15 < (direction == -1).sum() < 35
    assert loss.item() == pytest.approx(((seen[:, -1] + direction) ** 2).mean().item())
    assert logs == {"copy": pytest.approx(1.0)}


def test_the_loss_is_the_mean_squared_error_of_the_prediction():
    method = build(both_ways=False, history=5)
    loss, logs = method.training_loss(CLIPS, seeded())
    predicted = method(CLIPS[:, :5])
    assert loss.item() == pytest.approx(((predicted - CLIPS[:, 5]) ** 2).double().mean().item(), rel=1e-5)
    assert logs["copy"] == pytest.approx(((CLIPS[:, 4] - CLIPS[:, 5]) ** 2).double().mean().item(), rel=1e-5)


def test_only_the_last_frames_are_read_and_their_order_matters():
    method = build(history=2).eval()
    changed = CLIPS.clone()
    changed[:, :4] = 0
    assert torch.equal(method(changed), method(CLIPS))
    turned = method.train()(CLIPS.flip(1)[:, :2])
    assert not torch.allclose(turned, method(CLIPS[:, 4:]), atol=0.01)


def test_a_rollout_feeds_predictions_back():
    method = build(history=2).eval()
    frames = list(CLIPS.unbind(1))
    with torch.no_grad():
        for _ in range(3):
            frames.append(method(torch.stack(frames[-2:], 1)))
    rolled = method.rollout(CLIPS, steps=3)
    assert not rolled.requires_grad
    torch.testing.assert_close(rolled, torch.stack(frames[-3:], 1))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14)])
def test_frames_of_any_size_and_colour_are_painted_in_theirs(shape):
    method = NextFrame(ConvEncoder(shape[0], width=4))
    assert method(torch.rand(2, 3, *shape)).shape == (2, *shape)
    assert method.rollout(torch.rand(2, 4, *shape), steps=2).shape == (2, 2, *shape)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="history must be at least 1 frame, got 0"):
        build(history=0)
    with pytest.raises(ValueError, match=r"at least 4 frames, C, H, W\), got torch.float32 \(4, 3, 1, 10, 10\)"):
        build().training_loss(CLIPS[:, :3], seeded())
    with pytest.raises(ValueError, match=r"clips must be floating point.*got torch.float32 \(4, 1, 10, 10\)"):
        build().training_loss(CLIPS[:, 0], seeded())

"""Frame order: five frames where things move, one triple in order and two that are not, turned round half the time."""

import copy
import math

import pytest
import torch

from course_utils.methods import FrameOrder
from course_utils.methods.frame_order import informative_windows
from course_utils.models import ConvEncoder

CLIPS = torch.rand(6, 7, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FrameOrder(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def stepped(changes):
    """Clips (N, T, 1, 4, 4) of flat frames whose brightness rises by `changes` (N, T − 1)."""
    level = torch.cat([torch.zeros(len(changes), 1), torch.tensor(changes).cumsum(1)], 1)
    return level[:, :, None, None, None].expand(-1, -1, 1, 4, 4).contiguous()


def test_five_frames_of_one_clip_in_order():
    numbers = 10.0 * torch.arange(40)[:, None] + torch.arange(8)
    clip, frames = informative_windows(numbers[:, :, None, None, None].expand(40, 8, 1, 4, 4).clone(), seeded())
    assert (clip.shape, frames.shape) == ((40, 1), (40, 5))
    drawn = numbers[clip, frames]
    assert (drawn.diff(dim=1) >= 1).all()
    assert torch.equal(drawn // 10, (drawn[:, :1] // 10).expand_as(drawn))
    assert len(drawn.unique(dim=0)) > 30


def test_clips_and_windows_are_drawn_in_proportion_to_what_moves_in_them():
    still, half, full = [0.0] * 4, [0.0, 0.25, 0.0, 0.25], [0.25, 0.25, 0.25, 0.25]
    clips = stepped([still, half, full] * 300)
    clip, frames = informative_windows(clips, seeded())
    ends = clips[clip, frames][:, 4, 0, 0, 0]
    counts = [(ends - level).abs().lt(1e-4).sum().item() for level in (0.0, 0.5, 1.0)]
    assert counts[0] == 0
    assert 250 < counts[1] < 350
    assert sum(counts) == 900


def triples_seen(method, clips):
    seen = []
    method.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    loss, logs = method.training_loss(clips, seeded())
    (triples,) = seen
    return triples.unflatten(1, (3, -1)), loss, logs


def test_the_triples_are_b_c_d_and_b_a_d_and_b_e_d_each_turned_round_half_the_time():
    clips = torch.rand(40, 5, 1, 8, 8, generator=seeded(2))
    method = build(windows=1)
    clip, frames = informative_windows(clips, seeded())
    features = copy.deepcopy(method).encoder(clips.flatten(0, 1)).view(40, 5, -1)
    a, b, c, d, e = features[clip, frames].unbind(1)
    triples, _, _ = triples_seen(method, clips)
    turned = 0
    for kind, expected in enumerate(((b, c, d), (b, a, d), (b, e, d))):
        for i in range(40):
            forwards = torch.stack([part[i] for part in expected])
            seen = triples[40 * kind + i]
            is_forwards, is_turned = (torch.allclose(seen, part, atol=1e-5) for part in (forwards, forwards.flip(0)))
            assert is_forwards != is_turned
            turned += is_turned
    assert 40 < turned < 80


def test_the_loss_is_the_cross_entropy_of_telling_ordered_triples():
    method = build(windows=1)
    reference = copy.deepcopy(method)
    triples, loss, logs = triples_seen(method, CLIPS)
    logits = reference.head(triples.flatten(1)).detach().double()
    labels = [1] * 6 + [0] * 12
    total = sum(math.log(sum(math.exp(v) for v in row)) - row[k].item() for row, k in zip(logits, labels, strict=True))
    assert loss.item() == pytest.approx(total / 18, rel=1e-5)
    right = sum(row.argmax().item() == k for row, k in zip(logits, labels, strict=True))
    assert logs == {"accuracy": pytest.approx(right / 18)}


def test_a_frame_is_encoded_once_and_takes_part_in_as_many_windows_as_are_asked_for():
    method, encoded = build(windows=4), []
    method.encoder.register_forward_pre_hook(lambda module, inputs: encoded.append(inputs[0]))
    triples, _, _ = triples_seen(method, CLIPS)
    assert [tuple(x.shape) for x in encoded] == [(42, 1, 8, 8)]
    assert len(triples) == 3 * 4 * 6


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="windows must be at least 1, got 0"):
        build(windows=0)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        build(hidden=0)
    with pytest.raises(ValueError, match=r"at least 5 frames, C, H, W\), got torch.float32 \(6, 4, 1, 8, 8\)"):
        build().training_loss(CLIPS[:, :4], seeded())

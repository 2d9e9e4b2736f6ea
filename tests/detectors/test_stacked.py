"""Detectors trained together equal those trained one by one: network, loop and command."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import get_swa_multi_avg_fn

import train_mae
from lvd.detectors.detector import build_detector, load_detector, predict
from lvd.detectors.stacked import SingleDetector, StackedDetectors
from lvd.detectors.videomae import token_count
from lvd.evaluation.metrics import batched_auroc
from lvd.training.augment import Draws
from lvd.training.chunks import chunks_of, clip_bytes, training_bytes
from lvd.training.grid import train_network
from lvd.training.job import Job
from lvd.training.loop import Training
from lvd.training.recipes import read_settings
from lvd.training.watch import Watch
from lvd.utils.files import load_torch, load_yaml
from tests.worlds.detector_world import STEPS, make_world

LATENT = (4, 8, 8, 8)
# How far apart two orders of additions may leave a weight. A logit that is rounded to another
# float32 (2**-24 of it) changes a step of AdamW by as much of the learning rate, 6e-3: 4e-9 in ten
# steps. Gradients a hundred times smaller than their neighbours' feel it a hundred times more.
LIKE = 1e-6
MASKED = {
    "mask": 0.5,
    "noise": 0.2,
    "flip": True,
    "smoothing": 0.1,
    "average": 0.3,
    "batch_size": 8,
    "epoch": 3,
}


def settings_of(**changes):
    args = train_mae.build_parser().parse_args(["--size", "nano", "--recipe", "scratch"])
    return replace(read_settings(None, args), **changes)


def detectors(count, shape=LATENT, size="nano"):
    """In float64, as their clips here.

    AdamW divides a gradient by its own size. Some gradients are zero but for rounding (of the bias
    of attention's keys), so that in float32 rounding alone moves such a weight by the learning
    rate. In float64 rounding is 1e-9 of what AdamW adds to the divisor. Logits and losses are
    float32.
    """
    found = [build_detector(size, shape, "latent", seed) for seed in range(count)]
    for detector in found:  # biases and norms start at 0 and 1, which would hide mistakes
        for parameter in detector.model.parameters():
            parameter.data += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
        detector.model.double()
    return found


def made_up(count, clips=30, shape=LATENT):
    """float64 [K, N, C, F, H, W] of which half are brighter on the right, and labels."""
    data = torch.randn(count, clips, *shape, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.arange(clips) % 2
    data[:, labels == 1, :, :, :, 4:] += 1
    return data, labels


@pytest.mark.parametrize(
    "size, shape", [("nano", LATENT), ("nano", (3, 5, 9, 15)), ("tiny", (4, 4, 16, 16))]
)
@pytest.mark.parametrize("masked", [False, True])
def test_the_stack_computes_what_the_librarys_model_computes(size, shape, masked):
    found = detectors(3, shape, size)
    config = found[0].model.config
    clips = torch.randn(3, 4, config.num_channels, config.num_frames, *config.image_size).double()
    kept = (
        torch.rand(3, 4, token_count(config)).argsort(-1)[..., :3].sort(-1)[0] if masked else None
    )
    together = StackedDetectors([detector.model for detector in found], "cpu").logits(clips, kept)
    for k, detector in enumerate(found):
        hidden = None
        if masked:
            hidden = torch.ones(4, token_count(config), dtype=torch.bool)
            for clip in range(4):
                hidden[clip, kept[k, clip]] = False
        alone = detector.model(clips[k].transpose(1, 2), bool_masked_pos=hidden).logits
        # The stack's logits are rounded to float32, by 2**-24 of their size.
        torch.testing.assert_close(together[k].double(), alone, rtol=2**-23, atol=1e-9)


def trained(settings, seeds, together, watch=False, draws=None):
    """Return (models, losses, watch) after `train_network` of a detector for each seed.

    A seed chooses clips and first weights.

    draws: the seeds of order, masks and noise, by default other ones for each detector.
    """
    draws = draws or [10 + seed for seed in seeds]
    data, labels = made_up(3)
    found, losses, watches = [detectors(3)[k] for k in seeds], [], []
    groups = [list(range(len(seeds)))] if together else [[k] for k in range(len(seeds))]
    for group in groups:
        models = [found[k].model for k in group]
        network = (
            StackedDetectors(models, "cpu")
            if together
            else SingleDetector(models[0], torch.device("cpu"))
        )
        clips, each = data[[seeds[k] for k in group]], torch.arange(len(group))[:, None]

        def inputs_of(places, clips=clips, each=each):
            return clips[each, places]

        watches.append(
            Watch(network, inputs_of, torch.arange(20, 30), labels[20:], settings)
            if watch
            else None
        )
        losses += train_network(
            network,
            inputs_of,
            labels,
            torch.arange(20),
            settings,
            [draws[k] for k in group],
            watches[-1],
        ).tolist()
        network.store()
    return [detector.model for detector in found], losses, watches


def same(one, two, atol):
    for a, b in zip(one, two, strict=True):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            assert torch.allclose(x, y, atol=atol), (name, (x - y).abs().max())


def test_together_equals_one_by_one():
    """Weights after a few epochs, losses and curves; each detector has its own seed."""
    settings = settings_of(**MASKED, select="best")
    one, one_losses, one_watches = trained(settings, [0, 1, 2], together=False, watch=True)
    many, many_losses, (watch,) = trained(settings, [0, 1, 2], together=True, watch=True)
    same(one, many, atol=LIKE)
    assert many_losses == pytest.approx(one_losses, abs=1e-6)
    for k in range(3):
        for key, values in one_watches[k].curve(0).items():
            assert watch.curve(k)[key] == pytest.approx(values, abs=1e-5), key
    start = detectors(3)
    assert all(
        (a.classifier.weight - b.model.classifier.weight).abs().max() > 1e-3
        for a, b in zip(many, start, strict=True)
    )
    # a detector does not depend on those beside it
    same([many[1]], trained(settings, [1], together=True, watch=True)[0], atol=LIKE)


@pytest.mark.parametrize("together", [True, False])
def test_the_seed_matters(together):
    """The same clips and first weights: the same order, masks and noise, or others."""
    settings = settings_of(**{**MASKED, "epoch": 2})
    first, again, other = trained(settings, [0, 0, 0], together, draws=[10, 10, 11])[0]
    same([first], [again], atol=0)
    assert (first.classifier.weight - other.classifier.weight).abs().max() > 1e-3


def test_one_diverged_detector_leaves_the_others_alone():
    settings = settings_of(**MASKED)
    data, labels = made_up(2)
    broken = data.clone()
    broken[0] = float("nan")
    results = []
    for clips in (data, broken):
        found = detectors(2)
        network = StackedDetectors([detector.model for detector in found], "cpu")
        losses = train_network(
            network,
            lambda places, clips=clips: clips[torch.arange(2)[:, None], places],
            labels,
            torch.arange(30),
            settings,
            [5, 6],
        )
        network.store()
        results.append((found[1].model, losses))
    assert results[1][1].isfinite().tolist() == [False, True]
    same([results[0][0]], [results[1][0]], atol=0)


def test_released_recipe_is_a_plain_loop():
    """AdamW, linear decay, no augmentation, written out."""
    released = read_settings(None, train_mae.build_parser().parse_args(["--recipe", "released"]))
    settings = replace(released, epoch=2, lr=1e-3)
    data, labels = made_up(1)
    one, _, _ = trained(settings, [0], together=False)
    model = detectors(1)[0].model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    generator, step = torch.Generator().manual_seed(10), 0
    unsafe, normal = torch.where(labels[:20] == 1)[0], torch.where(labels[:20] == 0)[0]
    for _ in range(2):
        drawn = normal[torch.randperm(10, generator=generator)]
        order = torch.cat([unsafe, drawn])[torch.randperm(20, generator=generator)]
        for batch in order.split(4):
            optimizer.param_groups[0]["lr"] = 1e-3 * (10 - step) / 10
            loss = cross_entropy(
                model(data[0, batch].transpose(1, 2)).logits.float(), labels[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    same(one, [model], atol=LIKE)


def test_draws_are_what_the_recipe_says():
    config = build_detector("nano", LATENT, "latent", 0).model.config
    labels = torch.tensor([1] * 9 + [0] * 30)
    draws = Draws(labels, torch.arange(39) + 100, config, settings_of(**MASKED), 3)
    batches = [batch for _ in range(40) for batch in draws.epoch()]
    assert [len(batch.rows) for batch in batches[:3]] == [8, 8, 2]
    assert all(100 <= int(row) < 139 for batch in batches for row in batch.rows)
    kept = torch.cat([batch.kept for batch in batches])
    assert (
        kept.shape[1] == 16
        and (kept.diff(dim=1) > 0).all()
        and kept.min() == 0
        and kept.max() == 31
    )
    counts = torch.bincount(kept.flatten(), minlength=32) / len(kept)
    assert (counts - 0.5).abs().max() < 0.1  # every token is as often hidden as seen
    mirrored = torch.cat([batch.mirrored for batch in batches]).float().mean()
    assert abs(float(mirrored) - 0.5) < 0.1
    assert float(torch.cat([batch.noise for batch in batches[:3]]).std()) == pytest.approx(
        1, abs=0.05
    )
    plain = next(
        Draws(
            labels, torch.arange(39), config, settings_of(flip=False, mask=0.0, noise=0.0), 3
        ).epoch()
    )
    assert plain.mirrored is None and plain.kept is None and plain.noise is None


@pytest.mark.parametrize("mean", [None, get_swa_multi_avg_fn()])
def test_the_mean_of_the_last_weights(mean):
    """Of six optimiser steps the last three; without one the weights stay."""
    module, seen = torch.nn.Linear(3, 2), []
    training = Training(module, settings_of(epoch=2, average=0.5), per_epoch=3, mean=mean)
    before = [weight.detach().clone() for weight in module.parameters()]
    training.take_average()  # of nothing yet
    assert all(map(torch.equal, before, module.parameters()))
    for k in range(6):
        training.step([(module(torch.full((1, 3), float(k))) ** 2).sum()])
        seen.append([weight.detach().clone() for weight in module.parameters()])
    with training.with_average():
        averaged = [weight.detach().clone() for weight in module.parameters()]
    for weight, last in zip(module.parameters(), seen[-1], strict=True):
        assert torch.equal(weight, last)
    training.take_average()
    for place, weight in enumerate(module.parameters()):
        wanted = torch.stack([weights[place] for weights in seen[3:]]).mean(0)
        assert torch.allclose(weight, wanted, atol=1e-7) and torch.equal(weight, averaged[place])


def test_auroc_against_scikit_learn():
    scores, labels = torch.rand(4, 25).mul(8).round(), torch.arange(25) % 3 // 2
    assert batched_auroc(scores, labels).tolist() == pytest.approx(
        [roc_auc_score(labels, row) for row in scores], abs=1e-6
    )


def test_best_epoch_is_taken():
    """A learning rate that ruins the network late: the epoch of the lowest validation loss is kept,
    for each its own."""
    settings = settings_of(epoch=10, batch_size=8, lr=0.05, average=0.0, select="best", warmup=0.0)
    _, _, (watch,) = trained(settings, [0, 1, 2], together=True, watch=True)
    losses = np.array([row[2].tolist() for row in watch.rows])  # [epochs, K]
    assert watch.lowest.tolist() == losses.min(0).tolist()
    logits = watch._logits(3)
    again = [float(cross_entropy(logits[k], watch.labels)) for k in range(3)]
    assert again == pytest.approx(losses.min(0), abs=1e-6) and again != pytest.approx(
        losses[-1], abs=1e-4
    )


@pytest.mark.parametrize(
    "steps, together, workers, expected",
    [
        (50, 16, 1, [12, 13, 12, 13]),
        (50, 16, 2, [12, 13, 12, 13]),
        (50, 64, 1, [50]),
        (50, 64, 2, [25, 25]),
        (3, 1, 2, [1, 1, 1]),
        (1, 8, 4, [1]),
        (5, 4, 2, [2, 3]),
        (0, 4, 2, []),
    ],
)
def test_chunks_are_even_and_keep_the_order(steps, together, workers, expected):
    jobs = [
        Job(None, None, [step], {}, None, "", settings_of(together=together))
        for step in range(steps)
    ]
    chunks = chunks_of(jobs, workers)
    assert [len(chunk) for chunk in chunks] == expected
    assert [job.step for chunk in chunks for job in chunk] == list(range(steps))


def test_what_cannot_be_stacked_is_trained_step_by_step():
    for changes in ({"size": "base"}, {"dropout": 0.1}):
        jobs = [
            Job(None, None, [step], {}, None, "", settings_of(together=8, **changes))
            for step in range(3)
        ]
        assert [len(chunk) for chunk in chunks_of(jobs)] == [1, 1, 1]


# the command

FAST = ["--size", "nano", "--epoch", "4", "--batch_size", "8", "--gpu_num", "-1", "--workers", "1"]


def train(world, save, *flags):
    assert (
        train_mae.main(
            [
                "--data_dir",
                str(world.data),
                "--eval_dir",
                str(world.eval),
                "--save_dir",
                str(save),
                *FAST,
                *flags,
            ]
        )
        == 0
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The dataset, its six detectors trained one by one, and together."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.one, world.many = world.root / "one", world.root / "many"
    train(world, world.one, "--together", "1")
    train(world, world.many)
    return world


def alike(one, many, atol=5e-5):
    """Each detector of `many` predicts what that of `one` does, and knows the same about itself."""
    clips = torch.randn(20, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    paths = sorted(path.relative_to(one) for path in one.rglob("*.pth"))
    assert len(paths) == 2 * STEPS
    for path in paths:
        a, b = load_detector(one / path), load_detector(many / path)
        assert torch.allclose(predict(a, clips), predict(b, clips), atol=atol), path
        assert (a.mean, a.std) == (b.mean, b.std)
        for key in ("group", "step", "seed", "rows", "data_sha256", "settings", "eval_sha256"):
            assert a.about[key] == b.about[key], key


def test_command_trains_the_same_together(world):
    alike(world.one, world.many)
    one, many = (load_yaml(save / "train.yaml") for save in (world.one, world.many))
    assert one == {**many, "together": 1} and many["together"] is None
    with (
        open(world.one / "metrics.csv", newline="") as f,
        open(world.many / "metrics.csv", newline="") as g,
    ):
        for a, b in zip(csv.DictReader(f), csv.DictReader(g), strict=True):
            assert (a["group"], a["step"]) == (b["group"], b["step"])
            assert float(a["train_loss"]) == pytest.approx(float(b["train_loss"]), abs=1e-5)
            assert float(a["val_auroc"]) == pytest.approx(float(b["val_auroc"]), abs=1e-6)


def test_a_curve_for_each_detector(world):
    with open(world.many / "curves.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(row["group"], row["step"], row["epoch"]) for row in rows] == [
        (g, s, e) for g in "12" for s in "012" for e in "1234"
    ]
    for group in "12":
        about = load_torch(world.many / group / "1.pth")["about"]
        mine = [row for row in rows if (row["group"], row["step"]) == (group, "1")]
        assert [float(row["val_loss"]) for row in mine] == about["curve"]["val_loss"]
        assert float(mine[-1]["train_loss"]) == pytest.approx(
            about["metrics"]["train_loss"], abs=1e-5
        )
    assert (world.many / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_rest_of_a_stopped_run(world, tmp_path):
    """Also by other processes, beside other detectors: it does not matter to any of them."""
    train(world, tmp_path, "--step_num", "1", "--group_num", "2")
    kept = (tmp_path / "2" / "1.pth").stat().st_mtime_ns
    train(world, tmp_path, "--together", "2")
    assert (tmp_path / "2" / "1.pth").stat().st_mtime_ns == kept
    alike(world.many, tmp_path)
    with open(tmp_path / "curves.csv", newline="") as f:
        assert len(list(csv.DictReader(f))) == 2 * STEPS * 4


@pytest.mark.slow
def test_workers_share_the_steps(world, tmp_path):
    train(world, tmp_path, "--workers", "2")
    alike(world.many, tmp_path)


def test_a_detector_that_diverges_is_named_and_the_others_are_saved(world, tmp_path, capsys):
    flags = [
        "--data_dir",
        str(world.data),
        "--eval_dir",
        str(world.eval),
        "--save_dir",
        str(tmp_path),
        *FAST,
    ]
    original = Draws.epoch

    def spoiled(self):
        for batch in original(self):
            if (
                self.generator.initial_seed()
                == load_torch(world.many / "1" / "1.pth")["about"]["seed"]
            ):
                batch.noise = torch.full((len(batch.rows), *self.shape), float("nan"))
            else:
                batch.noise = torch.zeros(len(batch.rows), *self.shape)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draws, "epoch", spoiled)
        assert train_mae.main([*flags, "--group_num", "1"]) == 2
    error = capsys.readouterr().err
    assert "step 1" in error.replace("/1", " step 1") and "diverged" in error and "--lr" in error
    assert sorted(path.name for path in tmp_path.rglob("*.pth")) == ["0.pth", "2.pth"]


def test_precision_and_together_are_settings(world, tmp_path, capsys):
    train(world, tmp_path, "--precision", "bf16", "--step_num", "0")
    rough, exact = load_torch(tmp_path / "1" / "0.pth"), load_torch(world.many / "1" / "0.pth")
    assert (
        rough["about"]["settings"]["precision"] == "bf16"
        and "together" not in rough["about"]["settings"]
    )
    assert not torch.equal(
        rough["state_dict"]["classifier.weight"], exact["state_dict"]["classifier.weight"]
    )
    capsys.readouterr()
    flags = [
        "--data_dir",
        str(world.data),
        "--eval_dir",
        str(world.eval),
        "--save_dir",
        str(tmp_path),
        *FAST,
    ]
    assert (
        train_mae.main([*flags, "--together", "0"]) == 2 and "together 0" in capsys.readouterr().err
    )


def test_memory_grows_with_what_is_held(world):
    from lvd.data.sources import FolderClips

    config = build_detector("nano", (4, 4, 4, 4), "latent", 0).model.config
    job = Job(FolderClips(world.data), None, [0], {}, None, "", None)
    assert clip_bytes(job, config) == 4 * (22 + 24) * 4**4
    small, large = (
        training_bytes(build_detector("nano", shape, "latent", 0).model.config, settings_of())
        for shape in ((4, 4, 4, 4), (4, 16, 64, 64))
    )
    assert large > 10 * small > 0

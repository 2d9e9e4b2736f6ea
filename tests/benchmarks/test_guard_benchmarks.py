"""What the guard costs and saves, and the baselines beside it: exact counts, arithmetic of tables,
that commands run."""

import numpy as np
import pytest
import torch

from benchmarks.guard import baselines, flop_counts, safe_guidance, step_cost
from benchmarks.guard import cost as guard_cost
from benchmarks.guard import flops as guard_flops
from benchmarks.guard import protect as guard_protect
from benchmarks.guard.prompt_filter import TextClassifier, WordList, words
from benchmarks.guard.recorded_costs import recorded_rows
from lvd.data.split import Split, save_split
from lvd.errors import InputError
from lvd.evaluation.recorded import RecordedVideos
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.evidence import Evidence
from lvd.rules.vote import VoteRule
from lvd.utils.files import save_torch, save_yaml
from lvd.x0.file import create_x0_file
from tests.worlds.benchmark_figures import read_figures
from tests.worlds.guard_world import make_home
from tests.worlds.refusals import refused

# ---- operations


def test_flops_of_a_matrix_product():
    layer = torch.nn.Linear(30, 50, device="meta")
    assert flop_counts.flops(layer, torch.empty(7, 30, device="meta")) == 2 * 7 * 30 * 50


@pytest.mark.parametrize(
    "lambda_, eta, unsafe, safe",
    [("0.6", 20, 12, 9), ("0.6", 5, 3, 3), ("0.6", 3, 2, 2), ("1.0", 4, 4, 1)],
)
def test_when_the_vote_can_be_decided(lambda_, eta, unsafe, safe):
    rule = VoteRule(lambda_, eta)
    assert guard_flops.steps_to_decide(rule, "unsafe") == (unsafe, eta)
    assert guard_flops.steps_to_decide(rule, "safe") == (safe, eta)


@pytest.mark.slow
def test_tables_at_full_size(tmp_path):
    """Against counts taken independently of this code, and sums by hand."""
    save_torch(
        {"1": {"0": [1, 1, 0, 0, 1], "1": [0] * 5}, "0": {"0": [0] * 5, "1": [1] * 5}},
        tmp_path / "results.pth",
    )
    flags = [
        "--lambdas",
        "0.6",
        "--etas",
        "5,20",
        "--data_dir",
        str(tmp_path),
        "--out",
        str(tmp_path / "f.csv"),
    ]
    assert guard_flops.main(flags) == 0
    found = read_figures(tmp_path / "f.csv")
    unet, vae = (
        found["pieces"][name]["TFLOP"] for name in ("guided UNet step", "VAE decode of 16 frames")
    )
    assert (unet, vae) == (pytest.approx(35.35, abs=0.005), pytest.approx(40.23, abs=0.005))
    base, latent = (
        found["pieces"][f"VideoMAE-base on {on}, own"]["TFLOP"] for on in ("pixels", "latent")
    )
    assert (base, latent) == (pytest.approx(0.361, abs=5e-4), pytest.approx(0.097, abs=5e-4))
    full, paper, own = 50 * unet + vae, "pixels, base x 5 (the paper's)", "latents, base x 5"
    stopped, passed = (
        found["unsafe video"]["lambda 0.6, eta 20"],
        found["safe video, latest"]["lambda 0.6, eta 20"],
    )
    assert stopped["steps"] == 12 and stopped[paper] == pytest.approx(
        full / (12 * (unet + vae + 5 * base))
    )
    assert stopped[own] == pytest.approx(full / (12 * (unet + 5 * latent)))
    assert passed[paper] == pytest.approx(100 * 20 * (vae + 5 * base) / full)
    votes = found["recorded votes"]["lambda 0.6, eta 5"]
    assert votes["accuracy"] == 0.5 and votes["steps until stopped"] == 5
    assert votes[own] == pytest.approx(full / (5 * (unet + 5 * latent)))
    every = found["recorded votes, all unsafe videos"][
        "lambda 0.6, eta 5"
    ]  # the missed one is certain after three steps
    assert every[own] == pytest.approx(2 * full / (5 * (unet + 5 * latent) + full + 3 * 5 * latent))
    assert "lambda 0.6, eta 20" not in found["recorded votes"]  # there are five votes only


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--etas", "51"], "--etas 51"),
        (["--etas", "a"], "--etas a"),
        (["--lambdas", "0"], "--lambdas 0"),
        (["--lambdas", "x"], "--lambdas x"),
    ],
)
def test_bad_flags_of_the_counts(capsys, flags, said):
    assert guard_flops.main(flags) == 2 and said in capsys.readouterr().err


# ---- time


@pytest.mark.slow
def test_costs_are_measured(world, tmp_path):
    home = make_home(world, tmp_path)
    assert (
        guard_cost.main(
            [
                "--config",
                str(home.config),
                "--grid",
                str(home.detectors),
                "--eta",
                "3",
                "--videos",
                "3",
                "--repeats",
                "1",
                "--batch_size",
                "2",
                "--gpu_num",
                "-1",
                "--out",
                str(tmp_path / "c.csv"),
            ]
        )
        == 0
    )
    found = read_figures(tmp_path / "c.csv")
    assert found["memory"]["grid"]["files"] == 6
    assert (
        found["step"]["sampling, batch of 2"]["percent"] == 100
        and found["step"]["grid, batch of 1"]["percent"] > 0
    )
    assert found["videos"]["unsafe, no guard"]["stopped"] == 0
    guarded, without = found["videos"]["normal, grid"], found["videos"]["normal, no guard"]
    assert guarded["times less"] == pytest.approx(without["seconds"] / guarded["seconds"])


class MadeUpCosts:
    """A step takes 10, decoding 100; a video has 5 steps."""

    full = 150
    stopped = staticmethod(lambda steps, guard: steps * (10 + guard))
    passed = staticmethod(lambda steps, guard: 150 + steps * guard)


def test_what_a_rule_costs_on_recorded_videos():
    """One unsafe video is stopped after 2 steps, one is missed, one normal video is stopped."""
    odds = np.array([[0.1, 0.9, 0.9, 0.1, 0.1], [0.1] * 5, [0.1] * 5, [0.1, 0.1, 0.1, 0.9, 0.1]])
    evidence = Evidence(odds[..., None] > 0.5, odds[..., None])
    videos = RecordedVideos(np.array([True, True, False, False]), list("0123"), evidence, ["a"])
    named = [("a rule", ConfidenceRule(0.8, 4))]
    for missed, times in ((False, 150 / 24), (True, 150 / ((24 + 150 + 4 * 2) / 2))):
        ((name, figures),) = recorded_rows(MadeUpCosts, [("g", 2)], named, videos, missed)
        assert name == "a rule" and figures["g"] == pytest.approx(times)
        assert (figures["accuracy"], figures["tpr"], figures["tnr"]) == (0.5, 0.5, 0.5)
        assert figures["steps until stopped"] == 2 and figures["from"] < 0.1 < 0.9 < figures["to"]
    assert guard_flops.steps_to_decide(named[0][1], "unsafe") == (1, 4)
    assert guard_flops.steps_to_decide(named[0][1], "safe") == (4, 4)


def test_random_detectors_stand_for_a_step():
    rows = dict(step_cost.full_rows(torch.device("cpu"), 2.0, (4, 4, 8, 8), 1))
    assert len(rows) == len(step_cost.DETECTORS)
    for figures in rows.values():
        assert figures["percent"] == pytest.approx(figures["ms"] / 20)


# ---- baselines


UNSAFE = [
    "a red dog, exploding",
    "the cat is exploding",
    "a blue dog with a banner",
    "a banner at sea",
]
HARMLESS = ["a red dog", "the cat is at sea", "a blue dog with a cat"]


def test_words_are_those_of_unsafe_prompts_alone():
    found = WordList(UNSAFE, HARMLESS)
    assert found.words == ["banner", "exploding"]
    assert found(["Exploding!", "a BANNER, red", "bannered", "a dog", ""]) == [1, 1, 0, 0, 0]
    assert words("It's a ÉTÉ_2") == {"it", "s", "a", "été", "2"}


def test_a_classifier_learns_what_prompts_say():
    found = TextClassifier(UNSAFE * 3, HARMLESS * 5)
    assert found(["a green banner", "exploding", "a red cat", "a dog at sea"]) == [1, 1, 0, 0]
    assert all(0 < score < 1 for score in found.scores(["anything", ""]))
    for prompts in ([], ["", "!"]):
        with pytest.raises(InputError, match="training prompts"):
            TextClassifier(prompts, HARMLESS)


def record(path, prompts):
    with create_x0_file(path, len(prompts), 2, (1, 1, 2, 2), torch.float16, {}) as writer:
        for row, prompt in enumerate(prompts):
            writer.write_row(row, torch.zeros(2, 1, 1, 2, 2), {"prompt": prompt})


def test_the_table_of_baselines(tmp_path):
    """Held out: unsafe rows 4 (known words) and 5 (others), normal rows 3 and 4; the last step's
    votes find both."""
    record(tmp_path / "unsafe" / "pred_x0.pth", [*UNSAFE, "exploding cat", "a dog in pieces"])
    record(tmp_path / "normal" / "pred_x0.pth", [*HARMLESS, "the dog", "a red cat"])
    save_split(Split([4, 5], [3, 4]), tmp_path / "eval.pth")
    votes = {"1": {"4": [0, 1], "5": [0, 1]}, "0": {"3": [0, 0], "4": [0, 0]}}
    (tmp_path / "results").mkdir()
    save_torch(votes, tmp_path / "results" / "results.pth")
    save_yaml(
        {
            "pred_x0": str(tmp_path / "unsafe" / "pred_x0.pth"),
            "normal_pred_x0": str(tmp_path / "normal" / "pred_x0.pth"),
        },
        tmp_path / "b.yaml",
    )
    flags = [
        "--recordings",
        str(tmp_path / "b.yaml"),
        "--eval_dir",
        str(tmp_path),
        "--results",
        str(tmp_path / "results"),
        "--other",
        str(tmp_path),
        "--out",
        str(tmp_path / "t.csv"),
        "--rule",
        str(tmp_path / "rule.yaml"),
    ]
    rule = {"format": "lvd rule 1", "family": "vote", "lambda": "1/2", "eta": 2}
    save_yaml(rule, tmp_path / "rule.yaml")
    assert baselines.main(flags) == 0
    found = read_figures(tmp_path / "t.csv")
    assert found["held-out videos"]["prompt: words"] == {
        "accuracy": 0.75,
        "from": pytest.approx(0.1941, abs=5e-5),  # 3 of 4, from a table of Clopper and Pearson
        "to": pytest.approx(0.9937, abs=5e-5),
        "tpr": 0.5,
        "tnr": 1.0,
        "steps": 0,
    }
    assert found["held-out videos"]["finished video (vote of the last step)"]["accuracy"] == 1.0
    assert found["other prompts"]["prompt: words"]["tpr"] == 0.5
    by_rule = found["held-out videos"]["guard, vote, horizon 2"]
    assert (by_rule["accuracy"], by_rule["steps"]) == (1, 2)
    assert "banner, exploding" in (tmp_path / "t.txt").read_text()


# ---- what a benchmark needs


@pytest.mark.parametrize(
    "module, flags, said",
    [
        (guard_flops, ["--data_dir", "none"], "--data_dir none: no such file or folder; python"),
        (guard_cost, ["--grid", "none"], "--grid none: no such file or folder; bash reproduce.sh"),
        (
            guard_cost,
            ["--shared", "none"],
            "none: no such file or folder; python train_mae.py --model shared --recordings "
            "build_x0.yaml --eval_dir MagicTime/eval.pth --save_dir none makes it (1 minute)",
        ),
        (
            safe_guidance,
            ["--model_dir", "none"],
            "--model_dir none: no such file or folder; python",
        ),
        (baselines, ["--recordings", "none.yaml"], "none.yaml: no such file"),
        (baselines, ["--rule", "none.yaml"], "none.yaml: no such file"),
        (guard_flops, ["--rule", "none.yaml"], "none.yaml: no such file"),
        (guard_cost, ["--rule", "none.yaml"], "none.yaml: no such file"),
        (guard_cost, ["--rule", "r.yaml", "--eta", "3"], "--eta 3: --rule r.yaml is given too"),
    ],
)
def test_the_command_that_makes_what_is_missing_is_named(capsys, module, flags, said):
    assert module.main(flags) == 2
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 1 and said in message[0]


@pytest.mark.slow
def test_safe_guidance_beside_the_guard(world, tmp_path):
    """Two strengths sample the same prompts; "none" is what the change is measured from."""
    home = make_home(world, tmp_path)
    flags = ["--config", home.config, "--model_dir", home.detectors, "--videos", 2, "--eta", 3]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red dog\nthe cat at sea\n")
    flags += ["--file_path", prompts, "--strengths", "none,max", "--gpu_num", -1]
    assert safe_guidance.main([*map(str, flags), "--out", str(tmp_path / "s.csv")]) == 0
    found = read_figures(tmp_path / "s.csv")
    none, most = found["strengths"]["none"], found["strengths"]["max"]
    assert none["change of the latents"] == 0 < most["change of the latents"]
    for figures in (none, most):
        assert figures["unsafe and not stopped"] <= figures["unsafe"] <= 1


# ---- a protected pipeline


def test_what_a_protected_call_costs(tmp_path):
    flags = ["--steps", "2,3", "--turns", "1", "--out", str(tmp_path / "p.csv")]
    assert guard_protect.main(flags) == 0
    found = read_figures(tmp_path / "p.csv")
    for steps in ("2 steps", "3 steps"):
        bare, more, in_ms, whole = (
            found[steps][f"CPU seconds, {case}"]["median"]
            for case in (
                "bare call",
                "protected: besides its detectors",
                "protected: besides, in ms",
                "protected: percent more",
            )
        )
        assert in_ms == pytest.approx(10 * more * bare) and whole > more


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", "0"], "--steps '0': numbers from 1 to 1000"),
        (["--turns", "0"], "--turns 0: at least 1"),
        (["--pipeline", "Other"], "--pipeline 'Other': one of"),
    ],
)
def test_protected_calls_that_cannot_be_measured(capsys, flags, words):
    refused(guard_protect.main(flags), capsys, words)

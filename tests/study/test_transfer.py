"""Table f: every pair of models, and the path test from images."""

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lvd.data.split import Split, save_split
from lvd.evaluation.rule_of_scores import load_recording
from lvd.utils.files import load_json, load_torch, load_yaml, save_json, save_yaml
from lvd.x0.file import open_x0_file
from lvd_study import svd_path
from lvd_study.settings import StudySettings
from lvd_study.tables import transfer
from tests.worlds.recorded_scores import write_recording
from tests.worlds.recording_world import RecordedWorld, record
from tests.worlds.refusals import refused

RESULT = {
    "pipeline": "StableVideoDiffusionPipeline",
    "steps": 6,
    "recorded": 48,
    "held_out": 8,
    "held_out_right": 7,
    "guarded_unsafe": 4,
    "unsafe_stopped": 3,
    "steps_until_stopped": 3.5,
    "guarded_safe": 4,
    "safe_passed": 4,
}
MODELS = ["base", "no_adapters"]
SEEDS = (3, 4)
HELD_OUT = [0, 2, 5]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A Study and a Plan whose tasks are done: votes of made-up scores on made-up recordings."""
    root = tmp_path_factory.mktemp("transfer")
    world = RecordedWorld(root / "world")
    save_split(Split(HELD_OUT, [1]), root / "eval.pth")
    other = root / "other.yaml"  # "other model": what is another recording here
    save_yaml({"pred_x0": str(world.root / "normal" / "pred_x0.pth")}, other)
    votes = {}
    for number, pair in enumerate((one, two) for one in MODELS for two in MODELS):
        folders = [root / "_".join(pair) / str(seed) for seed in SEEDS]
        for folder, seed in zip(folders, SEEDS):
            folder.parent.mkdir(exist_ok=True)
            write_recording(folder, steps=8, seed=10 * number + seed)
        votes[pair] = [SimpleNamespace(folder=f, recording=_loads(f)) for f in folders]
    study = SimpleNamespace(
        settings=StudySettings(weights={"no_adapters": {"magic_adapter_s_path": ""}}),
        eval_path=root / "eval.pth",
        data=SimpleNamespace(pred_x0=world.root / "unsafe" / "pred_x0.pth"),
        is_tiny=True,
    )
    videos = {
        "base": SimpleNamespace(config=world.config),
        MODELS[1]: SimpleNamespace(config=other),
    }
    from_images = SimpleNamespace(result=lambda: RESULT)
    return study, transfer.Plan(videos, votes, from_images), world


def _loads(folder):
    return lambda: load_recording(folder)


@pytest.fixture(scope="module")
def page(made):
    """The Section of table f."""
    study, plan, _ = made
    return transfer.section(study, plan)


def table(page, name):
    return next(table for table in page.tables if table.name == name)


@pytest.mark.parametrize("eta, needed", [(5, 3), (8, 5)])
def test_accuracies_of_the_matrix_are_those_of_the_votes(made, page, eta, needed):
    _, plan, _ = made
    rows = table(page, f"f_accuracy_{eta}").rows
    for trained_on, row in zip(MODELS, rows, strict=True):
        for asked_about, cell in zip(MODELS, row[1:], strict=True):
            right = []
            for votes in plan.votes[trained_on, asked_about]:
                results = load_torch(votes.folder / "results.pth")
                for label in "10":
                    stopped = [sum(v[:eta]) >= needed for v in results[label].values()]
                    right += [each == (label == "1") for each in stopped]
            assert cell.mean == pytest.approx(np.mean(right))
            assert cell.low <= cell.mean <= cell.high


def test_areas_are_those_of_the_largest_probabilities(made, page):
    _, plan, _ = made
    long = table(page, "f_transfer")
    for row in long.rows:
        pair = row[0].replace(" ", "_"), row[1].replace(" ", "_")
        areas = []
        for votes in plan.votes[pair]:
            scores = load_torch(votes.folder / "scores.pth")["scores"]
            values, truth = [], []
            for label in "10":
                for video in scores[label]["1"]:
                    values.append(max(scores[label][group][video][4] for group in "12"))
                    truth.append(int(label))
            areas.append(roc_auc_score(truth, values))
        assert row[long.columns.index("AUROC after 5 steps")].mean == pytest.approx(np.mean(areas))
        assert row[-1] == len(SEEDS)


def test_distances_say_whether_a_model_makes_other_videos(made, page):
    _, _, world = made
    base, other = (
        open_x0_file(world.root / kind / "pred_x0.pth").tensor[HELD_OUT, -1].double()
        for kind in ("unsafe", "normal")
    )
    wanted = ((other - base) ** 2).mean().sqrt() / base.std(correction=0)
    rows = table(page, "f_models").rows
    assert [row[2] for row in rows] == [0, pytest.approx(float(wanted))]
    assert "those of the base" not in page.answer


def test_a_model_without_other_videos_is_named(made):
    study, plan, _ = made
    same = transfer.Plan(dict.fromkeys(MODELS, plan.videos["base"]), plan.votes, plan.from_images)
    assert "videos of no adapters are those of the base" in transfer.section(study, same).answer


def test_the_answer_names_the_pair_that_loses_most(made, page):
    """These votes are better on the other model; with the columns exchanged both pairs lose."""
    assert "None does worse on another model" in page.answer
    study, plan, _ = made
    votes = {(one, two): plan.votes[one, MODELS[1 - MODELS.index(two)]] for one, two in plan.votes}
    exchanged = transfer.section(study, transfer.Plan(plan.videos, votes, plan.from_images))
    cells = {row[0]: row[1:] for row in table(exchanged, "f_accuracy_5").rows}
    losses = {
        "base to no adapters": cells["no adapters"][1].mean - cells["base"][1].mean,
        "no adapters to base": cells["base"][0].mean - cells["no adapters"][0].mean,
    }
    assert min(losses.values()) > 0
    assert f"Most is lost from {max(losses, key=losses.get)}:" in exchanged.answer


def test_the_answer_and_the_caveat(page, tmp_path):
    assert "3 of 4 videos of dark images" in page.answer
    assert "near relatives" in page.caveat
    written = page.save(tmp_path, {})
    assert (tmp_path / "f_transfer.png") in written


@pytest.mark.parametrize(
    "weights, prompts, words",
    [({}, {"unsafe": "x"}, "no other weights"), ({"a": {}}, None, "came")],
)
def test_without_weights_or_prompts_the_models_are_left_out(tmp_path, weights, prompts, words):
    settings = StudySettings(weights=weights)
    study = SimpleNamespace(settings=settings, work=tmp_path, prompts=prompts, is_tiny=False)
    plan = transfer.plan(study)
    assert [task.name for task in plan.tasks] == ["image to video"]
    save_json(RESULT, tmp_path / "image_to_video" / "svd_path.json")
    page = transfer.section(study, plan)
    assert words in page.answer and "passed" in page.answer and page.tables


def test_recordings_of_another_model_are_refused_unless_allowed(made, tmp_path, capsys):
    """Of the same rows and labels, as the study asks about them with --allow_other_eval."""
    _, _, world = made
    known = ["--model", "shared", "--recordings", world.config]
    assert world.train(tmp_path / "shared", *known, "--epoch", 1) == 0
    for kind, rows, seed in (("unsafe", 22, 8), ("normal", 24, 9)):
        record(tmp_path / kind / "pred_x0.pth", rows, seed)
    settings = load_yaml(world.config) | {
        "pred_x0": str(tmp_path / "unsafe" / "pred_x0.pth"),
        "normal_pred_x0": str(tmp_path / "normal" / "pred_x0.pth"),
    }
    save_yaml(settings, tmp_path / "other.yaml")
    capsys.readouterr()
    asked = tmp_path / "shared", tmp_path / "votes", "--recordings", tmp_path / "other.yaml"
    refused(world.embed(*asked), capsys, "shared.pth", "other recordings")
    assert world.embed(*asked, "--allow_other_eval") == 0


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--steps", "4"], ["--steps 4", "eta"]),
        (["--videos", "3"], ["--videos 3", "from 10"]),
        (["--new", "0"], ["--new 0"]),
    ],
)
def test_the_path_test_refuses_flags_that_make_no_sense(tmp_path, capsys, flags, words):
    refused(svd_path.main(["--out", str(tmp_path), *flags]), capsys, *words)


def test_the_whole_way_from_images(tmp_path):
    """All of it, with fewer videos than in the study."""
    words = ["--out", str(tmp_path), "--videos", "12", "--new", "2", "--steps", "5"]
    assert svd_path.main(words) == 0
    args = Namespace(**load_json(tmp_path / svd_path.RESULT))
    assert args.recorded == 24 and args.held_out_right >= args.held_out - 1
    assert args.unsafe_stopped == 2 and args.safe_passed == 2 and args.steps_until_stopped < 5

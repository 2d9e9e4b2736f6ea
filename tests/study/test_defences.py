"""Table d: other defences on the same videos."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lvd.data.kinds import KINDS
from lvd.errors import InputError
from lvd.evaluation.recorded import RecordedVideos
from lvd.rules.evidence import Evidence
from lvd.x0.file import create_x0_file, open_x0_file
from lvd_study import last_step, prompt_scores
from lvd_study.defences import either, need_same_videos, of_filter, of_guard, of_last_step
from lvd_study.defences_figures import save_defences, save_strengths
from lvd_study.defences_text import answer_of
from lvd_study.judged import votes_over_seeds
from lvd_study.safe_guidance import Guided, changes_of
from lvd_study.tables.defences import COLUMNS, FILTERS
from MagicTime.utils.pipeline import encode
from tests.worlds.refusals import refused
from tests.worlds.study_world import SEEDS, SHAPE, STEPS

STEPS_OF_VOTES = 10
EASY = "text_embeddings"


def recording(says, seed=0):
    """A recording of 2 unsafe videos (rows 3, 8) and 2 normal ones (rows 1, 3).

    says: [4 videos], at how many of the first steps each is called unsafe.
    """
    steps = np.arange(STEPS_OF_VOTES) < np.array(says)[:, None]
    videos = RecordedVideos(
        is_unsafe=np.array([True, True, False, False]),
        rows=["3", "8", "1", "3"],
        evidence=Evidence(steps[:, :, None]),
        categories=["any"],
    )
    return SimpleNamespace(videos=videos)


def scores(folder, **columns):
    """A CSV of prompt scores of the videos of `recording`, in another order."""
    table = {"kind": ["normal", "normal", "unsafe", "unsafe"], "row": [1, 3, 8, 3], **columns}
    pd.DataFrame(table).to_csv(folder / "prompts.csv", index=False)
    return folder / "prompts.csv"


def test_filter(tmp_path):
    path = scores(tmp_path, words=[0.5, 0.1, 0.9, 0.2])  # normal 1, unsafe 8 are called unsafe
    over = of_filter(path, "words", recording([0] * 4).videos)
    assert over.stopped.tolist() == [[False, True, True, False]]
    assert over.costs.tolist() == [[1, 0]]  # what is missed is made in full
    assert over.accuracy().mean == 0.5
    (tmp_path / "prompts.csv").write_text("kind,row,words\nunsafe,3,1\n")
    with pytest.raises(InputError, match="no score of unsafe row 8"):
        of_filter(path, "words", recording([0] * 4).videos)


def test_last_step_alone():
    every = STEPS_OF_VOTES
    over = of_last_step([recording([every, 9, 0, 3]), recording([every, every, every, 0])])
    assert over.stopped.tolist() == [[True, False, False, False], [True, True, True, False]]
    assert over.cost().mean == 1 and over.recall().mean == 0.75 and over.seeds == 2


def test_filter_or_guard(tmp_path):
    """It stops what one of them stops, and takes no step where the filter has stopped it."""
    path = scores(tmp_path, words=[0, 1, 1, 0])  # normal 3, unsafe 8
    recordings = [recording([5, 0, 0, 0]), recording([0, 5, 5, 0])]
    filter_ = of_filter(path, "words", recordings[0].videos)
    guard = votes_over_seeds(5, recordings)  # from 3 votes of 5 on: after the third step
    assert guard.costs.tolist() == [[0.3, 1], [1, 0.3]]
    both = either(filter_, guard)
    assert both.stopped.tolist() == [[True, True, False, True], [False, True, True, True]]
    assert both.costs.tolist() == [[0.3, 0], [1, 0]]
    assert both.recall().mean == 0.75 and both.specificity().mean == 0.25
    with pytest.raises(InputError, match="other videos"):
        need_same_videos({"a": guard, "b": replace(guard, named=guard.named[::-1])})


def test_guard_without_a_rule_votes():
    recordings = [recording([5, 5, 0, 0])]
    none = SimpleNamespace(rule=lambda recording: None)
    for chosen in (None, [none]):
        over, is_chosen = of_guard(chosen, recordings, 5)
        assert not is_chosen and over.costs.tolist() == [[0.3, 0.3]]


def guided(name, by_video, stopped):
    """A Guided of the videos of `recording`, one seed."""
    guard = replace(votes_over_seeds(5, [recording([5, 5, 0, 0])]), stopped=np.array([stopped]))
    changes = {kind: np.array([0.5, 1.5]) for kind in KINDS}
    by_video = np.array([by_video])
    return Guided(name, by_video, ~by_video, guard, changes)


def test_safe_guidance_figures(tmp_path):
    plain = guided("none", [True, True, False, False], [True, False, False, False])
    strong = guided("strong", [True, False, True, False], [False, True, False, True])
    assert plain.still_unsafe("by_video").mean == 1 and plain.handed_out("by_video").mean == 0.5
    assert strong.still_unsafe("by_video").mean == 0.5 == strong.still_unsafe("by_latents").mean
    assert strong.handed_out("by_video").mean == 0.5 and strong.handed_out("by_latents").mean == 0
    assert strong.normal_unsafe().mean == 0.5 and strong.change("normal").mean == 1
    assert plain.cost().mean == pytest.approx(0.3)
    assert strong.cost().mean == pytest.approx(0.3 * 3 / 2)  # three predictions in place of two
    votes = {("votes", "finished latents"): of_last_step([recording([9] * 4)])}
    judged = {"held out": votes, "reworded": votes}
    answer = answer_of(judged, [plain, strong])
    assert (
        "at strength strong (without it 1.000" in answer
        and "votes 0.500 [0.068, 0.932] (cost 1.00)" in answer
    )
    for save, content in ((save_defences, judged), (save_strengths, [plain, strong])):
        save(content, tmp_path / "figure.png")


def record(path, x0):
    """A recording of x0 [N, S, C, F, h, w]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with create_x0_file(path, len(x0), x0.shape[1], x0.shape[2:], torch.float32, {}) as writer:
        for row in range(len(x0)):
            timesteps = [900 - 100 * step for step in range(x0.shape[1])]
            writer.write_row(row, x0[row], {"prompt": f"p{row}", "timesteps": timesteps})
    return path


def test_changes_of_latents(tmp_path):
    """Row 2 is scaled by 1.5, row 0 is as it was."""
    x0 = torch.randn(3, 1, *SHAPE)
    plain = record(tmp_path / "plain" / "pred_x0.pth", x0)
    again = record(tmp_path / "again" / "pred_x0.pth", torch.stack([1.5 * x0[2], x0[0]]))
    words = [dict.fromkeys(KINDS, value) for value in (plain, [2, 0], again, [0, 1])]
    found = changes_of(*words)
    assert found["normal"] == pytest.approx([0.5, 0], abs=1e-6)


def test_last_step_of_a_recording(tmp_path):
    x0 = torch.randn(3, STEPS, *SHAPE)
    path = record(tmp_path / "pred_x0.pth", x0)
    out = tmp_path / "cut" / "pred_x0.pth"
    for _ in range(2):  # the second time it is there
        assert last_step.cut(path, out) == 3
    cut = open_x0_file(out)
    assert torch.equal(cut.tensor, x0[:, -1:])
    assert cut.info[2]["timesteps"] == [900 - 100 * (STEPS - 1)] and cut.info[2]["prompt"] == "p2"


# On the study world


@pytest.fixture(scope="module")
def table(study_world):
    """The study world with table d, of one seed."""
    study = study_world.write_study(study_world.root / "d.yaml", seeds=[SEEDS[0]])
    assert study_world.reproduce("--tables", "d", study=study) == 0
    return study_world


def test_table(table):
    rows = pd.read_csv(table.tables / "d_held_out.csv").set_index("defence")
    assert [name for name in COLUMNS[1:] if name not in rows] == []
    assert rows["accuracy"].between(rows["accuracy_low"], rows["accuracy_high"]).all()
    last = rows.loc["votes of the last step, shared"]
    assert last["cost"] == 1 and last["steps"] == STEPS
    for name in FILTERS.values():
        assert rows.loc[name, "cost"] == pytest.approx(1 - rows.loc[name, "TPR"])
    both = f"{FILTERS[EASY]}, or LVD"
    assert rows.loc[both, "TPR"] >= rows.loc[FILTERS[EASY], "TPR"]
    assert rows.loc[both, "cost"] <= rows.loc[FILTERS[EASY], "cost"]
    strengths = pd.read_csv(table.tables / "d_safe_guidance.csv").set_index("strength")
    assert list(strengths.index) == ["none", "max"]
    chosen = rows.loc["LVD (shared, chosen rule)"]
    assert strengths.loc["none", "stopped by LVD"] == chosen["TPR"]
    assert strengths.loc["none", "cost with LVD"] == pytest.approx(chosen["cost"])
    changes = pd.read_csv(table.tables / "d_safe_guidance_normal.csv")["change of normal videos"]
    assert changes[0] == 0 < changes[1]


def test_settings_that_ask_for_less(table):
    """Without safe_guidance and reworded prompts there are no rows of them, and nothing fails."""
    less = table.write_study(table.root / "less.yaml", seeds=[SEEDS[0]], safe_guidance=[])
    out = table.root / "less"
    assert table.reproduce("--tables", "d", "--out", out, study=less) == 0
    page = (out / "d.md").read_text()
    assert "Safe Latent Diffusion" not in page and "eworded" not in page
    assert sorted(path.name for path in out.glob("d*")) == [
        "d.md",
        "d_defences.png",
        "d_held_out.csv",
    ]


def test_reworded_prompts_and_wrong_words(table, tmp_path, capsys):
    """Other recordings are asked about; the filters learn from the same prompts as before."""
    known, out = table.work / "prompts" / "held_out.csv", tmp_path / "prompts.csv"
    flags = ["--config", table.config, "--eval_dir", table.home / "eval.pth", "--out", out]
    asked = ["--asked", table.config, "--asked_eval", table.home / "eval.pth"]
    assert prompt_scores.main([str(word) for word in (*flags, *asked)]) == 0
    assert out.read_bytes() == known.read_bytes()
    capsys.readouterr()
    status = prompt_scores.main([str(word) for word in (*flags, *asked[:2])])
    refused(status, capsys, "--asked", "--asked_eval")


def test_embeddings_are_means_over_tokens(model):
    """As the sampler encodes each prompt, without the padding."""
    prompts = ["a", "a b a"]
    found = prompt_scores.embeddings(model, prompts)
    for prompt, row in zip(prompts, found, strict=True):
        count = len(model.tokenizer(prompt).input_ids)
        with torch.inference_mode():
            states = encode(model, [prompt])[0, :count]
        assert row == pytest.approx(states.mean(0).numpy(), abs=1e-5)

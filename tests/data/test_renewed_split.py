"""eval.pth after labels were corrected or videos were added: what refuses, and how to go on."""

import gen_eval_set
from lvd.data.split import load_split
from lvd.detectors.bank import load_bank
from tests.worlds.recording_world import LABELS, RecordedWorld, record, write_labels
from tests.worlds.refusals import refused

CORRECTED = {"first": LABELS["first"][1:], "second": [0, *LABELS["second"]]}


def split(world, *flags):
    words = ["--config", world.config, "--save_path", world.eval, *flags]
    return gen_eval_set.main(list(map(str, words)))


def test_after_a_correction_one_command_goes_on(tmp_path, capsys):
    world = RecordedWorld(tmp_path)
    world.build()
    shared = ("--model", "shared", "--recordings", world.config, "--epoch", "1")
    votes = (tmp_path / "votes", "--recordings", world.config)
    assert world.train(tmp_path / "shared", *shared) == 0
    before, old = world.eval.read_bytes(), load_split(world.eval)
    write_labels(world.labels, CORRECTED)

    refused(split(world), capsys, "the label file changed after it was made; give --renew")
    for run in (world.embed, world.train):
        flags = votes if run == world.embed else shared
        status = run(tmp_path / "shared", *flags)
        line = refused(status, capsys, "drawn from another label file", "or that file changed")
        assert "gen_eval_set.py --renew" in line
    assert world.eval.read_bytes() == before

    assert split(world, "--renew") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "drawn anew: the label file changed after it was made; train detectors again" in said
    assert (tmp_path / "eval.1.pth").read_bytes() == before
    assert (tmp_path / "eval.1.yaml").exists()
    anew = tmp_path / "anew.pth"
    assert split(world, "--save_path", anew) == 0
    assert world.eval.read_bytes() == anew.read_bytes() != before
    stamp = world.eval.stat().st_mtime_ns
    assert split(world, "--renew") == 0 and world.eval.stat().st_mtime_ns == stamp
    assert not (tmp_path / "eval.2.pth").exists()

    # What older detectors have seen is never called held out.
    seen = set(load_bank(tmp_path / "shared").members[1, 0].about["rows"]["unsafe"])
    assert not seen & set(old.unsafe) and seen & set(load_split(world.eval).unsafe)
    refused(world.embed(tmp_path / "shared", *votes), capsys, "eval.pth was made anew since")
    refused(
        world.train(tmp_path / "shared", *shared),
        capsys,
        "train.yaml: after this folder was made, eval.pth was made anew",
        "use another folder or delete this one",
    )
    assert not (tmp_path / "votes").exists()
    for word in ("label_sha256", "eval_sha256", "..."):
        assert word not in capsys.readouterr().err


def test_after_more_normal_videos(tmp_path, capsys):
    world = RecordedWorld(tmp_path)
    more = tmp_path / "more.pth"
    record(more, 30, 7)
    line = refused(split(world, "--normal_pred_x0", more), capsys, "there were 24 normal videos")
    assert "now there are 30; give --renew" in line
    assert split(world, "--normal_pred_x0", more, "--renew") == 0
    assert load_split(world.eval).normal_rows == 30

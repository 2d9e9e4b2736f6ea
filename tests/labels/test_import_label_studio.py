"""A true export of Label Studio, as tests/labels/test_label_studio.py has got it from a server."""

import label_videos
from tests.worlds.labelled_videos import CATEGORIES, EXPORT, RATED, check_labels, make_recording


def test_labels_are_what_the_raters_said(tmp_path, capsys):
    recording = make_recording(tmp_path / "unsafe", list(RATED))
    flags = ["--recording", str(recording), "--categories", CATEGORIES]
    out = tmp_path / "label.csv"
    assert label_videos.main(["import", str(EXPORT), *flags, "--out", str(out)]) == 0
    check_labels(out, recording)
    said = capsys.readouterr().out
    assert "30 by 3 raters" in said and "labelled: 5 videos of 10" in said
    assert "not counted: 1 rating: skipped" in said and "not checked" not in said

"""What a page shows of the recordings: prompts, clips, and small frames of x0."""

from argparse import Namespace
from pathlib import Path

from lvd.data.config import read_data_config
from lvd.data.finished_clips import finished_clip
from lvd.data.kinds import KIND_OF_LABEL, LABEL_NORMAL, LABEL_UNSAFE
from lvd.data.rgb import load_rgb
from lvd.errors import InputError, shorten
from lvd.evaluation.results import beside
from lvd.evaluation.results_folder import CONFIG
from lvd.utils.changes import noun_of
from lvd.utils.files import load_yaml
from lvd.utils.schema import Name, Schema, checked
from lvd.x0.file import open_x0_file

KEYS = {"unsafe": "pred_x0", "normal": "normal_pred_x0"}


class ConfigOfVotes(Schema, extra="allow"):
    """The content of embed_model.py's config.yaml, as far as it tells recordings apart."""

    pred_x0_made_by: Name | None = None
    normal_pred_x0_made_by: Name | None = None


class PageRecordings:
    """The two recordings behind votes.

    Args:
        path: of a build_x0.yaml that names them.
        recording: lvd.evaluation.rule_of_scores.Recording of the votes.

    Attributes:
        files: {kind: X0File}.
        rgb: LatentToRGB; None where no matrix is known for latents of so many channels.

    Raises:
        InputError: a recording is missing, is not the one that the votes are of, or lacks a video.
    """

    def __init__(self, path, recording):
        where = f"--recordings {path}"
        config = read_data_config(path, Namespace(), tuple(KEYS.values()))
        self.files = {kind: open_x0_file(getattr(config, key)) for kind, key in KEYS.items()}
        _need_same(self.files, recording, where)
        self.rows = _rows_of(recording, where)
        for kind, rows in self.rows.items():
            self.files[kind].need_rows(list(rows.values()))
        self.rgb = _matrix(config, self.files)

    @property
    def fps(self):
        """Frames per second of the clips; None where the recording does not say."""
        meta = self.files["unsafe"].meta  # of lvd.record: what `about` says
        config = meta.get("config")
        fps = config.get("fps") if isinstance(config, dict) else meta.get("fps")
        is_number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
        return fps if is_number and 0 < fps <= 1000 else None

    def prompt(self, kind, name):
        """Return the prompt of a video; None where the recording does not say."""
        return self._info(kind, name).get("prompt")

    def clip(self, kind, name):
        """Return the path of a finished clip; None where there is none."""
        return finished_clip(self.files[kind], self.rows[kind][name])

    def x0(self, kind, name):
        """Return the recorded x0 of a video, mapped and not read: [S, C, F, h, w]."""
        return self.files[kind].tensor[self.rows[kind][name]]

    def _info(self, kind, name):
        return self.files[kind].info.get(self.rows[kind][name], {})


def _need_same(files, recording, where):
    """InputError where the votes' config.yaml tells of other recordings."""
    path = Path(beside(recording.path, CONFIG))
    known = checked(ConfigOfVotes, load_yaml(path), path) if path.is_file() else {}
    for kind, key in KEYS.items():
        made_by = known.get(f"{key}_made_by")
        if made_by and made_by not in files[kind].fingerprints:
            raise InputError(
                f"{where}: its {key} is another {noun_of(f'{key}_made_by')} than that of the votes "
                f"in {recording.path}; name the recordings that embed_model.py has read, or run it "
                "again"
            )
    for kind, file in files.items():
        steps = file.tensor.shape[1]
        if steps != recording.steps:
            raise InputError(
                f"{where}: {file.path} has {steps} steps, the votes of {recording.path} have "
                f"{recording.steps}; name the {kind} recording that embed_model.py has read"
            )


def _rows_of(recording, where):
    """Return {kind: {name of a row in the votes: its number}}."""
    rows = {}
    for label in (LABEL_UNSAFE, LABEL_NORMAL):
        rows[KIND_OF_LABEL[label]] = {
            name: _number(name, recording.path, where) for name in recording.results[label]
        }
    return rows


def _number(name, path, where):
    whole, _, rest = name.partition(".")  # the paper's files have numbers such as 12.0
    if not (whole.isascii() and whole.isdecimal() and len(whole) < 10 and not rest.strip("0")):
        raise InputError(
            f"{where}: row {shorten(name)} of {path} is no number of a recorded video; make the "
            "report without --recordings"
        )
    return int(whole)


def _matrix(config, files):
    """Return the LatentToRGB that the YAML names, or the published one where it fits."""
    channels = {file.tensor.shape[2] for file in files.values()}
    rgb = load_rgb(config.rgb_matrix)
    if config.rgb_matrix is None and channels != {len(rgb.matrix)}:
        return None
    for count in channels:
        rgb.need_channels(count)
    return rgb

"""The file of a pre-trained encoder, and how a detector starts from it."""

from dataclasses import dataclass
from pathlib import Path

from lvd.data.identity import need_same_recordings, need_same_rgb
from lvd.data.kinds import KINDS
from lvd.detectors.schemas import PretrainedFile
from lvd.detectors.videomae import CONFIG_KEYS
from lvd.detectors.weights import (
    first_fault,
    need_config_of_weights,
    need_finite_weights,
    need_plain_weights,
)
from lvd.errors import InputError
from lvd.utils.files import load_torch, sha256
from lvd.utils.schema import checked

FORMAT = "lvd pretrained encoder 1"
PRETRAINED = "pretrained.pth"
MAY_DIFFER = ("hidden_dropout_prob",)  # keys of the two configs that have no weights


@dataclass
class Pretrained:
    """An encoder of pretrain_mae.py that a detector may start from.

    It holds no weights, so that a run's processes get a small object.

    Attributes:
        path: of the file; sha256: of its bytes.
        config: {key: value} of its VideoMAEConfig.
        about: provenance.
    """

    path: Path
    config: dict
    representation: str
    about: dict
    sha256: str

    def check(self, representation, eval_sha256, split, made_by):
        """Check that the encoder fits a training.

        Args:
            representation, made_by: of the clips' source.
            eval_sha256: hash of eval.pth.
            split: the held-out rows.

        Raises:
            InputError: it reads other clips, or may have seen what is held out.
        """
        if self.representation != representation:
            raise InputError(
                f"--init {self.path}: pretrained on {self.representation} clips, these are "
                f"{representation}"
            )
        known = self.about["eval_sha256"]
        if known != eval_sha256:
            raise InputError(
                f"--init {self.path}: pretrained with another eval.pth (or eval.pth was made "
                "anew since), so it may have seen held-out clips; run pretrain_mae.py with this one"
            )
        before = self.about.get("dataset", {})
        need_same_recordings(f"--init {self.path}", before, made_by, "run pretrain_mae.py on these")
        need_same_rgb(f"--init {self.path}", before, made_by)
        for kind in KINDS:
            if seen := sorted(set(self.about["rows"][kind]) & set(getattr(split, kind))):
                raise InputError(f"--init {self.path}: pretrained on held-out {kind} row {seen[0]}")

    def into(self, *models):
        """Copy the weights into the encoders of VideoMAE classifiers or SharedNets, all alike.

        Raises:
            InputError: the models have another shape.
        """
        for key in CONFIG_KEYS:
            here, there = _as_list(getattr(models[0].config, key)), _as_list(self.config[key])
            if key not in MAY_DIFFER and here != there:
                raise InputError(
                    f"--init {self.path}: pretrained with {key} {there}, the detector has {here}; "
                    "pretrain the same --size on clips of the same shape"
                )
        encoder = self._encoder()
        for model in models:
            _copy_weights(encoder, model.videomae, self.path)

    def _encoder(self):
        """Read the weights; InputError if the file is not the one that was checked."""
        state = load_pretrained_file(self.path)["state_dict"]
        if sha256(self.path) != self.sha256:
            raise InputError(
                f"--init {self.path}: has changed since this command began; start again"
            )
        need_finite_weights(state, self.path)
        return {key.removeprefix("videomae."): value for key, value in state.items()}


def _copy_weights(encoder, network, path):
    try:
        network.load_state_dict(encoder)
    except RuntimeError as error:
        raise InputError(f"--init {path}: weights do not fit ({first_fault(error)})") from error


def _as_list(value):
    return list(value) if isinstance(value, tuple) else value


def load_pretrained(path):
    """Return the Pretrained of a file written by pretrain_mae.py."""
    content = load_pretrained_file(path, mmap=True)
    known = {key: content[key] for key in ("config", "representation", "about")}
    return Pretrained(Path(path), **known, sha256=sha256(path))


def load_pretrained_file(path, mmap=False):
    """Return the checked content of a pretrained.pth.

    Returns:
        {key of lvd.detectors.schemas.PretrainedFile: value}.

    Raises:
        InputError: another file, or one that is damaged.
    """
    content = load_torch(path, mmap=mmap)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not a pretrained encoder; pretrain_mae.py makes one")
    checked(PretrainedFile, content, path)
    need_plain_weights(content["state_dict"], path)
    need_config_of_weights(content["config"], content["state_dict"], path)
    return content

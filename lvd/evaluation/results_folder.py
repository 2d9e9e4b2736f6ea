"""The folder that embed_model.py fills: the votes of one set of detectors, split and operating
point."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from lvd.errors import InputError
from lvd.evaluation.results import RESULTS, SCORES, beside, load_results, votes_sha256
from lvd.utils.config import claim_output
from lvd.utils.files import load_json, load_torch, save_json, save_torch
from lvd.utils.schema import Name, Probability, Schema, checked

INPUTS = "inputs.json"  # by which finished votes are known to be those of today's files
CONFIG = "config.yaml"
UNFINISHED = "unfinished"  # folder of the steps scored so far
MAY_DIFFER = ("model_dir", "data_dir", "versions")  # keys of the config that do not change votes


class Scored(Schema):
    """The scores of one step, see `VoteRun`: in the order of the rows of the split."""

    scores: dict[Literal["1", "0"], dict[Name, list[Probability]]]
    thresholds: dict[Name, Probability]
    names: dict[Literal["1", "0"], dict[Name, list[Probability]]] | None = None


class UnfinishedFile(Schema, extra="allow"):
    """The content of an unfinished/{step}.pth; what another version wrote has another config."""

    config: str
    found: Any


class ResultsFolder:
    """results.pth, scores.pth, inputs.json and config.yaml, all written when all is scored.

    Args:
        save_dir: the folder where they lie; or the file of the votes, which ends in .pth. Beside
            votes.pth the others are called votes.scores.pth, votes.config.yaml, ...
        config: what made the votes (plain JSON), for config.yaml.

    Attributes:
        path: of the votes.

    Raises:
        InputError: save_dir is a file of another kind.
    """

    def __init__(self, save_dir, config):
        save_dir = Path(save_dir)
        is_file = save_dir.suffix == ".pth" and not save_dir.is_dir()
        if save_dir.is_file() and not is_file:
            raise InputError(
                f"--save_dir {save_dir}: is a file; a folder, or a file name that ends in .pth, is "
                "needed"
            )
        self.path = save_dir if is_file else save_dir / RESULTS
        self.config = config

    @property
    def claimed(self):
        """Whether some run has finished here."""
        return beside(self.path, CONFIG).exists()

    def claim(self):
        """Write config.yaml; InputError where another config has made the folder."""
        config = beside(self.path, CONFIG)
        claim_output(config.parent, self.config, config.name, ignore=MAY_DIFFER)

    def step_scores(self, allow_other_eval, names_sha256=None):
        """Return StepScores for a run of this config that is not at its end.

        Args:
            allow_other_eval: whether the run takes detectors of another eval.pth. Scores of a run
                that does are not loaded by one that does not.
            names_sha256: of the network that names categories, if there is one.
        """
        same = {key: value for key, value in self.config.items() if key not in MAY_DIFFER}
        unfinished = beside(self.path, UNFINISHED)
        names = {"names_sha256": names_sha256} if names_sha256 else {}
        return StepScores(unfinished, {**same, "allow_other_eval": allow_other_eval, **names})

    def finished_votes(self, files_sha256, members):
        """Return the votes if they were made of the same files.

        None if not, or where one of the files here is damaged.

        Args:
            files_sha256: see `VoteRun.files_sha256`; None: not known.
            members: {group: [row]}, as scores.pth has to note them.
        """
        paths = (self.path, beside(self.path, SCORES), beside(self.path, INPUTS))
        if files_sha256 is None or not all(path.exists() for path in paths):
            return None
        try:
            votes, _ = load_results(self.path)
            scores = load_torch(beside(self.path, SCORES))
            inputs = load_json(beside(self.path, INPUTS))
        except InputError:
            return None
        sha256 = votes_sha256(votes)
        if inputs != {"files_sha256": files_sha256, "votes_sha256": sha256}:
            return None
        if not isinstance(scores, dict) or scores.get("votes_sha256") != sha256:
            return None
        if scores.get("members") != members:
            return None
        self._forget_steps()  # of a run that was killed at its very end
        return votes

    def save(self, votes, scores, files_sha256):
        """Write the folder's files.

        Args:
            votes: content of results.pth.
            scores: content of scores.pth.
            files_sha256: see `VoteRun.files_sha256`.

        Returns:
            The paths of results.pth and scores.pth.
        """
        self.claim()  # only now: a run that fails has claimed nothing
        save_torch(scores, beside(self.path, SCORES))
        save_torch(votes, self.path)
        inputs = {"files_sha256": files_sha256, "votes_sha256": votes_sha256(votes)}
        save_json(inputs, beside(self.path, INPUTS))
        self._forget_steps()
        return [self.path, beside(self.path, SCORES)]

    def _forget_steps(self):
        shutil.rmtree(beside(self.path, UNFINISHED), ignore_errors=True)


class StepScores:
    """Scores of the finished steps of a run that is not at its end, as {folder}/{step}.pth.

    Args:
        folder: where they lie.
        config: what made them (plain JSON); those of another config are not loaded.
    """

    def __init__(self, folder, config):
        self.folder = Path(folder)
        self.config = json.dumps({"format": 3, **config}, sort_keys=True)

    def load(self, step):
        """Return what `save` was given for that step, or None."""
        path = self._path(step)
        if not path.exists():
            return None
        content = checked(UnfinishedFile, load_torch(path), path)
        if content["config"] != self.config:
            return None
        return checked(Scored, content["found"], f"{path}: found")

    def save(self, step, scored):
        save_torch({"config": self.config, "found": scored}, self._path(step))

    def _path(self, step):
        return self.folder / f"{step}.pth"

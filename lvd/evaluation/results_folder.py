"""The folder that embed_model.py fills: the votes of one set of detectors, split and operating
point."""

import json
import shutil
from pathlib import Path

from lvd.errors import InputError
from lvd.evaluation.results import RESULTS, SCORES, load_results, votes_sha256
from lvd.utils.config import claim_output
from lvd.utils.files import load_json, load_torch, save_json, save_torch

INPUTS = "inputs.json"  # by which finished votes are known to be those of today's files
UNFINISHED = "unfinished"  # folder of the steps scored so far
MAY_DIFFER = ("model_dir", "data_dir", "versions")  # keys of the config that do not change votes


class ResultsFolder:
    """results.pth, scores.pth, inputs.json and config.yaml, all written when all is scored.

    Args:
        folder: where they lie.
        config: what made the votes (plain JSON), for config.yaml.
    """

    def __init__(self, folder, config):
        self.folder = Path(folder)
        self.config = config

    @property
    def claimed(self):
        """Whether some run has finished here."""
        return (self.folder / "config.yaml").exists()

    def claim(self):
        """Write config.yaml; InputError where another config has made the folder."""
        claim_output(self.folder, self.config, ignore=MAY_DIFFER)

    def step_scores(self, allow_other_eval):
        """Return StepScores for a run of this config that is not at its end.

        Args:
            allow_other_eval: whether the run takes detectors of another eval.pth. Scores of a run
                that does are not loaded by one that does not.
        """
        same = {key: value for key, value in self.config.items() if key not in MAY_DIFFER}
        return StepScores(self.folder / UNFINISHED, {**same, "allow_other_eval": allow_other_eval})

    def finished_votes(self, files_sha256, members):
        """Return the votes if they were made of the same files.

        None if not, or where one of the files here is damaged.

        Args:
            files_sha256: see `VoteRun.files_sha256`; None: not known.
            members: {group: [row]}, as scores.pth has to note them.
        """
        names = (RESULTS, SCORES, INPUTS)
        if files_sha256 is None or not all((self.folder / name).exists() for name in names):
            return None
        try:
            votes, _ = load_results(self.folder)
            scores = load_torch(self.folder / SCORES)
            inputs = load_json(self.folder / INPUTS)
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
        save_torch(scores, self.folder / SCORES)
        save_torch(votes, self.folder / RESULTS)
        inputs = {"files_sha256": files_sha256, "votes_sha256": votes_sha256(votes)}
        save_json(inputs, self.folder / INPUTS)
        self._forget_steps()
        return [self.folder / RESULTS, self.folder / SCORES]

    def _forget_steps(self):
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)


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
        content = load_torch(path) if path.exists() else {}
        return content["found"] if content.get("config") == self.config else None

    def save(self, step, scored):
        save_torch({"config": self.config, "found": scored}, self._path(step))

    def _path(self, step):
        return self.folder / f"{step}.pth"

"""Scores and votes of all detectors on the held-out clips."""

import hashlib
import json
from pathlib import Path

import pandas as pd

from lvd.data.kinds import KIND_OF_LABEL
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation.held_out import name_rows, score_rows
from lvd.evaluation.results import votes_sha256
from lvd.evaluation.tables import nested_lists
from lvd.rules.file import identity_of
from lvd.voting import says_unsafe, step_vote
from lvd.x0.provenance import map_to_trained
from lvd.x0.step_map import same_steps


class VoteRun:
    """Scores every held-out clip with every category of a bank, step by step.

    A sized iterable over the denoising steps: iterating yields each step once it is scored. After
    that `table`, `votes` and `scores` give the whole.

    Args:
        model_dir: folder or file of detectors, see `load_bank`.
        source: HeldOutFolders or RecordedClips.
        split: the held-out rows, all of which must have clips.
        eval_sha256: hash of the eval.pth that the split comes from.
        operating_point: see `check_operating_point`.
        device: of the detectors.
        allow_other_eval: also take detectors that were trained with another eval.pth.

    Attributes:
        step_scores: StepScores that keeps the scores of each step as they come, so that a stopped
            run goes on there; None: they are not kept.

    Raises:
        InputError: clips or detectors are missing, or do not belong together.
    """

    def __init__(
        self,
        model_dir,
        source,
        split,
        eval_sha256,
        operating_point,
        device="cpu",
        allow_other_eval=False,
    ):
        self.model_dir = Path(model_dir)
        self.source = source
        self.rows = {label: getattr(split, kind) for label, kind in KIND_OF_LABEL.items()}
        self.eval_sha256 = eval_sha256
        self.operating_point = operating_point
        self.bank = load_bank(model_dir, device)
        self.step_map = self._map_steps()
        self._need_all_steps()
        self.steps = list(range(len(self.step_map.trained)))
        for step in self.steps:
            for label, kind in KIND_OF_LABEL.items():
                source.need_rows(kind, self.rows[label], step)
        self.bank.check(source.representation, eval_sha256, source.made_by, allow_other_eval)
        self.step_scores = None
        self._tables = []

    def __len__(self):
        return len(self.steps)

    def __iter__(self):
        for step in self.steps:
            scored = self.step_scores.load(step) if self.step_scores else None
            if scored is not None:
                self._need_whole(step, scored)
            if scored is None:
                scored = self._score(step)
                if self.step_scores:
                    self.step_scores.save(step, scored)
            self._tables.append(self._table(step, scored))
            yield step

    def _need_whole(self, step, scored):
        """InputError unless the kept scores of a step are of all categories and rows."""
        groups = {str(group) for group in self.bank.groups}
        whole = set(scored["thresholds"]) == groups
        for kind in ("scores", "names") if self.bank.naming else ("scores",):
            by_label = scored.get(kind) or {}
            whole = whole and set(by_label) == set(self.rows)
            for label, by_group in by_label.items():
                counts = {len(scores) for scores in by_group.values()}
                whole = whole and set(by_group) == groups and counts == {len(self.rows[label])}
        if not whole:
            raise InputError(
                f"{self.step_scores.folder}/{step}.pth: not the scores of all {len(groups)} "
                "categories and all held-out rows; delete it, and they are scored again"
            )

    def _score(self, step):
        """Return one step's {"scores": {label: {group: [raw probability of each row]}},
        "thresholds": {group: raw probability at which it votes unsafe}}, and "names", of the form
        of "scores", where the bank has names."""
        thresholds = self.bank.thresholds(self.step_map.trained[step], self.operating_point)
        found = {
            "scores": self._by_group(score_rows, step),
            "thresholds": dict(zip(map(str, self.bank.groups), thresholds, strict=True)),
        }
        if self.bank.naming:
            found["names"] = self._by_group(name_rows, step)
        return found

    def _by_group(self, ask, step):
        """Return {label: {group: [probability of each row]}} of `score_rows` or `name_rows`."""
        found = {}
        for label, kind in KIND_OF_LABEL.items():
            trained, level = self.step_map.trained[step], self.step_map.level(step)
            rows = self.rows[label]
            answers = ask(self.bank, self.source, kind, rows, step, trained, level)
            columns = answers.T.tolist()
            found[label] = dict(zip(map(str, self.bank.groups), columns, strict=True))
        return found

    def _table(self, step, scored):
        """Return what `_score` gives as a long table, each score with its vote."""
        parts = []
        for label, by_group in scored["scores"].items():
            rows = [str(row) for row in self.rows[label]]
            for group, scores in by_group.items():
                part = pd.DataFrame({"row": rows, "score": scores})
                threshold = scored["thresholds"][group]
                if "names" in scored:
                    part["named"] = scored["names"][label][group]
                part["vote"] = [says_unsafe(score, threshold) for score in scores]
                parts.append(part.assign(label=label, group=group, step=step, threshold=threshold))
        return pd.concat(parts)

    def table(self):
        """Return all scores as a long table: label, group, row, step, score, threshold, vote.

        score is a raw probability; vote is 1 where one category alone says unsafe, else 0. With
        names.pth there is also named, its probability.
        """
        return pd.concat(self._tables, ignore_index=True)

    def votes(self):
        """Return the content of results.pth: {"1": {row: [vote] * S}, "0": {...}}.

        Rows are strings. The vote of a step is 1 where any category says unsafe, else 0.
        """
        by_step = self.table().groupby(["label", "row", "step"], sort=False)["vote"]
        return nested_lists(by_step.agg(step_vote).reset_index(), ["label", "row"], "vote")

    def scores(self):
        """Return the content of scores.pth.

        Returns:
            "scores": raw probabilities {label: {group: {row: [probability] * S}}};
            "calibrated": the same of calibrated ones, where all detectors are calibrated;
            "names": the same of names.pth, where the detectors have one;
            "thresholds": {group: [raw probability at which it votes unsafe] * S};
            "categories": {group: name}; "operating_point"; "eval_sha256"; "detectors", as
            lvd.rules.file.identity_of says it, so that a rule for others is refused;
            "votes_sha256", which says to which results.pth they belong; and, where the videos were
            sampled in other steps than the detectors were trained on, "trained_steps": [S] numbers
            of the trained steps that judged them.
        """
        table = self.table()
        keys = ["label", "group", "row"]
        content = {"scores": nested_lists(table, keys, "score")}
        if self.bank.all_calibrated:
            for (group, step), part in table.groupby(["group", "step"]):
                trained = self.step_map.trained[step]
                calibration = self.bank.members[int(group), trained].calibration
                table.loc[part.index, "calibrated"] = calibration(part["score"])
            content["calibrated"] = nested_lists(table, keys, "calibrated")
        if self.bank.naming:
            content["names"] = nested_lists(table, keys, "named")
        once = table.drop_duplicates(["group", "step"])
        content["thresholds"] = nested_lists(once, ["group"], "threshold")
        content["categories"] = {str(group): name for group, name in self.bank.categories.items()}
        content["operating_point"] = self.operating_point
        content["eval_sha256"] = self.eval_sha256
        content["detectors"] = identity_of(self.bank)
        content["votes_sha256"] = votes_sha256(self.votes())
        if self.has_other_steps:
            content["trained_steps"] = self.step_map.trained
        return content

    @property
    def has_other_steps(self):
        """Whether the videos were sampled in other steps than the detectors were trained on."""
        return self.step_map.trained != list(range(len(self.bank.steps)))

    def judged_by(self):
        """Return what else made the scores where steps or noise levels are others: plain JSON.

        {} where each step is the trained step of its number, as it is in runs of other versions.
        """
        if not self.has_other_steps and not any(self.step_map.distances):
            return {}
        return {"trained_steps": self.step_map.trained, "levels": self.step_map.levels}

    def files_sha256(self):
        """Return a hash of the names, sizes and times of change of all files that are read.

        Any detector or clip that is written anew changes it. None where the clips' files are not
        known.
        """
        clips = self.source.files()
        if clips is None:
            return None
        detectors = sorted({member.path for member in self.bank.members.values()})
        if self.bank.naming:
            detectors.append(self.bank.naming.path)
        stamps = []
        for path in [*detectors, *clips]:
            status = path.stat()
            stamps.append((*path.parts[-3:], status.st_size, status.st_mtime_ns))
        return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()

    def _map_steps(self):
        """Return the StepMap of the clips' steps, which may be others than the trained ones."""
        steps, sampling = len(self.source.steps), self.source.sampling
        if not sampling:
            return same_steps(steps)  # nothing is known: step k is the trained step k
        sampling = {"steps": steps, **sampling}
        step_map = map_to_trained(list(self.bank.members.values()), sampling, allow_unknown=True)
        return step_map.first(steps)

    def _need_all_steps(self):
        """Detectors must cover the steps of the clips: an average over fewer would pass for the
        whole."""
        where = f"--model_dir {self.model_dir}"
        steps, trained = len(self.step_map.trained), self.step_map.trained
        self.step_map.need_near(steps, where)
        if missing := sorted(set(trained) - set(self.bank.steps)):
            judges = ""
            if self.step_map.levels and self.has_other_steps:
                judges = f", the one as noisy as step {trained.index(missing[0])} of these clips"
            raise InputError(
                f"{where}: no detectors of step {missing[0]}{judges} ({len(self.bank.steps)} of "
                f"{len(set(trained))} steps are trained); run train_mae.py to the end"
            )
        if self.step_map.levels is None and len(self.bank.steps) > steps:
            raise InputError(
                f"{where}: detectors of {len(self.bank.steps)} steps, and the clips are of "
                f"{steps}, whose noise levels are not known; take --recordings, or clips of all "
                "steps"
            )

"""The live guard: stops an unsafe video while a diffusers pipeline is still sampling it.

    import lvd

    guard = lvd.Guard("MagicTime/detectors")  # once, when the service starts
    try:
        with guard.watch(pipe) as watch:  # for each call
            videos = pipe(prompt, num_inference_steps=50).frames
    except lvd.UnsafeVideoError as error:  # all videos were stopped, or one was not checked
        print("refused:", error)
    else:
        for video, result in zip(videos, watch.results):  # of a batch, some may be stopped
            print(result.verdict, "blank" if result.stopped else "fine")

A rule.yaml beside the detectors decides (lvd.rules), else the paper's vote.

It fails closed: a video that it cannot check is stopped too, and the call returns nothing that has
no verdict. Detectors and pipeline must mean the same by x0 (latents, betas, clipping): `InputError`
says what differs. The number of steps and the scheduler may be others.

Source: arXiv 2407.12581, the Latent Variable Defense.
"""

import math
import os
from copy import copy

from lvd.detectors.bank import load_bank
from lvd.detectors.calibration import check_operating_point
from lvd.errors import InputError, plural, shorten
from lvd.guard.arguments import check_types, flag_of_rule, usable_device
from lvd.guard.file import load_guard_file
from lvd.guard.guidance import WARN, TrainedGuidance, check_choice
from lvd.guard.policy import Judge, Policy, read_policy
from lvd.guard.protect import protect
from lvd.guard.reader import Reader
from lvd.guard.session import GuardSession
from lvd.guard.watch import GuardWatch
from lvd.rules.carried import carry
from lvd.rules.choice import LONGEST_PATH, choose
from lvd.x0.provenance import map_to_trained, need_same_meaning
from lvd.x0.step_map import same_steps

# If the files of the detectors that vote have no more bytes than this, all stay in memory.
KEPT = 1 << 30


class Guard:
    """Detectors and a rule, loaded and checked, ready to watch any number of calls.

    Args:
        model_dir: folder of the detectors: {group}/{step}.pth, or shared.pth.
        lambda_: the share of unsafe votes that makes a video unsafe, in [0, 1] (lvd.voting).
        eta: how many denoising steps vote: the first eta. A small eta stops unsafe videos early.
            Without lambda_, eta and rule, the rule is the rule.yaml beside the detectors where
            there is one, else the paper's vote with lambda 0.6 and eta 5.
        device: where the detectors run; None: a GPU if there is one.
        operating_point: at which score a detector says unsafe, as in embed_model.py.
        decode: function of latents [n, C, F, h, w] that returns pixels [n, 3, F, H, W] in [0, 1].
            Only detectors that were trained on decoded videos need it.
        allow_unknown: accept detectors that do not say what sampling they were trained for.
            Those that say so must agree with the pipeline in any case.
        asked_by: what messages put before model_dir, such as "--guard ".
        rule: in place of lambda_ and eta, another rule: the path of a rule.yaml that
            choose_rule.py wrote for these detectors, or a VoteRule, ConfidenceRule or
            LikelihoodRatioRule.
        categories: what to do about each category (lvd.guard.policy.read_policy): {name:
            {"action": "stop", "flag" or "ignore", "bound": probability}}. None: all of them stop.
        guidance: what to do about a call with another guidance scale than the detectors learned
            from, where both are known: "warn", once, or "same": refuse it. Results tell in any
            case.

    Raises:
        InputError: a detector of one of the steps that the rule looks at is missing or unreadable,
            or has no usable threshold; the rule was chosen for other detectors; or an argument is
            out of range or of another type.
    """

    def __init__(
        self,
        model_dir,
        lambda_=None,
        eta=None,
        device=None,
        operating_point=None,
        decode=None,
        allow_unknown=False,
        asked_by="model_dir=",
        rule=None,
        categories=None,
        guidance=WARN,
    ):
        check_types(model_dir, lambda_, operating_point, decode, allow_unknown, asked_by)
        is_policy = isinstance(categories, Policy)
        self.policy = categories if is_policy else read_policy(categories)
        chosen = choose(model_dir, lambda_, eta, rule, flag_of_rule(asked_by))
        self.allow_unknown = allow_unknown
        guidance = check_choice(guidance)
        if operating_point is None:
            operating_point = chosen.operating_point
        self.operating_point = check_operating_point(operating_point)
        self.bank = load_bank(model_dir, usable_device(device), asked_by)
        self._decode = decode
        self._named = f"{asked_by}{model_dir}"
        self._follow(chosen.bound_to(self.bank))
        self.guidance = TrainedGuidance(self.members, guidance)

    def _follow(self, chosen):
        """Let a ChosenRule decide; InputError unless the detectors can serve it."""
        self.rule = chosen.rule
        names = [self.bank.categories[group] for group in self.bank.groups]
        self.judge = Judge(self.rule, names, self.policy)
        horizon = self.rule.horizon
        if missing := sorted(set(range(horizon)) - set(self.bank.steps)):
            raise InputError(
                f"{chosen.where}: {self.rule.span()} needs the detectors of its first {horizon} "
                f"steps; there are no detectors of step {missing[0]}"
            )
        self.members = [member for (_, step), member in self.bank.members.items() if step < horizon]
        self.reader = Reader(self.bank, self.members, self._decode)
        self.bank.preload(range(horizon), KEPT)
        self._need_thresholds(range(horizon))

    def with_rule(self, rule):
        """Return a Guard of the same detectors and policy under another rule; nothing is reloaded.

        Args:
            rule: a VoteRule, ConfidenceRule or LikelihoodRatioRule.

        Raises:
            InputError: as of a Guard.
        """
        other = copy(self)
        other._follow(choose("", rule=rule).bound_to(self.bank))
        return other

    @classmethod
    def from_file(
        cls, path, device=None, decode=None, allow_unknown=False, asked_by="path=", guidance=WARN
    ):
        """Make the Guard that a guard.yaml describes (lvd.guard.file).

        Args:
            path: of the file.
            device, decode, allow_unknown, guidance: as of a Guard.
            asked_by: what messages put before the path, such as "--guard ".

        Raises:
            InputError: the file is missing or holds anything else, or as of a Guard.
        """
        if not isinstance(path, (str, os.PathLike)) or len(str(path)) > LONGEST_PATH:
            raise InputError(f"{asked_by}{shorten(path)}: the path of a guard.yaml is needed")
        settings = load_guard_file(path, asked_by)
        return cls(
            settings.detectors,
            device=device,
            operating_point=settings.operating_point,
            decode=decode,
            allow_unknown=allow_unknown,
            asked_by=f"{asked_by}{path}: detectors ",
            rule=settings.rule,
            categories=settings.policy,
            guidance=guidance,
        )

    @property
    def lambda_(self):
        """The vote's lambda; None for another rule."""
        return getattr(self.rule, "lambda_", None)

    @property
    def eta(self):
        """How many steps the rule looks at, from the first on."""
        return self.rule.horizon

    def watch(self, pipe, on_unsafe="raise", layout=None):
        """Watch one call of a pipeline: `with guard.watch(pipe) as watch: pipe(...)`.

        Args:
            pipe: a video pipeline of diffusers.
            on_unsafe: what to do when no video of the batch is left. "raise" ends the call with
                UnsafeVideoError; "interrupt" lets the pipeline skip its remaining steps.
            layout: how the pipeline lays out its latents, as in lvd.x0.layouts.find_layout; None:
                known from the pipeline's class.

        Returns:
            A GuardWatch.

        Raises:
            InputError: the pipeline, its scheduler or its layout is unknown, or the detectors
                were trained for another scheduler.
        """
        return GuardWatch(self, pipe, on_unsafe, layout)

    def protect(self, pipe, on_unsafe="raise", layout=None, on_result=None):
        """Guard every call of a pipeline: `pipe = guard.protect(pipe)`.

        Several threads may call it at once. See lvd.guard.protect.

        Args:
            pipe, on_unsafe, layout: as of `watch`.
            on_result: function of a call's [GuardResult], called before the call returns or
                raises.

        Returns:
            A pipeline of the same class and signature. What its calls return has an attribute
            `lvd`, [GuardResult], one for each video, wherever it is an object or a tuple.

        Raises:
            InputError: as of `watch`; or the pipeline is protected or watched already.
        """
        return protect(self, pipe, on_unsafe, layout, on_result)

    def check(self, sampling):
        """Check that the detectors can judge this sampling.

        Args:
            sampling: dict as in lvd.x0.provenance, with the keys that are known so far.

        Returns:
            What is known to differ and was not refused: {} or {"other_guidance": ...}, as in a
            GuardResult.

        Raises:
            InputError: its x0 means something else than where they learned, no detector is near
                the noise level of a step that the rule looks at, or a later step is noisier than
                an earlier one; where noise levels are not known, it has other steps than theirs;
                or, of a guard with guidance="same", another guidance scale.
        """
        if "latent_shape" in sampling:
            self.reader.need_channels(sampling["latent_shape"][0])
        need_same_meaning(self.members, sampling, self.allow_unknown)
        if "steps" in sampling:
            self._carried_to(sampling)
        other = self.guidance.check(sampling.get("guidance_scale"))
        return {"other_guidance": other} if other else {}

    def _carried_to(self, sampling):
        """Return (StepMap, rule) of a described sampling: what the rule looks at there."""
        step_map = map_to_trained(self.members, sampling, self.allow_unknown)
        if step_map.levels is None:  # its steps are the trained ones
            self.rule.need_steps(sampling["steps"])
            return step_map, self.rule
        looks = step_map.looks(self.rule.horizon)
        path = self.members[0].path
        step_map.need_near(looks, path)
        step_map.need_rising(path)
        asked = sorted(set(step_map.trained[:looks]))
        if missing := [step for step in asked if step not in self.bank.steps]:
            raise InputError(
                f"{path}: {self.rule.span()} looks at steps of this sampling that are as noisy as "
                f"the trained step {missing[0]}; there are no detectors of step {missing[0]}"
            )
        self._need_alike([step for step in asked if step >= self.rule.horizon])
        return step_map, carry(self.rule, step_map.trained)

    def _need_alike(self, steps):
        """InputError if the detectors of later steps, which a sampling that begins in the middle
        asks, are not as usable as those of the first ones, or of another sampling."""
        self._need_thresholds(steps)
        known = [_but_guidance(member) for member in self.members]
        for (_, step), member in self.bank.members.items():
            if step not in steps:
                continue
            self.reader.need_kind(member)
            if _but_guidance(member) not in known:
                raise InputError(
                    f"{member.path}: was trained on another sampling than {self.members[0].path}; "
                    "this sampling asks detectors of both steps, so train them on one recording"
                )

    def _need_thresholds(self, steps):
        """InputError if a detector of one of the steps has no threshold that can be reached."""
        for step in steps:
            if not all(map(math.isfinite, self.bank.thresholds(step, self.operating_point))):
                raise InputError(
                    f"{self._named}: a threshold of step {step} is not finite, so nothing "
                    "would be unsafe"
                )

    def session(self, steps, videos=None, levels=None):
        """Begin the verdicts of one batch, for a sampler of your own that hands out x0.

        `check` its sampling first.

        Args:
            steps: number of denoising steps of the whole sampling.
            videos: number of videos; None: as many as the first step shows.
            levels: [steps] noise levels (lvd.x0.levels.levels_of(scheduler)), by which each step
                finds its detectors; None: the steps are those that the detectors were trained on.

        Returns:
            A GuardSession.

        Raises:
            InputError: as of `check`; or there are more or fewer levels than steps.
        """
        step_map, rule = same_steps(steps), self.rule
        if levels is not None:
            if len(levels) != steps:
                raise InputError(
                    f"levels: {len(levels)} noise levels for {plural(steps, 'step')}; as many are "
                    "needed"
                )
            step_map, rule = self._carried_to({"steps": steps, "levels": levels})
        return self._session(step_map, rule, videos)

    def session_of(self, sampling):
        """Begin the verdicts of one batch of a described sampling, which is checked too.

        Args:
            sampling: dict as in lvd.x0.provenance, with steps, timesteps and levels.
        """
        return self._session(*self._carried_to(sampling), videos=None)

    def _session(self, step_map, rule, videos):
        return GuardSession(
            self.bank,
            self.reader,
            rule,
            len(step_map.trained),
            self.operating_point,
            videos,
            self.policy,
            step_map,
        )


def _but_guidance(member):
    """Return the sampling that a detector learned from. Files of earlier versions do not say its
    guidance scale, which is compared on its own."""
    sampling = member.about.get("sampling") or {}
    return {key: value for key, value in sampling.items() if key != "guidance_scale"}

"""d. What do other defences do to the same videos?"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lvd.data.kinds import KINDS
from lvd.data.split import load_split, split_path
from lvd_study.defences import either, need_same_videos, of_filter, of_guard, of_last_step
from lvd_study.defences_figures import save_defences, save_strengths
from lvd_study.defences_text import answer_of, caveat_of, how_of
from lvd_study.intervals import share
from lvd_study.judged import LAMBDA, etas, votes_over_seeds
from lvd_study.made import Data, Videos
from lvd_study.pages import Figure, Section
from lvd_study.prompt_scores import EMBEDDINGS, TF_IDF, WORDS
from lvd_study.safe_guidance import NONE, Guided, changes_of, normal_table, unsafe_table
from lvd_study.settings import KINDS as DETECTORS
from lvd_study.table import Table
from lvd_study.tasks import Task

TITLE = "Beside other defences"
FILTERS = {
    WORDS: "filter of words",
    TF_IDF: "filter of TF-IDF",
    EMBEDDINGS: "filter of text embeddings",
}
COLUMNS = ["defence", "sees", "accuracy", "TPR", "TNR", "cost", "steps", "seeds"]
COMBINED = "shared"  # the detectors that filters and safe guidance are combined with


@dataclass(frozen=True)
class Asked:
    """Videos that all defences are asked about.

    Attributes:
        name: "held out", "reworded", or a strength of safe guidance.
        votes: {kind: [Votes]} of the detectors, one a seed.
        finished: [Votes] of the classifiers of finished videos, one a seed.
        last_step: folder of the recordings' last step.
        prompts: Task and path of the prompts' scores; None where none are asked for.
    """

    name: str
    votes: dict
    finished: list
    last_step: Path
    prompts: tuple | None = None

    @property
    def tasks(self):
        """The Tasks of all of it."""
        votes = [one.task for part in (*self.votes.values(), self.finished) for one in part]
        return votes + ([self.prompts[0]] if self.prompts else [])

    @cached_property
    def recordings(self):
        """The {kind: [Recording]} of the votes."""
        return {kind: [one.recording() for one in votes] for kind, votes in self.votes.items()}

    @cached_property
    def finished_recordings(self):
        """The [Recording] of the classifiers of finished videos."""
        return [one.recording() for one in self.finished]

    def paths(self):
        """Return {kind: path} of the recordings of the last step."""
        return {kind: self.last_step / kind / "pred_x0.pth" for kind in KINDS}


@dataclass(frozen=True)
class Plan:
    """What the tables need.

    Attributes:
        sets: [Asked]: the held-out videos, and those of reworded prompts where there are some.
        strengths: [Asked], of safe guidance.
        chosen: {kind: [Chosen]} of the detectors that rules are chosen for.
    """

    sets: list
    strengths: list
    chosen: dict

    @property
    def tasks(self):
        """The Tasks of all of it."""
        chosen = [one.task for part in self.chosen.values() for one in part]
        return [task for one in (*self.sets, *self.strengths) for task in one.tasks] + chosen


def plan(study):
    """Return what the tables need of a Study."""
    settings = study.settings
    trained = {kind: [study.trained(kind, seed) for seed in settings.seeds] for kind in DETECTORS}
    held_out = _last_step(study, study.held_out)
    data = Data(
        "finished_videos", ("--recordings", held_out.config), study.eval_path, held_out.tasks
    )
    finished = [study.trained("grid", seed, data) for seed in settings.seeds]

    def asked(videos, kinds, prompts=None):
        votes = {kind: [study.votes(each, videos) for each in trained[kind]] for kind in kinds}
        last = _last_step(study, videos)
        by_video = [study.votes(each, last) for each in finished]
        return Asked(videos.name, votes, by_video, last.config.parent, prompts)

    sets = [asked(study.held_out, DETECTORS, _prompts(study, study.held_out))]
    if settings.reworded:
        paths = {key: Path(path) for key, path in settings.reworded.items()}
        reworded = study.of_prompts("reworded", **paths)
        sets.append(asked(reworded, DETECTORS, _prompts(study, reworded)))
    strengths = []
    for strength in settings.safe_guidance:
        if strength != NONE:  # these are the held-out videos
            concept = f"safety_concept={json.dumps(settings.safety_concept)}"
            words = (f"safe_guidance={strength}", concept)
            videos = study.sampled_again(f"safe guidance {strength}", *words)
            strengths.append(asked(videos, [COMBINED]))
    chosen = {kind: [study.chosen(each) for each in trained[kind]] for kind in settings.rules_for}
    return Plan(sets, strengths, chosen)


def _last_step(study, videos):
    """The Videos of the last step of recordings, as decoded clips."""
    folder = study.work / "last_step" / videos.name.replace(" ", "_")
    command = ("-m", "lvd_study.last_step", "--config", videos.config, "--out", folder)
    task = Task(f"last step of {videos.name}", command, videos.tasks)
    name = f"finished {videos.name}"
    tasks = (*videos.tasks, task)
    return Videos(name, folder / "recordings.yaml", videos.eval_path, videos.labels, tasks)


def _prompts(study, videos):
    """The Task that scores the prompts of Videos, and the path of the scores."""
    path = study.work / "prompts" / f"{videos.name.replace(' ', '_')}.csv"
    command = ("-m", "lvd_study.prompt_scores", "--config", study.config)
    command += ("--eval_dir", study.eval_path, "--out", path)
    if videos is not study.held_out:
        command += ("--asked", videos.config, "--asked_eval", videos.eval_path)
    needs = (*study.base_tasks, *videos.tasks)
    return Task(f"score prompts of {videos.name}", command, needs), path


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    judged = {one.name: _judge(one, plan.chosen) for one in plan.sets}
    tables = [_table(name, defences) for name, defences in judged.items()]
    says = "Accuracy and cost of each defence, a line for each."
    figures = [Figure("d_defences.png", says, save_defences, judged)]
    guided = _guided(study, plan)
    if guided:
        tables += [unsafe_table(guided), normal_table(guided)]
        says = (
            "Unsafe and changed videos by strength of Safe Latent Diffusion, with and without LVD."
        )
        figures.append(Figure("d_safe_guidance.png", says, save_strengths, guided))
    return Section(
        letter="d",
        title=TITLE,
        answer=answer_of(judged, guided),
        how=how_of(study.settings, judged, guided),
        tables=tables,
        figures=figures,
        caveat=caveat_of(judged, guided) if study.is_tiny else "",
    )


def _judge(asked, chosen):
    """Return {(defence, what it sees): OverSeeds} of the same videos."""
    by_kind = asked.recordings
    videos = by_kind[COMBINED][0].videos
    longest = etas(by_kind[COMBINED])[-1]
    judged = {}
    filters = {name: of_filter(asked.prompts[1], name, videos) for name in FILTERS}
    for name, over in filters.items():
        judged[FILTERS[name], "prompt"] = over
    for kind, recordings in by_kind.items():
        judged[f"votes of the last step, {kind}", "finished latents"] = of_last_step(recordings)
    judged["classifier of finished videos", "finished video"] = of_last_step(
        asked.finished_recordings
    )
    for kind, recordings in by_kind.items():
        for eta in etas(recordings):
            name = f"LVD ({kind}, {LAMBDA}, {eta})"
            judged[name, "predicted x0"] = votes_over_seeds(eta, recordings)
        if chosen.get(kind):
            over, is_chosen = of_guard(chosen[kind], recordings, longest)
            if is_chosen:
                judged[f"LVD ({kind}, chosen rule)", "predicted x0"] = over
    guard, _ = of_guard(chosen.get(COMBINED), by_kind[COMBINED], longest)
    for name, over in filters.items():
        judged[f"{FILTERS[name]}, or LVD", "prompt, predicted x0"] = either(over, guard)
    need_same_videos({name: over for (name, _), over in judged.items()})
    return judged


def _table(name, judged):
    rows = []
    steps = max(over.steps for over in judged.values())  # of the finished video there is one
    for (defence, sees), over in judged.items():
        cost = 1.0 if sees.startswith("finished") else _cost(over)  # of all steps, by definition
        figures = [over.accuracy(), over.recall(), over.specificity(), cost]
        rows.append([defence, sees, *figures, float(over.costs.mean()) * steps, over.seeds])
    first = next(iter(judged.values()))
    unsafe, normal = int(first.is_unsafe.sum()), int((~first.is_unsafe).sum())
    return Table(
        f"d_{name.replace(' ', '_')}",
        f"{name.replace(' ', '-').capitalize()} prompts: {unsafe} unsafe, {normal} normal videos.",
        f"Cost: the share of the {steps} steps that an unsafe video takes, on average; one that is "
        "missed counts in full. A finished video is decoded besides. Steps: the same in steps.",
        COLUMNS,
        rows,
    )


def _cost(over):
    """The Estimate of the cost, exact where each video takes all steps or none."""
    takes_all = over.costs == 1
    return share(takes_all) if (takes_all | (over.costs == 0)).all() else over.cost()


# Safe Latent Diffusion


def _guided(study, plan):
    """Return [Guided]: the held-out prompts without, and then with safe guidance; or []."""
    if not plan.strengths:
        return []
    held_out = plan.sets[0]
    split = load_split(split_path(study.eval_path), need_normal=True)
    rows = {kind: sorted(getattr(split, kind)) for kind in KINDS}
    guided = []
    for asked in (held_out, *plan.strengths):
        recordings = asked.recordings[COMBINED]
        own = rows if asked is held_out else {kind: range(len(rows[kind])) for kind in KINDS}
        guard, _ = of_guard(plan.chosen.get(COMBINED), recordings, etas(recordings)[-1])
        guided.append(
            Guided(
                name=NONE if asked is held_out else asked.name.removeprefix("safe guidance "),
                by_video=of_last_step(asked.finished_recordings).stopped,
                by_latents=of_last_step(recordings).stopped,
                guard=guard,
                changes=changes_of(held_out.paths(), rows, asked.paths(), own),
            )
        )
    return guided

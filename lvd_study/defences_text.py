"""What table d says in words, made of its figures."""


def answer_of(judged, guided):
    """Return the answer.

    Args:
        judged: {name of the videos: {(defence, what it sees): OverSeeds}}, the held-out ones first.
        guided: [Guided], without safe guidance first; [] where none is asked for.
    """
    return " ".join([*(_of_videos(*each) for each in judged.items()), *_of_guided(guided)])


def _of_videos(name, defences):
    """A sentence of the most accurate defence of each sort."""
    best = {}
    for (defence, sees), over in defences.items():
        if sees not in best or over.accuracy().mean > best[sees][1].accuracy().mean:
            best[sees] = defence, over
    parts = [
        f"{defence} {over.accuracy().text()} (cost {over.costs.mean():.2f})"
        for defence, over in best.values()
    ]
    videos = f"{name.replace(' ', '-')} prompts"
    return f"Accuracy on the {videos}, the best defence of each sort: {'; '.join(parts)}."


def _of_guided(guided):
    """A sentence of the strength that leaves the fewest unsafe videos; none without strengths."""
    if not guided:
        return []
    plain, *strengths = guided
    least = min(strengths, key=lambda one: one.still_unsafe("by_video").mean)
    return [
        f"Safe Latent Diffusion alone leaves {least.still_unsafe('by_video').text()} of the unsafe "
        f"prompts' videos unsafe at strength {least.name} (without it "
        f"{plain.still_unsafe('by_video').text()}) and changes normal videos by "
        f"{least.change('normal').mean:.2f} of their standard deviation; LVD lets "
        f"{plain.handed_out('by_video').text()} unsafe ones pass without it, and "
        f"{least.handed_out('by_video').text()} with it."
    ]


def how_of(settings, judged, guided):
    """Return how it was measured.

    Args:
        settings: StudySettings.
        judged, guided: as for `answer_of`.
    """
    parts = [
        "All defences judge the same videos, none of which was learned from. Filters of prompts "
        "learn from the prompts of the videos that are not held out: words that occur in several "
        "unsafe prompts and no normal one; logistic regression on TF-IDF of words and pairs of "
        "words; logistic regression on the mean of what the sampling model's own text encoder "
        "makes of a prompt's tokens. They draw nothing at random, so there is one of each. The "
        "classifier of the finished video is trained on decoded frames of the last step, with the "
        "network and the recipe of the grid. The last step's votes are those of the detectors. "
        "A filter or LVD stops what one of the two stops; LVD is there the shared detectors with "
        "their chosen rule, or with the vote over most steps where none is chosen. The best of a "
        "sort was picked on the very videos that judge it: on others it is worse."
    ]
    if "reworded" in judged:
        parts.append(
            "The reworded prompts say the same in other words; nothing was trained on them."
        )
    if guided:
        parts.append(
            "Safe Latent Diffusion (arXiv 2211.05105) samples the held-out prompts again, with "
            "their seeds, and bends the guidance away from the words "
            f'"{settings.safety_concept}", at its published strengths. Whether a video is unsafe '
            "is judged twice, as no person looked: by the classifier of finished videos, which has "
            "nothing in common with LVD's detectors but the training videos, and by the votes of "
            "LVD's own detectors at the last step, which do not count as an independent judge of "
            "LVD. Both learned from videos without safe guidance. What an unsafe verdict of theirs "
            "is worth on a video that it has changed much is not known."
        )
    return " ".join(parts)


def caveat_of(judged, guided):
    """Return what the tiny world's figures do not say about real models."""
    parts = [
        "its prompts come from a few patterns, and in the held-out ones each category has words of "
        "its own that no normal prompt uses, so filters of prompts tell them perfectly. Real "
        "unsafe prompts are written to get past filters."
    ]
    if "reworded" in judged:
        parts.append("The reworded prompts are the fairer test, and come from few patterns too.")
    if guided:
        parts.append(
            "Its text encoder is small and knows no concept beyond its captions; how far safe "
            "guidance leads a real model away from a concept has to be measured there."
        )
    return " ".join(parts)

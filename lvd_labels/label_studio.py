"""Label Studio's forms: the labelling page (XML), the tasks (JSON), the start of the server.

Source: https://labelstud.io/tags and https://labelstud.io/guide/storage (local files)
"""

import shlex
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from lvd.data.finished_clips import VIDEOS
from lvd.utils.video import FPS
from lvd_labels.categories import NONE, UNSURE
from lvd_labels.videos import PLAYED

PLAYER = 300, 420  # pixels: its least and largest height, so that the answers stay in sight
CHOICES = "categories"  # the name of the question on the page, and in exports
PAGE = """<View>
  <Header value="What does the video show? Choose all that apply."/>
{prompt}  <Video name="video" value="$video" height="{height}" frameRate="{fps}"/>
  <Choices name="{choices}" toName="video" choice="multiple" required="true" showInline="true"
           requiredMessage="An answer is needed: there are also '{none}' and '{unsure}'.">
{answers}
  </Choices>
</View>
"""
PROMPT = """  <Text name="prompt" value="$prompt"/>
"""
SCRIPT = """#!/usr/bin/env bash
# Starts Label Studio on this machine alone. It may read the videos below ROOT, where a project
# names their folder, and sends nobody statistics or error reports. How to go on: how_to.txt.
set -eu
ROOT={root}
export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true
export LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT="$ROOT"
export LABEL_STUDIO_COLLECT_ANALYTICS=false LABEL_STUDIO_LATEST_VERSION_CHECK=false
export LABEL_STUDIO_SENTRY_DSN= LABEL_STUDIO_FRONTEND_SENTRY_DSN=
exec "${{LABEL_STUDIO:-label-studio}}" start --no-browser --internal-host 127.0.0.1 "$@"
"""


def labelling_page(categories, videos, show_prompt):
    """Return the labelling config.

    Args:
        categories: names, in the order of the label file.
        videos: Videos: their frames per second are what "next frame" moves by.
        show_prompt: whether raters see the prompt.
    """
    low, high = PLAYER
    height = min(max(videos.height or low, low), high)
    answers = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in _answers(categories))
    prompt = PROMPT if show_prompt else ""
    return PAGE.format(
        prompt=prompt,
        height=height,
        fps=videos.fps or FPS,
        choices=CHOICES,
        answers=answers,
        none=NONE,
        unsure=UNSURE,
    )


def _answers(categories):
    return [*categories, NONE, UNSURE]


def tasks_of(names, digests, prompts=None):
    """Return the tasks of a list of videos, as Label Studio imports them.

    Args:
        names: of the videos, in the order in which they are shown.
        digests: {name: digest of its file}, by which an import sees that it was replaced.
        prompts: {name: prompt} where raters see it, else None.
    """
    tasks = []
    for name in names:
        data = {
            "video": f"/data/local-files/?d={quote(f'{VIDEOS}/{name}{PLAYED}')}",
            "video_name": name,
            "video_sha256": digests[name],
        }
        if prompts is not None:
            data["prompt"] = prompts[name] or ""
        tasks.append({"data": data})
    return tasks


def start_script(folder):
    """Return a shell script that starts the server, for a recording in `folder`."""
    return SCRIPT.format(root=shlex.quote(str(folder)))

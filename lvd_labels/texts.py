"""What an export says to people: instructions for raters, and how to go on for who leads them."""

import html
import re

from lvd.data.finished_clips import VIDEOS
from lvd_labels.categories import NONE, SEPARATOR, UNSURE

TITLES = ("What to do",)
INSTRUCTIONS = """Instructions for raters

Some of these videos may be disturbing: violence, sexual content, gore or hate. Nobody has to do
this. You may skip any video, and stop at any time, without giving a reason.
- Take a break of ten minutes every hour, and stop for the day when you notice that it affects you.
- Do not rate where others can see your screen. Do not copy, share or describe the videos.
- If a video stays on your mind, talk to the person who leads this study.

What to do
1. Watch the whole video, more than once if you like.
2. Choose every category that the video shows. Several may be right:
{categories}
3. Choose "{none}" if the video shows none of them, alone.
4. Choose "{unsure}" if you can't tell, alone: a guess does more harm than no answer.
5. Submit, and go on with the next video. Judge what you see, not what somebody may have meant.

Judge on your own: do not look at other people's answers, and do not talk about single videos.
"""

HOW_TO = """From these files to label.csv

{lists}: {count} of {videos}, {seconds} seconds each: about {time} a rater.
{prompt}
First write into instructions.txt what each category means, with an example of the border.

With a spreadsheet (one rater, or a few)
  Watch {folder}
  and fill in {sheets}: the columns are video, rater (a name, in every line) and
  categories ({example}, or "{none}", or "{unsure}").
  A blank cell means that the video was not judged. Then:
    python label_videos.py import {sheets} --recording ... --categories ... --out label.csv

With Label Studio (pip install label-studio, in an environment of its own)
  1. bash start_server.sh --port 8080
     It serves the videos from where they lie. Open http://127.0.0.1:8080 and make an account: the
     first one leads. Give raters the link of "Organization", "Add Members". For raters at other
     machines, put a web server with TLS and passwords in front of it: it listens on this one alone.
  2. By itself: copy the token of "Account & Settings", "Personal Access Token", and let
       LABEL_STUDIO_TOKEN=... python label_videos.py upload --labelling {out} \\
         --url http://127.0.0.1:8080
     make a project for each list. By hand, in each project: "Settings", "Labeling Interface",
     "Code": labelling_page.xml. "Cloud Storage", "Add Source Storage", "Local files", with the
     path {folder}
     and no "Sync". Then import {tasks}.
  3. Tell each rater the project that is theirs, and give them instructions.txt. They press "Label
     All Tasks".
  4. Of each project: "Export", "JSON". Then, with all of these files:
       python label_videos.py import project-*.json --recording ... --categories ... --out label.csv
"""
SHOWN = "Raters see the prompts. Prompts bias raters: they see what was asked for."
HIDDEN = "Raters do not see the prompts, which would bias them: they would see what was asked for."


def instructions(categories):
    """Return the text for raters."""
    listed = "\n".join(f"   - {name}" for name in categories)
    return INSTRUCTIONS.format(categories=listed, none=NONE, unsure=UNSURE)


def as_html(text):
    """Return a text as HTML: the lines of a paragraph are joined, those of a list are not."""
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = []
        for line in block.split("\n"):
            if lines and not re.match(r"\s*(- |[0-9]+\. )", line) and lines[-1] not in TITLES:
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(line)
        shown = (html.escape(line).replace("   ", "&emsp;") for line in lines)
        blocks.append("<br>".join(shown))
    return "<br><br>".join(blocks)  # Label Studio shows no space between paragraphs


def how_to(facts, categories, show_prompt):
    """Return the text for who leads the raters.

    Args:
        facts: {"lists", "count", "videos", "seconds", "time", "recording", "sheets", "tasks",
            "out"}, as they stand in the text.
        categories: names.
        show_prompt: whether raters see the prompts.
    """
    example = f" {SEPARATOR} ".join(categories[:2])
    return HOW_TO.format(
        **facts,
        folder=facts["recording"] / VIDEOS,
        example=f'"{example}"',
        prompt=SHOWN if show_prompt else HIDDEN,
        none=NONE,
        unsure=UNSURE,
    )

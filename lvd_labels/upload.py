"""label_videos.py upload: a project of a running Label Studio for each list of an export."""

import os
from contextlib import suppress

from lvd.data.finished_clips import VIDEOS
from lvd.errors import InputError, plural, shorten
from lvd.utils.cli import summary
from lvd.utils.files import load_json, load_yaml, read_text
from lvd.utils.progress import progress
from lvd.utils.schema import Count, Name, Schema, checked, has_controls
from lvd_labels.export import CONFIG, INSTRUCTIONS, PAGE
from lvd_labels.read_tasks import Task
from lvd_labels.server import Server
from lvd_labels.texts import as_html

TOKEN = "LABEL_STUDIO_TOKEN"
MOST_PAGES = 1000  # of 100 projects
LONGEST = 40  # of the titles' first part; Label Studio takes 50 characters with the number


class Export(Schema, extra="allow"):
    """What upload reads of an export's config."""

    recording: Name
    raters: int


class Project(Schema, extra="allow"):
    """A project, as the server tells of it."""

    id: Count
    title: str | None = None


class Listed(Schema, extra="allow"):
    """A page of the list of projects."""

    results: list[Project]
    next: str | None


class Filled(Schema, extra="allow"):
    """A project with the number of its tasks."""

    task_number: Count


def upload(args):
    """Make the projects.

    Args:
        args: of the command line: labelling, url, title.

    Raises:
        InputError: no export is there, or the server refuses something.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token or not token.isascii() or has_controls(token):
        raise InputError(
            f"{TOKEN}: not set; the token of Label Studio's page 'Account & Settings' is needed in "
            "this environment variable"
        )
    if not 3 <= len(args.title) <= LONGEST or has_controls(args.title):
        raise InputError(f"--title {shorten(args.title)}: 3 to {LONGEST} characters are needed")
    config = checked(Export, load_yaml(args.labelling / CONFIG), args.labelling / CONFIG)
    lists = sorted(args.labelling.glob("tasks*.json"))
    if len(lists) != config["raters"]:
        raise InputError(
            f"{args.labelling}: {plural(len(lists), 'list')} of tasks, {CONFIG} says "
            f"{config['raters']}; export again"
        )
    tasks = {path: checked(list[Task], load_json(path), path) for path in lists}
    page, words = (read_text(args.labelling / name) for name in (PAGE, INSTRUCTIONS))
    server = Server(args.url, token)
    there = _titles(server)
    facts = {}
    for path in progress(lists, "projects", unit="project"):
        title = f"{args.title}{path.stem.removeprefix('tasks').replace('_', ' ')}"
        if title in there:
            _need_whole(server, there[title], title, len(tasks[path]))
            facts[title] = f"there already, project {there[title]}"
            continue
        number = _make(server, title, page, words, f"{config['recording']}/{VIDEOS}", tasks[path])
        facts[title] = f"{plural(len(tasks[path]), 'video')}, project {number}"
    summary(f"projects of {args.url}", facts, [])


def _titles(server):
    """{title: number} of all projects."""
    found = {}
    for page in range(1, MOST_PAGES):
        path = f"/api/projects?page={page}&page_size=100&include=id,title"
        answer = server.get(path, Listed)
        found |= {project["title"]: project["id"] for project in answer["results"]}
        if not answer["next"]:
            break
    return found


def _need_whole(server, number, title, count):
    """InputError where a project has not all of its videos: an upload was broken off."""
    there = server.get(f"/api/projects/{number}", Filled)["task_number"]
    if there != count:
        raise InputError(
            f"project {number} '{title}' has {there} of {count} videos: it is another one, or its "
            "upload was broken off; delete it in Label Studio, or give another --title"
        )


def _make(server, title, page, words, videos, tasks):
    """Make a project; returns its number."""
    project = {
        "title": title,
        "label_config": page,
        "expert_instruction": as_html(words),
        "show_instruction": True,
        "show_skip_button": True,
        "sampling": "Sequential sampling",
        "maximum_annotations": 1,
    }
    number = server.post("/api/projects", project, Project)["id"]
    storage = {"project": number, "path": videos, "use_blob_urls": True, "title": VIDEOS}
    try:
        server.call("POST", "/api/storages/localfiles", storage)
        server.call("POST", f"/api/projects/{number}/import", tasks)
    except (InputError, KeyboardInterrupt):
        with suppress(InputError):  # what went wrong first is told
            server.call("DELETE", f"/api/projects/{number}")  # the next upload makes it whole
        raise
    return number

"""The page: its fields, its examples, and how it looks."""

import gradio as gr

from MagicTime.utils.app import words
from MagicTime.utils.app.asked import LONGEST_PROMPT, MOST_GUIDANCE, MOST_STEPS, OWN, RULES
from MagicTime.utils.app.plot import draw

TITLE = "LVD: see what the guard sees"
INTRO = """# Watch a video being made, and stopped if it is unsafe

A video model begins with noise and takes it away step by step. After each step the *guard* reads
the model's guess of the finished video, the *predicted x0*, scores it for every unsafe category,
and stops the video as soon as its rule is sure. **With the guard on, frames are shown only once the
rule can no longer stop the video**: so never one of a stopped video.
"""
# Prompts of the tiny world, whose "unsafe" categories are harmless stand-ins.
STOPPED = (
    "a red star moves to the right at night, with harsh light pulses",
    "at sea, a green triangle falls down, wobbling like jelly",
    "in the desert, a green square goes round in a circle, shattering into bits",
    "a red cross goes round in a circle at sea, above a scrolling headline",
)
PASSED = (
    "a red square stays still in a meadow",
    "time-lapse of a green triangle growing in a meadow",
    "at sea, a yellow circle slides right",
)
# On a phone the results lie below the form.
INTO_VIEW = "document.querySelector('.lvd-banner').scrollIntoView({block: 'nearest'})"
MOST_EVENTS = 1_000  # that gradio holds at once; the desk's own places are fewer


def make_page(watcher, settings, rule, examples, need_guard=False):
    """Make the page.

    Args:
        watcher: MagicTime.utils.app.watch.Watcher.
        settings: MagicTime.utils.config.SamplingSettings, whose values the form begins with.
        rule: the start's rule in words.
        examples: {heading: [prompt]}.
        need_guard: whether the guard cannot be switched off.

    Returns:
        gradio's Blocks, with a bounded queue.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRO)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                fields = _form(settings, rule, need_guard)
                with gr.Row():
                    start = gr.Button("Sample", variant="primary", elem_id="sample")
                    stop = gr.Button("Cancel", elem_id="cancel")
                _examples(examples, fields[0])
            with gr.Column(scale=3, min_width=320):
                banner = gr.HTML(words.hello(), js_on_load=None)
                with gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=260):
                        stage = gr.HTML(words.Stage.nothing("No video yet."), js_on_load=None)
                    with gr.Column(scale=3, min_width=320):
                        plot = gr.Plot(draw(None, settings.steps), show_label=False)
        _wire(watcher, fields, (start, stop), (banner, stage, plot))
    page.queue(max_size=MOST_EVENTS, default_concurrency_limit=None)
    return page


def _form(settings, rule, need_guard):
    """Return the fields in the order of MagicTime.utils.app.asked.FIELDS."""
    prompt = gr.Textbox(
        label="Prompt",
        lines=2,
        max_length=LONGEST_PROMPT,
        placeholder="a red square stays still in a meadow",
        elem_id="prompt",
    )
    guard = gr.Checkbox(
        True, label="Guard: stop unsafe videos", interactive=not need_guard, elem_id="guard"
    )
    choices = {
        "chosen": f"as started ({rule})",
        "0.6, 5": "vote, λ 0.6 of the first η 5 steps",
        "0.6, 20": "vote, λ 0.6 of the first η 20 steps",
        OWN: "vote, own λ and η",
    }
    choices = [(choices[name], name) for name in RULES]
    with gr.Accordion("Rule and sampling", open=False):
        rule = gr.Radio(choices, value="chosen", label="Rule: when is a video unsafe?")
        with gr.Row():
            lambda_ = gr.Number(0.6, label="λ: share of unsafe votes", minimum=0, maximum=1)
            eta = gr.Number(5, label="η: steps that vote", precision=0, minimum=1)
        with gr.Row():
            seed = gr.Number(2024, label="Seed (empty: a new one)", precision=0, elem_id="seed")
            steps = gr.Number(
                settings.steps,
                label="Denoising steps",
                precision=0,
                minimum=1,
                maximum=MOST_STEPS,
                elem_id="steps",
            )
            guidance = gr.Number(
                settings.guidance_scale, label="Guidance scale", minimum=0, maximum=MOST_GUIDANCE
            )
    return [prompt, guard, rule, lambda_, eta, seed, steps, guidance]


def _examples(examples, prompt):
    """Buttons that fill in a prompt; the browser does it alone."""
    for heading, prompts in examples.items():
        gr.Markdown(heading, elem_classes="lvd-heading")
        for text in prompts:
            button = gr.Button(text, size="sm", elem_classes="lvd-example")
            button.click(None, js=f"() => {_as_js(text)}", outputs=prompt)


def _as_js(text):
    import json

    return json.dumps(text).replace("<", "\\u003c")


def _wire(watcher, fields, buttons, outputs):
    """Let the buttons do something. Values are taken as they come: the watcher checks them."""
    start, stop = buttons

    async def sample(*values):
        async for banner, stage, plot in watcher.sample(*values):
            yield banner, _or_same(stage), _or_same(plot)

    settings = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
    events = [gr.on([start.click, fields[0].submit], sample, fields, list(outputs), **settings)]
    start.click(None, js=f"() => {{ {INTO_VIEW} }}")
    cancelled = words.banner(words.CALM, "Cancelled.", "Nothing of the video is kept.")
    empty = words.Stage.nothing("Cancelled.")
    # Updates that are on their way arrive first.
    later = "await new Promise(done => setTimeout(done, 500))"
    texts = f"async () => {{ {later}; return [{_as_js(cancelled)}, {_as_js(empty)}]; }}"
    stop.click(None, cancels=events)
    stop.click(None, js=texts, outputs=list(outputs[:2]))


def _or_same(value):
    return gr.skip() if value is None else value

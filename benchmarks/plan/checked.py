"""Plans that are kept, what was measured, and the report of both."""

import traceback
from argparse import Namespace
from copy import copy
from dataclasses import replace

from benchmarks.common.machine import facts
from benchmarks.plan.measured import disk_used
from lvd.utils.disk import GIB
from lvd.utils.files import save_csv, save_text
from lvd_plan.calibrate import Calibration
from lvd_plan.counts import count
from lvd_plan.inputs import NORMAL, UNSAFE, read_inputs
from lvd_plan.memory import memory_of
from lvd_plan.rates import NAME, card_of_device, load_rates, rates_of_card
from lvd_plan.study_plan import StudyPlan

COLUMNS = ("step", "of", "planned", "measured", "measured / planned")


class CheckedPlan:
    """Planned and measured figures of each step.

    Args:
        device: torch.device.
        path: of the text; the table lies beside it as a CSV.
        starts: whether each script is started anew, which takes its time.

    Attributes:
        failed: [step that failed, and why].
    """

    def __init__(self, device, path, starts=True):
        self.device, self.path, self.table = device, path, path.with_suffix(".csv")
        self.failed, self.lines, self.rows, self.plans = [], [], [], {}
        self.facts, self.starts = facts(), starts

    def calibrate(self, world, representation, model, size):
        """Measure rates in this process, and keep the plan that they give."""
        try:
            inputs = _inputs(world, representation, size)
            plan = StudyPlan(inputs, count(inputs), model)
            home = world.home(representation)
            home.mkdir(exist_ok=True)
            calibration = Calibration(inputs, plan.workload, self.device, model, home)
            calibration.run(home / NAME)
            self.plan(world, representation, model, size, plan.workload)
        except Exception as error:  # whatever it is, the scripts are still run
            self._broken(f"calibration of {representation}", error)

    def measure_float32(self, world):
        """Tell what the sampler reaches in float32: what a sampling YAML has if it is silent."""
        try:
            inputs = _inputs(world, "latent", world.small)
            settings = replace(inputs.sampling.settings, dtype="float32")
            sampling = replace(inputs.sampling, settings=settings)
            inputs = replace(inputs, sampling=sampling)
            workload = self.plans["latent"][0].workload
            workload = copy(workload)
            workload.inputs, workload.settings = inputs, settings
            calibration = Calibration(inputs, workload, self.device, "shared", world.folder)
            calibration.sampler()
            told = ", ".join(f"{kind} {n / 1e12:.4g}" for kind, n in calibration.reached.items())
            peak = max(calibration.peak.values(), default=0) / GIB
            self.say(f"rates, float32: TFLOPS: {told}; peak GiB of the UNet {peak:.2f}")
        except Exception as error:
            self._broken("the sampler in float32", error)

    def plan(self, world, representation, model, size, workload=None):
        """Keep the plan of a representation, with the rates that have just been measured."""
        inputs = _inputs(world, representation, size)
        path = world.home(representation) / NAME
        measured = load_rates(path)
        self.say_rates(path, representation)
        rates = {"calibrated": self._without_start(measured)}
        if card := card_of_device(measured.device):
            rates[f"card {card['name']}"] = rates_of_card(card)
        plan = StudyPlan(inputs, count(inputs), model, workload)
        self.plans[representation] = plan, rates
        if representation == "latent":  # its clips are in the other model's plan
            both = StudyPlan(inputs, count(inputs), "both", plan.workload)
            self.plans["any latent"] = both, rates

    def _without_start(self, rates):
        """The rates; of scripts that run in this process, without the time that a start takes."""
        return rates if self.starts else replace(rates, host={**rates.host, "start": 0.0})

    def _broken(self, what, error):
        trace = "".join(traceback.format_exception(error))[-2000:]
        self.failed.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        self.say(f"{what}: FAILED\n{trace}")

    def say_rates(self, path, of):
        """Tell what a calibration reached."""
        rates = load_rates(path)
        reached = {kind: f"{n / 1e12:.4g}" for kind, n in rates.reached.items()}
        told = ", ".join(f"{kind} {number}" for kind, number in reached.items())
        host = ", ".join(f"{kind} {number:.3g}" for kind, number in rates.host.items())
        peak = ", ".join(f"{step} {number / GIB:.2f}" for step, number in rates.peak.items())
        self.say(f"rates, {of}: TFLOPS: {told}; seconds: {host}; peak GiB: {peak or 'none'}")

    def add(self, step, measured):
        """Take what a step took, and write the report."""
        if measured.failed:
            self.failed.append(f"{step.name}: {measured.failed}")
            self.say(f"{step.name}: FAILED after {measured.seconds:.0f} s: {measured.failed}")
            return
        if step.plan is None or step.plan[0] not in self.plans:
            self.say(f"{step.name}: {measured.seconds:.1f} s")
            return
        plan, rates = self.plans[step.plan[0]]
        of = step.plan[1]
        for name, each in rates.items():
            planned = plan.work[of].seconds(each, left=step.share)
            self._row(step.name, f"seconds, {name}", planned, measured.seconds)
        piece = next((piece for piece in plan.pieces if piece.step == of), None)
        if step.writes and piece:
            written = sum(disk_used(path) for path in step.writes)
            self._row(step.name, "disk MiB", step.share * piece.size / 2**20, written / 2**20)
        memory = memory_of(plan.inputs, plan.counts, plan.workload, rates["calibrated"])[of]
        if measured.gpu:
            self._row(step.name, "GPU GiB", memory.gpu / GIB, measured.gpu / GIB)
        if measured.host:
            self._row(step.name, "host GiB", memory.host / GIB, measured.host / GIB)
        self._write()

    def say(self, line):
        """Put a line into the report, and write it."""
        self.lines.append(line)
        self._write()

    def _row(self, name, of, planned, measured):
        ratio = measured / planned if planned else float("nan")
        figures = (f"{planned:.3g}", f"{measured:.3g}", f"{ratio:.2f}")
        self.rows.append(dict(zip(COLUMNS, (name, of, *figures), strict=True)))

    def _write(self):
        cells = [COLUMNS, *(tuple(row.values()) for row in self.rows)]
        widths = [max(len(line[place]) for line in cells) for place in range(len(COLUMNS))]
        table = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]
        text = ["plan.py: planned and measured, weights random", *_told(self.facts), ""]
        save_text("\n".join([*text, *table, "", *self.lines]) + "\n", self.path)
        save_csv(self.rows, self.table, list(COLUMNS))


def _inputs(world, representation, size):
    """Inputs of the plan of a representation, without the filmstrips that reproduce.sh draws."""
    args = Namespace(
        config=world.config(representation),
        train_config=world.training(size),
        prompts=world.prompts("unsafe"),
        normal_prompts=world.prompts("normal"),
        videos=None,
        normal_videos=None,
    )
    return replace(read_inputs(args), strips={UNSAFE: 0, NORMAL: 0})


def _told(facts):
    return [f"  {name}: {value}" for name, value in facts.items()]

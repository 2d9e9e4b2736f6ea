"""Plans that are kept, what was measured, and the report of both."""

from argparse import Namespace

from benchmarks.common.machine import facts
from benchmarks.common.script_runs import size_of
from lvd.utils.disk import GIB
from lvd.utils.files import save_csv
from lvd.utils.partials import atomic
from lvd_plan.counts import count
from lvd_plan.inputs import read_inputs
from lvd_plan.memory import memory_of
from lvd_plan.rates import card_of_device, load_rates, rates_of_card
from lvd_plan.study_plan import StudyPlan

COLUMNS = ("step", "of", "planned", "measured", "measured / planned")


class CheckedPlan:
    """Planned and measured figures of each step.

    Args:
        device: torch.device.
        path: of the text; the table lies beside it as a CSV.

    Attributes:
        failed: [step that failed, and why].
    """

    def __init__(self, device, path):
        self.device, self.path, self.table = device, path, path.with_suffix(".csv")
        self.failed, self.lines, self.rows, self.plans = [], [], [], {}
        self.facts = facts()

    def plan(self, world, representation, model, size):
        """Keep the plan of a representation, with the rates that plan.py has just measured."""
        args = Namespace(
            config=world.config(representation),
            train_config=world.training(size),
            prompts=world.prompts("unsafe"),
            normal_prompts=world.prompts("normal"),
            videos=None,
            normal_videos=None,
        )
        inputs = read_inputs(args)
        path = world.home(representation) / "plan_rates.json"
        measured = load_rates(path)
        self.say_rates(path, representation)
        rates = {"calibrated": measured}
        if card := card_of_device(measured.device):
            rates[f"card {card['name']}"] = rates_of_card(card)
        plan = StudyPlan(inputs, count(inputs), model)
        self.plans[representation] = plan, rates
        if representation == "latent":  # its clips are in the other model's plan
            self.plans["any latent"] = (
                StudyPlan(inputs, count(inputs), "both", plan.workload),
                rates,
            )

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
            written = sum(size_of(path) for path in step.writes)
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
        with atomic(self.path) as partial:
            partial.write_text("\n".join([*text, *table, "", *self.lines]) + "\n")
        save_csv(self.rows, self.table, list(COLUMNS))


def _told(facts):
    return [f"  {name}: {value}" for name, value in facts.items()]

"""A forecast as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from ddo_plugin.hooks.types import Memory
from ddo_plugin.selfplay.forecast.devices import DEVICES, GIB, USABLE, Device
from ddo_plugin.selfplay.forecast.forecast import Forecast, RoundForecast, forecast

HOUR, DAY = 3600.0, 24.0
HOURS = "hours_of_round"  # key of [expected]: hours of a round in the paper
PAPER = DEVICES["A100"], 8  # GPUs that trained one candidate in the paper
WIDTH = 34


def lines(plan: Forecast, slots: int) -> Iterator[str]:
    """Yield what the recipe costs, what that depends on, and how it compares with the paper."""
    network, count = plan.network, len(plan.rounds)
    where = f"{plan.gpus} {plan.device.name}" + (f" for each step, {slots} steps at a time" if slots > 1 else "")
    yield f"{plan.recipe.title}"
    yield f"{_plural(count, 'round')} on {where}"
    yield (
        f"network: {network.parameters / 1e6:,.1f} million parameters, {network.forward / 1e9:,.1f} billion operations "
        "in a forward pass over one sample"
    )
    for first, last, each in plan.groups:
        yield ""
        title = f"round {first}" if first == last else f"rounds {first} to {last}, each"
        yield f"{title:{WIDTH}}{'GPU-hours':>12}"
        yield from _parts(each)
        yield f"  {'sum':{WIDTH - 2}}{_number(each.gpu_seconds / HOUR):>12}"
    total = plan.gpu_seconds / HOUR
    yield ""
    yield f"evaluation of the first network: {_number(plan.base / HOUR)} GPU-hours"
    if plan.control:
        yield f"control, trained by maximum likelihood: {_number(plan.controlling / HOUR)} GPU-hours"
    if plan.judgements:
        yield f"{_plural(plan.judgements, 'judgement')} by fresh seeds: {_number(plan.judging / HOUR)} GPU-hours"
    yield f"{_plural(count, 'round')} and these: {_number(total)} GPU-hours, {_time(plan.elapsed(slots) / HOUR)}"
    yield from _wider(plan, slots)
    yield from _compared(plan)
    yield from _memory(plan)
    most, left = (_bytes(amount) for amount in plan.disk)
    yield f"disk: at most {most}; {left} stay (policy.keep = {plan.recipe.policy.keep})"
    yield from _sources(plan)


def _parts(each: RoundForecast) -> Iterator[str]:
    planned = each.planned
    trainings = f"{_number(each.trainings)} trainings"
    if planned.search:  # which stops some
        trainings = f"{len(planned.candidates)} trainings, as long as {_number(each.trainings)}"
    titles = {
        "reference set": f"reference set, {planned.refset_count:,} samples",
        "trainings": trainings,
        "comparisons": f"{each.networks:,} comparisons",
        "evaluations": f"{each.evaluations:,} evaluations",
    }
    for name, seconds in each.parts.items():
        if seconds:
            yield f"  {titles[name]:{WIDTH - 2}}{_number(seconds / HOUR):>12}{seconds / each.gpu_seconds:>8.0%}"


def _wider(plan: Forecast, slots: int) -> Iterator[str]:
    """Tell what a node for each candidate would bring."""
    candidates = max(len(each.planned.candidates) for each in plan.rounds)
    if candidates > slots:
        gpus = candidates * plan.gpus
        yield f"with resources.slots = {candidates} ({gpus:,} GPUs): {_time(plan.elapsed(candidates) / HOUR)}"


def _compared(plan: Forecast) -> Iterator[str]:
    """Compare a round with the paper's hours, which are those of one candidate on its own node."""
    device, gpus = PAPER
    as_there = forecast(plan.recipe, plan.network, device, gpus, plan.counted_in).rounds[0]
    hours = as_there.one_candidate / gpus / HOUR
    paper = plan.recipe.expected.get(HOURS)
    yield (
        f"as in the paper, a round of one candidate on {gpus} {device.name}, every snapshot evaluated: "
        f"{_number(hours)} hours; "
        + (f"the paper's settings took about {paper:g}" if paper else "the paper gives no time")
    )


def _memory(plan: Forecast) -> Iterator[str]:
    """Tell the memory of the rounds that need most, and which pass would fit."""
    needs = [memory for each in plan.rounds if (memory := each.memory)]
    if not needs:
        return
    memory, device = max(needs, key=_need), plan.device
    need = _need(memory)
    fits = need <= device.usable
    line = (
        f"memory of a GPU: {'fits' if fits else 'does not fit'}; {_gib(need)} of {_gib(device.memory)} "
        f"({USABLE:.0%} can be used), with {_plural(memory.images, 'real image')} in a pass"
    )
    passes = _fewest_passes(memory, device)
    if passes is None:
        yield f"{line}; not even one image fits"
        return
    images = memory.share // passes
    if images > memory.images or not fits:
        line += f"; {'up to ' * fits}{images} fit with {memory.option.format(images=images, passes=passes)}"
    yield line


def _need(memory: Memory) -> float:
    return memory.fixed + memory.images * memory.per_image


def _fewest_passes(memory: Memory, device: Device) -> int | None:
    """Return into how many equal passes a GPU's share of the batch must at least be divided; None if none fits."""
    room = int((device.usable - memory.fixed) / memory.per_image)
    if room < 1:
        return None
    first = -(-memory.share // room)
    return next(passes for passes in range(first, memory.share + 1) if memory.share % passes == 0)


def _sources(plan: Forecast) -> Iterator[str]:
    efforts = [effort for each in plan.rounds for effort in each.efforts]
    rates = dict.fromkeys(arithmetic.rate for effort in efforts for arithmetic in effort.arithmetic)
    yield ""
    yield f"counted in {plan.counted_in}: operations, and the memory that a forward pass keeps for the backward pass"
    for source in dict.fromkeys(rate.source for rate in rates):
        shares = [f"{rate.what} {rate.share:.2g} ({rate.precision})" for rate in rates if rate.source == source]
        yield f"{source}: share of the GPU's peak, {', '.join(shares)}"
    if left_out := dict.fromkeys(name for effort in efforts for name in effort.left_out):
        yield f"left out: {', '.join(left_out)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _time(hours: float) -> str:
    if hours >= 2 * DAY:
        return f"{_number(hours / DAY)} days"
    return f"{_number(hours)} hours" if hours >= 1 else f"{_number(60 * hours)} minutes"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _gib(amount: float) -> str:
    return f"{amount / GIB:.1f} GiB"


def _bytes(amount: float) -> str:
    for unit, size in (("TiB", 1024 * GIB), ("GiB", GIB)):
        if amount >= size:
            return f"{amount / size:,.1f} {unit}"
    return f"{amount / GIB * 1024:,.1f} MiB"

"""What merging projections saves, by formula: from the plan and from the channels and strides of the steps alone.

Nothing of compact/ is used. A skipped stage transition of a task is a 1x1 convolution with a bias, norms folded:

    parameters  c_in c_out + c_out          MACs  c_in c_out * pixels of its output

Transitions that are skipped in a row, with no other reader of what lies between, are a chain c_0 -> c_1 -> ... -> c_n;
merged it is one convolution c_0 -> c_n at the last one's pixels. `latency` joins a pair where that takes MACs away,
`size` where it takes away parameters: those of transitions that no task keeps and that nothing else calls.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """A 1x1 convolution of a chain; `freed`: how many parameters are gone when nothing calls what it stands for."""

    c_in: int
    c_out: int
    pixels: int
    freed: int

    @property
    def params(self):
        return self.c_in * self.c_out + self.c_out

    @property
    def macs(self):
        return self.c_in * self.c_out * self.pixels


def calls(net, plan, tasks):
    """(path of every task, readers of every value). A call is (step, decisions so far, whether it skips the block)."""
    paths, readers = {}, {}
    for task in tasks:
        row, path, taps, done = plan.row(task), [], [], 0
        for i, step in enumerate(net.steps):
            if step.block is not None:
                done = step.block + 1
            skipped = step.block is not None and not row[step.block]
            if not skipped or step.projection is not None:
                call = (i, tuple(row[:done]), skipped)
                if path:
                    readers.setdefault(path[-1], set()).add(call)
                path.append(call)
            if i in net.taps:
                taps.append(path[-1])
        for value in {path[-1], *(taps if net.tasks[task].dense else ())}:
            readers.setdefault(value, set()).add(("heads", tuple(row)))
        paths[task] = path
    return paths, readers


def chains(net, plan, tasks):
    """Every maximal chain once, as the calls that it consists of."""
    paths, readers = calls(net, plan, tasks)
    found = set()
    for path in paths.values():
        chain = []
        for before, call in zip([None, *path], path, strict=False):
            linked = chain and before == chain[-1] and readers[before] == {call}
            if call[2]:
                chain = [*chain, call] if linked else [call]
                found = {other for other in found if other != tuple(chain[:-1])} | {tuple(chain)}
            else:
                chain = []
    return {chain for chain in found if len(chain) > 1}


def chains_on(path, found):
    """Those that a path runs through."""
    return {chain for chain in found if set(chain) <= set(path)}


def kind_of(chain):
    """The steps of a chain, whoever skips them."""
    return tuple(call[0] for call in chain)


def merged_sizes(net, plan, size_HW, optimize, tasks=None, cut=None):
    """(parameters, MACs) that merging takes away from the folded model of a plan, of all tasks or some; may be < 0.

    `cut`: a task that was taken out of that model; then it is what its own path has less than one without merging.
    """
    tasks = list(net.tasks) if tasks is None else tasks
    if optimize == "none":
        return 0, 0
    paths, _ = calls(net, plan, tasks)
    skips = {call for path in paths.values() for call in path if call[2]}
    whole = chains(net, plan, tasks)
    kinds = {kind_of(chain) for chain in whole}
    inside = {call for chain in whole for call in chain}

    def conv(step):
        before, after = net.steps[step - 1], net.steps[step]
        height, width = (-(-side // after.stride) for side in size_HW)
        alone = all(call in inside for call in skips if call[0] == step)
        unkept = not any(plan.row(task)[after.block] for task in tasks)
        made = Conv(before.channels, after.channels, height * width, 0)
        return Conv(made.c_in, made.c_out, made.pixels, made.params if alone and unkept else 0)

    def joined(kind):
        """Runs of steps that become one convolution, and that convolution."""
        runs = [([kind[0]], conv(kind[0]))]
        for step in kind[1:]:
            steps, first = runs[-1]
            second = conv(step)
            made = Conv(first.c_in, second.c_out, second.pixels, 0)
            if optimize == "latency":
                better = made.macs < first.macs + second.macs
            else:
                better = made.params < first.freed + second.freed
            if better:
                runs[-1] = ([*steps, step], Conv(made.c_in, made.c_out, made.pixels, made.params))
            else:
                runs.append(([step], second))
        return [run for run in runs if len(run[0]) > 1]

    if optimize == "size":
        if not any(conv(step).freed for kind in kinds for step in kind):
            return 0, 0
        assert len(kinds) == 1, "for several kinds of chains the order would count"
    made = {kind: joined(kind) for kind in kinds}
    if cut is not None:
        own = [run for chain in chains_on(paths[cut], whole) for run in made[kind_of(chain)]]
        before = [[conv(step) for step in steps] for steps, _ in own]
        return tuple(
            sum(getattr(c, what) for convs in before for c in convs)
            - sum(getattr(one, what) for _, one in own)
            for what in ("params", "macs")
        )
    distinct = {tuple(steps): conv_made for runs in made.values() for steps, conv_made in runs}
    gone = {
        call for chain in whole for steps, _ in made[kind_of(chain)]
        for call in chain if call[0] in steps
    }  # fmt: skip
    freed = {c[0] for c in gone if all(other in gone for other in skips if other[0] == c[0])}
    params = sum(conv(step).freed for step in freed) - sum(one.params for one in distinct.values())
    macs = 0
    for chain in whole:
        for steps, one in made[kind_of(chain)]:
            macs += sum(conv(step).macs for step in steps) - one.macs
    return params, macs

"""The figure of modelled times: useful bytes a second over the size of a call."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.hardware import H100
from benchmarks.totals import row_bytes

Row = dict[str, str]

_STYLES = {
    ('gn_det', 'now'): ('gn_det', '#1b6ca8', 'o'),
    ('gn_det', 'before'): ('gn_det, before', '#8fbbdc', 'o'),
    ('frozen_bn', 'now'): ('frozen BN, add, ReLU by torch', '#7f7f7f', 's'),
    ('inductor', 'now'): ('torch.compile', '#3a9a4a', 'D'),
    ('liger', 'now'): ('Liger, add, ReLU by torch', '#e0a030', '^'),
    ('flag_gems', 'now'): ('FlagGems, add, ReLU by torch', '#c05020', 'v'),
}
_DIRECTIONS = {'fwd': 'forward', 'bwd': 'backward'}
_DTYPE = 'bf16'
_MEGABYTES = (2, 5, 10, 20, 50, 100, 200)
_TERABYTES = (0.2, 0.5, 1, 2, 3)


def counts_figure(rows: Sequence[Row]) -> Figure:
    """A panel for each layout and direction, a point for each map."""
    rows = [row for row in rows if row['dtype'] == _DTYPE and float(row['us'])]
    layouts = list(dict.fromkeys(row['layout'] for row in rows))
    figure = Figure(figsize=(11, 4 * len(layouts) + 0.6), layout='constrained')
    panels = figure.subplots(
        len(layouts), 2, sharex=True, sharey=True, squeeze=False
    ).tolist()
    for layout, across in zip(layouts, panels, strict=True):
        for direction, axes in zip(_DIRECTIONS, across, strict=True):
            here = [r for r in rows if (r['layout'], r['dir']) == (layout, direction)]
            limit = sorted((row_bytes(r), float(r['us_copy'])) for r in here)
            axes.plot(
                [b / 1e6 for b, _ in limit],
                [b / us / 1e6 for b, us in limit],
                color='black',
                linewidth=1,
                label='a copy of the same bytes',
            )
            for key, (name, colour, marker) in reversed(_STYLES.items()):
                mine = [r for r in here if (r['impl'], r['label']) == key]
                if mine:
                    axes.scatter(
                        [row_bytes(r) / 1e6 for r in mine],
                        [row_bytes(r) / float(r['us']) / 1e6 for r in mine],
                        s=22,
                        color=colour,
                        marker=marker,
                        label=name,
                    )
            axes.set_xscale('log')
            axes.set_yscale('log')
            axes.set_xticks(_MEGABYTES, map(str, _MEGABYTES))
            axes.set_yticks(_TERABYTES, map(str, _TERABYTES))
            axes.minorticks_off()
            axes.grid(linewidth=0.3)
            axes.set_title(f'{layout}, {_DIRECTIONS[direction]}', fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel('fewest bytes of a call, MB')
    for across in panels:
        across[0].set_ylabel('these bytes over time, TB/s')
    handles = {}
    for across in panels:
        for axes in across:
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(name, handle)
    figure.legend(
        list(handles.values()), list(handles), ncols=3, loc='outside lower center'
    )
    figure.suptitle(
        f'Modelled, not measured: {H100.name}, {H100.dram / 1e12:.1f} TB/s, {_DTYPE}, '
        f'batch 2, 800 × 1344; {rows[-1]["date"]}',
        fontsize=11,
    )
    return figure

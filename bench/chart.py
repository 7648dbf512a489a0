"""The picture of a run: bench/results.svg, drawn by gnuplot."""

import os
import shutil
import subprocess

from peers import HERE, Failure

COLUMNS = 2
HEIGHT = 190  # of one panel, in pixels


def quoted(text):
    for plain, written in (('\\', '\\\\'), ('"', '\\"'), ('\n', '\\n')):
        text = text.replace(plain, written)
    return f'"{text}"'


def panel(title, bars):
    """One figure: a bar for each front end, its value beside it."""
    most = max(value for _, value in bars)
    rows = '\n'.join(f'{len(bars) - i} {value} {quoted(name)}'
                     for i, (name, value) in enumerate(bars))
    return f"""
$bars << EOD
{rows}
EOD
set title {quoted(title)}
set xrange [0:{most * 1.25}]
set yrange [0.4:{len(bars) + 0.6}]
plot $bars using ($2/2):1:($2/2):(0.35):ytic(3) with boxxyerror notitle, \\
    $bars using 2:1:(sprintf(" %.4g", $2)) with labels left notitle
"""


def draw(bench, figures, head):
    """Draws {title: [(name, value), ...]}; `head` is what is said above."""
    program = shutil.which('gnuplot')
    if program is None:
        raise Failure('gnuplot is not installed: bench/setup does that')
    rows = (len(figures) + COLUMNS - 1) // COLUMNS
    script = bench.path('chart.gp')
    with open(script, 'w') as f:
        f.write(f"""
set terminal svg size 1000,{rows * HEIGHT + 110} font "sans,11" \\
    background rgb "white"
set output {quoted(os.path.join(HERE, 'results.svg'))}
set multiplot layout {rows},{COLUMNS} title {quoted(head)} font ",11"
set style fill solid 0.6 noborder
set border 2
set tics nomirror scale 0
unset xtics
set lmargin 30
""")
        for title, bars in figures.items():
            f.write(panel(title, bars))
        f.write('unset multiplot\n')
    subprocess.run([program, script], check=True)

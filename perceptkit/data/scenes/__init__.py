"""The built-in scenes: rooms with solids, rendered with exact labels for every task type.

    solids.py      where rays meet boxes, ellipsoids, cylinders and cones
    layout.py      one room, its solids, light and camera, drawn from (seed, index)
    textures.py    two-colour patterns in metres
    trace.py       what every ray hits, and whether the light sees it
    render.py      the picture and its labels
    styles.py      the four looks: studio, dusk, sketch, thermal
    source.py      splits of scenes, cached on disk

The rest of the package opens source.py only.
"""

"""Names of what the built-in scenes hold: plain constants, so that checking a file needs no renderer."""

SCENE_CLASSES = ["wall", "floor", "ceiling", "box", "sphere", "cylinder", "cone", "ellipsoid"]
"""Segmentation: the room, then the solids."""

SCENE_KEYPOINTS = ["left_floor", "right_floor", "left_ceiling", "right_ceiling", "ball"]
"""The four far corners of the room as seen by the camera, and the centre of the one sphere."""

SCENE_FLIP_PAIRS = [("left_floor", "right_floor"), ("left_ceiling", "right_ceiling")]
"""Keypoints that change places when the picture is mirrored."""

SCENE_TYPES = ["office", "corridor", "hall", "cellar"]
"""Classification: the kind of room."""

"""Sources to batches: readers, geometry, the built-in scenes."""

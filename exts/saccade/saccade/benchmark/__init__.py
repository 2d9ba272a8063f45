"""``saccade bench``: what the loop costs beside what it cannot do without, as ratios measured in one process."""

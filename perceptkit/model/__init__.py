"""Image to outputs by task: trunk, gates, neck, heads, supernet, plan, cost."""

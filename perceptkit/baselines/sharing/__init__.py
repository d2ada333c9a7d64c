"""Ways to share a network between tasks that are not learned by a policy."""

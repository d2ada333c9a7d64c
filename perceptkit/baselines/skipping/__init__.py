"""Ways to skip blocks that look at no image: what a router must beat at equal cost."""

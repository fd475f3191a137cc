"""Labels: single points of the parent calculator, made through any executor."""

"""Figures: what bots use, how long things take."""

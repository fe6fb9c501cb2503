"""Unit balls of the Ky Fan 2-norm and its dual, and of the families F-Muon and F-Neon."""

import matplotlib.pyplot as plt

from trsvd.reports.ball_pictures import draw_into, paper_panels

draw_into(plt.figure(layout="constrained"), paper_panels())

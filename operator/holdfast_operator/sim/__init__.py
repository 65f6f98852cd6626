"""A simulated world for the operator: its real loops, planner and reconcilers run over models of what is outside them.

One seed determines everything that happens, in virtual time: `python -m holdfast_operator.sim --seed 7 --trace`.
"""

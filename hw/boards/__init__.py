"""Boards: what they are, how the overlay is wrapped for them, and how a bitstream is made.

:mod:`~reverb_fpga.hw.boards.table` and :mod:`~reverb_fpga.hw.boards.report` import nothing heavy; the rest needs
amaranth and the tools of the ``hw`` extra.
"""

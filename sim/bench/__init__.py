"""cocotb benches on Verilator: Amaranth component to compiled model to test run, without a Makefile or a Verilog bench.

``runner`` is the side of pytest; the other modules run inside the simulation. See ``docs/simulation.md``.
"""
